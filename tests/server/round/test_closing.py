"""The test when a run has ended: which models are measured where, and what the operator sees of it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import tensor

from gliofed.server.round.answers import Absent
from gliofed.server.round.closing import failed_test, final_test, measure_test
from gliofed.server.round.history import History, site_line
from gliofed.server.round.model import export_model
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.state import State
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.run_folder import RunFolder


class Sites:
    """Two sites that measure whatever they are sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, bytes]] = []

    def roll(self, round: int) -> tuple[dict[str, int], dict[str, Absent]]:
        return {"a": 1, "b": 2}, {}

    def ask(self, kind: str, request: Request, nodes: Mapping[str, int]) -> Iterator[tuple[str, Reply]]:
        self.asked.append((request.round, request.part, request.weights))
        yield from ((site, Reply(site=site, patients=2, metrics={"dice": 0.5})) for site in nodes)

    def agreed(self, node: int) -> int | None:
        return None


class Progress(RoundProgress):
    """Counts answers that are awaited, and those that came."""

    def start(self, round: int, answers: int, trained: Collection[str] = ()) -> None:
        self.awaited, self.came = answers, 0

    def tick(self, what: str) -> None:
        self.came += 1


def test_the_last_and_the_best_model_are_measured_and_the_operator_sees_it(
    tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    """On a terminal a test of hours showed nothing at all."""
    config, files = run_config("data.test=0.2"), RunFolder(tmp_path)
    best = State(round=1, weights={"w": tensor([1.0])})
    export_model(files, files.best, config, "run", best, {"validation": {"dice": 0.5, "patients": 12}})
    history = History(files.history)
    history.append({"event": "round", "round": 1, "sites": {site: site_line(status="counted") for site in "ab"}})
    assert final_test(history) is None and failed_test(history) is None
    sites, progress, last = (
        Sites(),
        Progress(2),
        Request(run_id="run", round=2, config=config, weights=b"w", part="test"),
    )
    any_sites: Any = sites
    event = measure_test(any_sites, config, last, history, files, progress)
    assert sites.asked == [(2, "test", b"w"), (1, "test", best.coded_result)]
    assert {name: model["round"] for name, model in event["models"].items()} == {"last": 2, "best": 1}
    assert progress.came == progress.awaited == 4
    history.append(event | {"failed": "nobody came"})
    assert final_test(history) == history.events()[-1] and failed_test(history) == "nobody came"
