"""Who is waited for, and whose answer counts, while sites come, go and are expelled."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from flwr.app import Message
from flwr.clientapp import ClientApp
from plain_federation import model_of
from rich.console import Console
from torch.testing import assert_close

from gliofed.server.report.series import site_losses
from gliofed.server.report.table import results_table
from gliofed.server.round.answers import Absent
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.failing import RoundError
from gliofed.server.round.history import History, site_line
from gliofed.server.round.model import initial_model
from gliofed.server.round.progress import RoundProgress, read_progress
from gliofed.server.round.rounds import _Run
from gliofed.server.round.sites import Federation, Sites
from gliofed.server.round.state import State
from gliofed.shared.codec import encode, travelling
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.run_folder import RunFolder
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.simulate import simulate

A, B, C = 1, 2, 3


class Line:
    """Sites that answer at once, where they are connected; a test may look in before an answer."""

    def __init__(self) -> None:
        LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks
        self.names, self.here, self.looks = {A: "a", B: "b"}, {A, B}, 0
        self.clock = Clock()
        self.asked: list[Message] = []
        self.received: dict[int, list[str]] = {}
        self.on_look: Callable[[], object] = lambda: None
        self.update = b""

    def get_node_ids(self) -> list[int]:
        self.looks += 1
        self.on_look()
        return sorted(self.here)

    def push_messages(self, messages: list[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{id(message)}"
            self.asked.append(message)
            about = message.metadata
            self.received.setdefault(about.dst_node_id, []).append(about.message_type)
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, wanted: list[str]) -> Iterator[Message]:
        for message in [each for each in self.asked if each.metadata.message_id in wanted]:
            self.asked.remove(message)
            site = self.names[message.metadata.dst_node_id]
            update = self.update if message.metadata.message_type == "train" else b""
            reply = Reply(site=site, patients=message.metadata.dst_node_id, steps=1, update=update, head="f" * 64)
            yield Message(reply.to_records(), reply_to=message)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def sites(line: Line, tmp_path: Path, run_config: Callable[..., RunConfig]) -> Iterator[Sites]:
    config = run_config("round.expected=[a,b]")
    with hold_audit(tmp_path) as audit:
        federation = Federation(config=config, out=tmp_path, run_id="r", names=lambda: line.names)
        yield Sites(line, federation, audit, RoundProgress(1), clock=line.clock)  # type: ignore[arg-type]


def test_a_site_that_went_away_is_waited_for_in_any_round(line: Line, sites: Sites) -> None:
    """Else a restart of its program between two rounds costs it one."""
    assert set(sites.roll(1)[0]) == {"a", "b"}
    line.here.remove(A)
    back = line.looks + 3
    line.on_look = lambda: line.here.add(A) if line.looks >= back else None
    assert set(sites.roll(2)[0]) == {"a", "b"}


def test_a_site_that_stays_away_is_waited_for_once(line: Line, sites: Sites) -> None:
    """A hospital that is down for a week must not cost each round `round.join` seconds."""
    sites.roll(1)
    line.here.remove(A)
    assert sites.roll(2)[1] == {"a": Absent("missing", "not connected")}
    looks = line.looks
    assert sites.roll(3)[1] == {"a": Absent("missing", "not connected")}
    assert line.looks == looks + 2


def test_status_can_read_who_was_asked_and_who_answered(
    line: Line, tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    """Also of the first request, to prepare, which may take a hospital an hour."""
    config, file, states = run_config("round.expected=[a,b]"), RunFolder(tmp_path).progress, []
    line.on_look = lambda: states.append(read_progress(tmp_path))
    with hold_audit(tmp_path) as audit, RoundProgress(2, file) as progress:
        federation = Federation(config=config, out=tmp_path, run_id="r", names=lambda: line.names)
        sites = Sites(line, federation, audit, progress, clock=line.clock)  # type: ignore[arg-type]
        nodes, _ = sites.roll(1)
        assert states[0] is not None and states[0].phase == "waiting"
        found = read_progress(tmp_path)
        assert found is not None and (found.phase, found.answered) == ("preparing", {"a": "prepared", "b": "prepared"})
        progress.start(1, 2, trained=["c"])
        answers = sites.ask("train", Request(run_id="r", round=1, config=config, weights=b"w"), nodes)
        next(answers)
        found = read_progress(tmp_path)
        assert found is not None and (found.round, found.phase, found.asked) == (1, "training", ["a", "b"])
        assert found.answered == {"a": "trained", "c": "trained"}
        list(answers)
    assert read_progress(tmp_path) is None


def test_nobody_waits_for_a_site_that_was_expelled(line: Line, sites: Sites) -> None:
    line.here.remove(A)
    name = line.names.pop(A)
    assert sites.roll(1)[1] == {"a": Absent("missing", "not admitted")}, "before this server could know it"
    assert line.looks == 2
    line.here.add(A)
    line.names[A] = name
    sites.roll(2)
    del line.names[A]
    looks = line.looks
    assert sites.roll(3)[1] == {"a": Absent("missing", "expelled")}
    assert line.looks == looks + 2


def test_a_site_with_a_new_key_is_prepared_anew(line: Line, sites: Sites) -> None:
    """It may have another cohort."""
    sites.roll(1)
    line.names, line.here = {B: "b", 9: "a"}, {B, 9}
    assert sites.roll(2)[0] == {"a": 9, "b": B}
    assert sites.cohorts[9] == 9
    assert sites.ceiling(9) == 9


def test_what_was_agreed_is_the_ceiling_whatever_a_site_says(
    line: Line, tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    """Of a site of an older federation, for which nothing was agreed, what it said when it prepared."""
    config = run_config("round.expected=[a,b]")
    with hold_audit(tmp_path) as audit:
        agreed = {"b": 1}
        federation = Federation(
            config=config, out=tmp_path, run_id="r", names=lambda: line.names, agreed=lambda: agreed
        )
        sites = Sites(line, federation, audit, RoundProgress(1), clock=line.clock)  # type: ignore[arg-type]
        sites.roll(1)
        assert (sites.cohorts[B], sites.ceiling(B), sites.ceiling(A)) == (2, 1, 1)
        agreed["b"] = 7
        assert sites.ceiling(B) == 7


def test_nothing_is_sent_to_a_site_that_is_not_expected(line: Line, sites: Sites) -> None:
    """It had the weights, and its update counted."""
    line.names[C], line.here = "c", {A, B, C}
    for round in (1, 2):
        ready, absent = sites.roll(round)
        assert (set(ready), absent) == ({"a", "b"}, {"c": Absent("not_invited", "not in round.expected")})
    assert line.received == {A: ["query"], B: ["query"]}
    line.here.remove(C)
    assert sites.roll(3)[1] == {}  # who does not connect is no news


def test_a_node_that_must_say_its_name_is_asked_for_that_alone(
    line: Line, tmp_path: Path, run_config: Callable[..., RunConfig]
) -> None:
    """Where nobody else knows it; the question has no weights."""
    line.names[C], line.here = "c", {A, B, C}
    with hold_audit(tmp_path) as audit:
        config = run_config("round.expected=[a,b]")
        sites = Sites(
            line, Federation(config=config, out=tmp_path, run_id="r"), audit, RoundProgress(1), clock=line.clock
        )  # type: ignore[arg-type]
        looks = line.looks
        for round in (1, 2):
            ready, absent = sites.roll(round)
            assert (set(ready), absent) == ({"a", "b"}, {"c": Absent("not_invited", "not in round.expected")})
    assert line.received == {A: ["query"], B: ["query"], C: ["query"]}
    assert line.looks < looks + 20  # nobody waits for it, for five seconds say


@pytest.fixture
def sampled(line: Line, tmp_path: Path, run_config: Callable[..., RunConfig]) -> Iterator[Callable[[], Sites]]:
    """A new server of a run in which two of four sites train in a round."""
    line.names, line.here = {A: "a", B: "b", C: "c", 4: "d"}, {A, B, C, 4}
    config = run_config("round.expected=[a,b,c,d]", "round.sample=0.5")
    with hold_audit(tmp_path) as audit:
        federation = Federation(config=config, out=tmp_path, run_id="r", names=lambda: line.names)
        yield lambda: Sites(line, federation, audit, RoundProgress(1), clock=line.clock)  # type: ignore[arg-type]


RESTS = Absent("not_invited", "not drawn this round")


def test_who_trains_is_drawn_anew_each_round_and_all_evaluate(sampled: Callable[[], Sites]) -> None:
    sites, trained = sampled(), []
    for round in range(1, 41):
        ready, absent = sites.roll(round, train=True)
        assert len(ready) == 2 and absent == {name: RESTS for name in "abcd" if name not in ready}
        trained += [*ready]
        assert sites.roll(round)[0].keys() == set("abcd")
    assert all(10 <= trained.count(name) <= 30 for name in "abcd"), trained


def test_a_server_that_was_killed_draws_the_same_whoever_is_there(line: Line, sampled: Callable[[], Sites]) -> None:
    first = [sampled().roll(round, train=True) for round in range(1, 9)]
    for round, (ready, absent) in enumerate(first, start=1):
        away = min(ready)
        line.here = {A, B, C, 4} - {ready[away]}
        now, missing = sampled().roll(round, train=True)
        assert now.keys() == ready.keys() - {away}
        assert missing == absent | {away: Absent("missing", "not connected")}, "a drawn site has no substitute"


def test_nobody_waits_for_a_site_that_is_not_drawn(line: Line, sampled: Callable[[], Sites]) -> None:
    """Neither at the start nor later; for one that is drawn as ever."""
    sites = sampled()
    drawn, resting = sites.roll(1, train=True)
    for server in (sampled(), sites):
        line.here = {A, B, C, 4} - {node for node, name in line.names.items() if name in resting}
        looks = line.looks
        assert server.roll(1, train=True)[0] == drawn
        assert line.looks == looks + 2
    line.here = {A, B, C, 4} - {min(drawn.values())}
    looks = line.looks
    sampled().roll(1, train=True)
    assert line.looks > looks + 2


def test_an_expected_site_that_there_is_not_is_named(
    out: Path, values: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped one, say: it is missing in each round, and nothing else would tell why."""
    simulate(values("sites=2", "round.expected=[site-1,site-9]", "round.join=0.1", f"out={out}"))
    assert "round.expected: site-9 is none of site-1 to site-2, and will be missing" in capsys.readouterr().err
    [line, *_] = [event["sites"]["site-9"] for event in History(out / "history.jsonl").events() if "sites" in event]
    assert (line["status"], line["reason"]) == ("missing", "not admitted"), "nobody was expelled"


