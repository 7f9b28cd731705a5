"""A request is judged once: in one order, before anything is read, built or loaded for it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict

import gliofed.client.round.job
from gliofed.client.app import make_client_app
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.mock import MockConfig, write_mock

BOOKS = {"audit", "site.log", "consent.json", "patients.lock"}
"""What of the work folder is opened to judge a request."""
opened: list[str] | None = None


def _see(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and opened is not None:
        opened.append(str(args[0]))


sys.addaudithook(_see)  # Python's own report of every file that is opened; a hook stays for good


@contextmanager
def opens(folder: Path) -> Iterator[list[Path]]:
    """The files below a folder that are opened meanwhile, each as often as it is, relative to the folder."""
    global opened
    found, opened = list[Path](), []
    try:
        yield found
    finally:
        found += [Path(path).relative_to(folder) for path in opened if path.startswith(f"{folder}/")]
        opened = None


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    write_mock(MockConfig(patients=3, size=(16, 16, 16), radius_max=6), tmp_path / "scans", 1)
    return SiteConfig(name="a", root=str(tmp_path / "scans"), labels="mock", work=str(tmp_path / "work"), device="cpu")


def request_of(run: RunConfig, weights: bytes | None = None, **other: Any) -> Request:
    own = weights_to_bytes(travelling(initial_model(run))) if weights is None else weights
    return Request(run_id="r", round=1, config=run, weights=own, head="0" * 64, **other)


def send(site: SiteConfig, request: Request, kind: str = "train") -> Reply:
    app = make_client_app(lambda _: site)
    LocalGrid(app, {}, 1, 1.0)  # a Message needs to know who speaks
    return Reply.from_records(app(Message(request.to_records(), 1, kind), Context(1, 1, {}, RecordDict(), {})).content)


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on: no parameter that has memory, and no weights out of bytes."""

    def watch() -> None:
        register = torch.nn.Module.register_parameter

        def registered(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
            assert parameter is None or parameter.device.type == "meta", f"{type(module).__name__}.{name} was built"
            register(module, name, parameter)

        monkeypatch.setattr(torch.nn.Module, "register_parameter", registered)
        loaded = lambda _: pytest.fail("the weights were loaded")  # noqa: E731
        monkeypatch.setattr(gliofed.client.round.job, "weights_from_bytes", loaded)

    return watch


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_the_order_of_refusals(
    site: SiteConfig,
    tmp_path: Path,
    run_config: Callable[..., RunConfig],
    nothing_is_built: Callable[[], None],
    kind: str,
) -> None:
    """A request that has every fault at once; each refusal's is mended, and the next one shows.

    The order is that of judge.py. A server learns by a code what comes before it, and the log by what is noted when.
    """
    good = run_config("data.validation=0.4")
    assert send(site, request_of(good)).status == "ok"  # a round, and a reading
    run, nobody = run_config("data.validation=0.5"), (datetime.now() + timedelta(hours=2)).strftime("%H:%M")
    until = (datetime.now() + timedelta(hours=3)).strftime("%H:%M")
    too_large = replace(run, data=replace(run.data, patch=(1024, 1024, 1024)))  # which this end would not send
    request = replace(request_of(too_large, b"no weights"), head="")
    policy = PolicyConfig(models=(), max_epsilon=1.0, max_parameters=1, hours=f"{nobody}-{until}", metrics="never")
    site = replace(site, policy=replace(policy, max_rounds_a_day=1, max_readings=1, min_patients=9))
    consent = Path(site.work) / "consent.json"
    kept = consent.read_bytes()
    consent.write_bytes(b"damaged")

    def allow(**words: Any) -> Callable[[], None]:
        def mend() -> None:
            nonlocal site
            site = replace(site, policy=replace(site.policy, **words))

        return mend

    def send_instead(**other: Any) -> Callable[[], None]:
        def mend() -> None:
            nonlocal request
            request = replace(request, **other)

        return mend

    steps: list[tuple[str, Callable[[], object]]] = [
        ("protocol", send_instead(head="1" * 64)),
        ("data", lambda: consent.write_bytes(kept)),
        ("policy", allow(models=None)),
        ("budget", allow(max_epsilon=None)),
        ("protocol", send_instead(config=run)),
        ("policy", allow(max_parameters=None)),
        ("hours", allow(hours=None)),
        *([("rounds_a_day", allow(max_rounds_a_day=None))] if kind == "train" else []),
        ("readings", allow(max_readings=2)),
        *([("withheld", allow(metrics="always"))] if kind == "evaluate" else []),
        ("protocol", send_instead(weights=request_of(run).weights)),
    ]
    nothing_is_built()
    for code, mend in steps:
        with opens(tmp_path) as paths:
            assert send(site, request, kind).code == code
        assert {path.parts[:2] for path in paths} <= {("work", book) for book in BOOKS}, code
        mend()
    assert send(site, request, kind).code == "too_few_patients"  # which the data say: it was admitted


def test_a_stored_reply_is_read_once(site: SiteConfig, run_config: Callable[..., RunConfig]) -> None:
    """It is as large as the model; and nothing of it is read for whom the policy refuses meanwhile."""
    request = request_of(run_config())
    first = send(site, request)
    stored = {path.relative_to(site.work) for path in (Path(site.work) / "outbox").iterdir()}
    with opens(Path(site.work)) as work:
        assert send(site, request).update == first.update
    outbox = [path for path in work if path.parts[0] == "outbox"]
    assert sorted(outbox) == sorted(stored) and len(stored) == 2
    with opens(Path(site.work)) as work:
        assert send(replace(site, policy=PolicyConfig(models=())), request).code == "policy"
    assert not [path for path in work if path.suffix == ".safetensors"]
