"""What leaves a site when something goes wrong there: a code, and not a word more."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from judged_site import train

import gliofed.client.app
import gliofed.client.round.work
from gliofed.client.app import make_client_app
from gliofed.client.doctor.manifest import NonePassedError
from gliofed.client.round.outbox import Outbox
from gliofed.client.round.policy import OF_NO_PATIENT, DeclinedError
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.volume import DataError
from gliofed.shared.messages import CODES, Reply, Request
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.grid import LocalGrid

NAME = "Erika_Mustermann"


@pytest.fixture
def ask(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Callable[..., tuple[Reply, str]]:
    """Send one request to a site whose folder is named after a patient; return its reply and its log."""

    def send(
        kind: str = "train", policy: PolicyConfig | None = None, run: tuple[str, ...] = (), **settings: str
    ) -> tuple[Reply, str]:
        site = SiteConfig(
            name="a",
            root=str(tmp_path / NAME),
            labels="mock",
            work=str(tmp_path / "work"),
            policy=policy or PolicyConfig(),
            **settings,  # type: ignore[arg-type]
        )
        app = make_client_app(lambda _: site)
        LocalGrid(app, {}, 1, 1.0)  # a Message needs to know who speaks
        config = run_config(*run)
        weights = weights_to_bytes(travelling(initial_model(config)))
        request = Request(run_id="r", round=1, config=config, weights=weights, head="0" * 64)
        answer = app(Message(request.to_records(), 1, kind), Context(1, 1, {}, RecordDict(), {}))
        log = tmp_path / "work" / "site.log"
        assert NAME not in repr(answer.content)
        return Reply.from_records(answer.content), log.read_text() if log.is_file() else ""

    return send


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> Reply:
        raise error

    monkeypatch.setattr(gliofed.client.round.work, "train", fail)


def test_a_missing_folder_is_declined_and_its_name_stays(ask: Callable[..., tuple[Reply, str]]) -> None:
    reply, log = ask()
    assert (reply.status, reply.code) == ("declined", "no_cases")
    assert NAME in log


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError(f"{NAME} failed"), "failed", "error"),
        (ImportError(f"/home/{NAME}/lib.so is broken"), "failed", "error"),
        (MemoryError(NAME), "failed", "out_of_memory"),
        (RuntimeError(f"CUDA out of memory at {NAME}"), "failed", "out_of_memory"),
        (DataError("unreadable", f"{NAME}.nii.gz: truncated"), "declined", "data"),
        (NonePassedError("truncated", NAME, {"truncated": 3}), "declined", "data"),
        (DeclinedError("policy", NAME), "declined", "policy"),
    ],
)
def test_every_exception_becomes_a_code(
    ask: Callable[..., tuple[Reply, str]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: str,
    code: str,
) -> None:
    fail_with(monkeypatch, error)
    reply, log = ask()
    assert (reply.status, reply.code) == (status, code)
    assert NAME in log


@pytest.mark.parametrize("mechanism", ["dp_sgd", "local_update"])
def test_a_private_run_tells_nothing_of_patients_by_its_codes(
    ask: Callable[..., tuple[Reply, str]], monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    """Codes of the check, of the policy's least numbers and of a program that failed: the reply is one and the same."""
    run, seen = (f"privacy={mechanism}",), []
    errors = [DataError(code, NAME) for code in sorted(set(CODES) - OF_NO_PATIENT)]
    errors += [NonePassedError("truncated", NAME, {"truncated": 3}), RuntimeError(NAME), MemoryError(NAME)]
    for error in errors:
        fail_with(monkeypatch, error)
        reply, log = ask(run=run)
        seen.append(replace(reply, head="", records=""))
        assert log.count(NAME) == len(seen)  # the site's own log keeps the sentence
    assert {repr(reply) for reply in seen} == {repr(Reply(site="a", status="declined", code="undisclosed"))}
    for code in OF_NO_PATIENT:
        fail_with(monkeypatch, DeclinedError(code, NAME))
        assert ask(run=run)[0].code == code