def test_a_run_is_that_of_its_expected_sites(out: Path, values: Callable[..., dict[str, Any]]) -> None:
    """The same weights as without the third site, and an outcome that it does not change."""
    simulate(values("sites=3", "round.expected=[site-1,site-2]", f"out={out}"))
    simulate(values("sites=2", f"out={out}-two"))
    assert_close(model_of(out), model_of(Path(f"{out}-two")), rtol=0, atol=0)
    events = History(out / "history.jsonl").events()
    assert events[-1] == {"event": "end", "status": "done"}
    lines = [event["sites"]["site-3"] for event in events if event["event"] == "round"]
    assert lines == 2 * [site_line(status="not_invited", reason="not in round.expected")]
    assert set(site_losses(events)) == {"site-1", "site-2"}
    table = Console(record=True, width=200)
    table.print(results_table(events, "dice"))
    assert table.export_text().count("not_invited") == 2


@pytest.mark.parametrize("again", [False, True])
def test_an_update_does_not_count_once_its_site_is_expelled(
    line: Line, tmp_path: Path, run_config: Callable[..., RunConfig], again: bool
) -> None:
    """Nor where the site is there again with another key: the lost one may have sent it."""
    config = run_config("round.expected=[a,b]", "round.quorum=2", "round.evaluate_every=0")
    weights = travelling(initial_model(config))
    line.update = encode({name: value * 0 for name, value in weights.items()}, config.codec)
    shown: Any = type("Progress", (), {"start": lambda *_: None, "tick": lambda *_: None, "enter": lambda *_: None})()
    with hold_audit(tmp_path) as audit:
        federation = Federation(config=config, out=tmp_path, run_id="r", names=lambda: line.names)
        sites = Sites(line, federation, audit, RoundProgress(1), clock=line.clock)  # type: ignore[arg-type]
        run = _Run(config, tmp_path, History(tmp_path / "history.jsonl"), sites, shown, "r", audit)
        ask = sites.ask

        def expelling(kind: Any, request: Request, nodes: dict[str, int]) -> Iterator[Any]:
            yield from ask(kind, request, nodes)
            line.names = {B: "b"} | ({9: "a"} if again else {})

        sites.ask = expelling  # type: ignore[method-assign]
        with pytest.raises(RoundError, match="1 update counted") as failed:
            run.round(State(round=0, weights=weights), [])
    told = {site: (line["status"], line["reason"]) for site, line in failed.value.event["sites"].items()}
    assert told == {"a": ("refused", "expelled"), "b": ("counted", None)}
    assert (tmp_path / "refused" / "round-0001" / "a.json").exists()