def test_a_site_that_tells_exact_numbers_tells_exact_codes(
    ask: Callable[..., tuple[Reply, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, NonePassedError("no_series", NAME, {"no_series": 3}))
    reply, _ = ask(policy=PolicyConfig(counts="always"), run=("privacy=dp_sgd",))
    assert (reply.code, reply.left_out) == ("no_series", {"no_series": 3})


def test_policy_is_asked_before_the_data(ask: Callable[..., tuple[Reply, str]]) -> None:
    """The folder is not there, but that is not even looked at."""
    reply, log = ask(policy=PolicyConfig(models=("clstm_unet3d",)))
    assert (reply.status, reply.code) == ("declined", "policy")
    assert "model.name=unet: policy.models allows clstm_unet3d" in log


def test_what_was_stored_under_another_policy_stays(tmp_path: Path, run_config: Callable[..., RunConfig]) -> None:
    """A hospital that tightens its policy between two requests is not asked back by the older one."""
    site = SiteConfig(name="a", root=str(tmp_path), labels="mock", work=str(tmp_path / "work"))
    request = Request(run_id="r", round=1, config=run_config(), weights=b"w")
    Outbox(tmp_path / "work" / "outbox").store(request.key, Reply(site="a", metrics={"loss": 1.0}, update=b"u"))
    assert train(site, request).metrics == {"loss": 1.0}
    assert train(replace(site, policy=PolicyConfig(metrics="never")), request).metrics == {}
    with pytest.raises(DeclinedError):
        train(replace(site, policy=PolicyConfig(models=())), request)


def test_more_steps_than_allowed(ask: Callable[..., tuple[Reply, str]]) -> None:
    assert ask(policy=PolicyConfig(max_steps=1))[0].code == "policy"


def test_a_device_that_is_not_there(ask: Callable[..., tuple[Reply, str]]) -> None:
    reply, log = ask(device="cuda:99")
    assert (reply.status, reply.code) == ("declined", "device")
    assert "device=cuda:99" in log


def test_a_site_whose_own_configuration_fails_says_only_that(
    ask: Callable[..., tuple[Reply, str]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is in the process's own log, also after a request that had a log of its site's."""
    # A logger of this test's own: a thread that another test left behind may hold a log of the shared one open.
    monkeypatch.setattr(gliofed.client.app, "LOG", logging.getLogger("sites of this test"))
    ask()

    def broken(_: Context) -> SiteConfig:
        raise ValueError(f"site.yaml: {NAME}")

    app = make_client_app(broken)
    LocalGrid(app, {}, 1, 1.0)
    answer = app(Message(RecordDict(), 1, "train"), Context(1, 1, {}, RecordDict(), {}))
    assert Reply.from_records(answer.content).code == "config"
    assert NAME not in repr(answer.content)
    assert f"site.yaml: {NAME}" in caplog.text


def test_words_of_the_server_make_no_lines_of_their_own_in_the_log(
    ask: Callable[..., tuple[Reply, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read is quoted, and could look like the site's own lines, or move a terminal's cursor."""
    forged = "2026-01-01 00:00:00,000 INFO all is well"

    def fail(*_: object) -> Reply:
        raise RuntimeError(f"x\n{forged}\x1b[2K\r\u2028{'y' * 5000}")

    monkeypatch.setattr(gliofed.client.round.work, "train", fail)
    _, log = ask()
    assert forged in log and "\x1b" not in log and "\u2028" not in log and max(map(len, log.splitlines())) < 2100
    ours = [line for line in log.split("\n") if line and not line.startswith("    ")]
    assert len(ours) == 1 and ours[0].endswith("ERROR train failed")

    def decline(*_: object) -> Reply:
        raise DeclinedError("data", f"x\n{forged}")

    monkeypatch.setattr(gliofed.client.round.work, "train", decline)
    _, log = ask()
    assert log.split("\n")[-2].endswith(f"train declined: x\\n{forged}")


def test_a_long_log_becomes_the_old_one(
    ask: Callable[..., tuple[Reply, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gliofed.client.app, "LONGEST_LOG", 10)
    _, first = ask()
    _, second = ask()
    assert (tmp_path / "work/site.old.log").read_text() == first and len(second) == len(first)


def test_a_log_that_cannot_be_written_ends_nothing(
    ask: Callable[..., tuple[Reply, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk: the answer is what it would have been."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/site.log").symlink_to("/dev/full")
    reply, _ = ask()
    assert (reply.status, reply.code) == ("declined", "no_cases")
