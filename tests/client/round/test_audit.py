"""A site's audit log: what was asked and decided, and a receipt of all that left, on disk before it leaves."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

import gliofed.client.round.audit
import gliofed.client.round.work
from gliofed.client.app import make_client_app
from gliofed.client.round.audit_command import audit_command
from gliofed.client.round.judge import Admitted
from gliofed.client.round.ledger import read_ledger
from gliofed.server.round.model import initial_model
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.audit_command import NoLogError
from gliofed.shared.chain import line_hash
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.shared.work_folder import WorkFolder
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.mock import MockConfig, write_mock
from gliofed.simulation.simulate import simulate

Events = list[dict[str, Any]]
SERVER = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_mock(MockConfig(patients=3, size=(16, 16, 16), radius_max=6), root, 1)
    return root


@pytest.fixture
def site(scans: Path, tmp_path: Path) -> SiteConfig:
    work = str(tmp_path / "work")
    return SiteConfig(name="a", root=str(scans), labels="mock", work=work, device="cpu")


@pytest.fixture
def request_(run_config: Callable[..., RunConfig]) -> Request:
    config = run_config("data.validation=0")
    weights = weights_to_bytes(travelling(initial_model(config)))
    return Request(run_id="r", round=1, config=config, weights=weights, head=SERVER)


def send(site: SiteConfig, content: RecordDict, kind: str = "train") -> RecordDict:
    """What the site's app answers."""
    app = make_client_app(lambda _: site)
    LocalGrid(app, {}, 1, 1.0)  # a Message needs to know who speaks
    return app(Message(content, 1, kind), Context(1, 1, {}, RecordDict(), {})).content


def events(site: SiteConfig) -> Events:
    return read_audit(audit_file(Path(site.work))).events()


def recomputed(records: RecordDict) -> dict[str, tuple[int, str]]:
    """An oracle: name -> bytes and SHA-256 of everything in a message, but its head."""
    found = {}
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            data = {f"{name}/{key}": array.data for key, array in record.items()}
        else:
            values = dict(record)
            if isinstance(record, ConfigRecord):
                assert len(str(values.pop("head"))) == 64 and values.pop("signature") == ""
            data = {name: json.dumps(values, sort_keys=True).replace(", ", ",").replace(": ", ":").encode()}
        found |= {key: (len(value), sha256(value).hexdigest()) for key, value in data.items()}
    return found


@pytest.mark.parametrize("kind", ["query", "train"])
def test_a_receipt_is_of_the_very_message(site: SiteConfig, request_: Request, kind: str) -> None:
    records = send(site, request_.to_records(), kind)
    asked, decision, *trained_on, receipt = events(site)
    assert [event["event"] for event in trained_on] == ["trained_on"] * (kind == "train")
    assert {record["name"]: (record["bytes"], record["sha256"]) for record in receipt["records"]} == recomputed(records)
    reply = Reply.from_records(records)
    assert (receipt["patients"], receipt["metrics"], receipt["epsilon"]) == (3, sorted(reply.metrics), None)
    assert receipt["records"][2]["shape"] == [len(reply.update)] and (kind == "query" or len(reply.update) > 1000)
    assert (asked["config_hash"], asked["server_head"]) == (request_.config.hash, SERVER)
    assert asked["weights"] == sha256(request_.weights).hexdigest()
    assert (decision["decision"], decision["code"]) == ("accepted", "ok")
    word = "prepare" if kind == "query" else kind
    for event in (asked, decision, receipt):
        assert (event["kind"], event["run_id"], event["round"]) == (word, "r", 1)
    # The head that left is the hash of the receipt's own line.
    assert reply.head == line_hash(audit_file(Path(site.work)).read_text().splitlines()[-1])


def test_the_receipt_is_there_before_the_reply_leaves(
    site: SiteConfig, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the request before the work begins: a process that is killed meanwhile has left its trace."""
    seen: list[str] = []

    def train(_: Admitted) -> Reply:
        seen.extend(event["event"] for event in events(site))
        return Reply(site="a", metrics={"loss": float("nan")}, update=b"u")

    monkeypatch.setattr(gliofed.client.round.work, "train", train)
    records = send(site, request_.to_records())
    assert seen == ["request", "decision"]
    receipt = events(site)[-1]
    assert {record["name"]: (record["bytes"], record["sha256"]) for record in receipt["records"]} == recomputed(records)


def test_a_stored_reply_has_a_receipt_of_its_own(site: SiteConfig, request_: Request) -> None:
    first, again = (Reply.from_records(send(site, request_.to_records())) for _ in range(2))
    other = replace(request_, head="f" * 64)
    third = Reply.from_records(send(site, other.to_records()))  # another head is no other request
    assert first.update == again.update == third.update
    assert len({first.head, again.head, third.head}) == 3
    receipts = [event for event in events(site) if event["event"] == "receipt"]
    assert receipts[0]["records"] == receipts[1]["records"] == receipts[2]["records"]
    assert [event["stored"] for event in events(site) if event["event"] == "decision"] == [False, True, True]


@pytest.mark.parametrize(
    ("policy", "status", "code", "accepted"),
    [
        (PolicyConfig(codecs=("int8",)), "declined", "policy", False),
        (PolicyConfig(min_patients=9), "declined", "too_few_patients", True),
    ],
)
def test_refusals(
    site: SiteConfig, request_: Request, policy: PolicyConfig, status: str, code: str, accepted: bool
) -> None:
    """By the policy's words, before anything is read; or by what the data are."""
    site = SiteConfig(**{**vars(site), "policy": policy})
    assert Reply.from_records(send(site, request_.to_records())).code == code
    decisions = [(event["decision"], event["code"]) for event in events(site) if event["event"] == "decision"]
    assert decisions == [("accepted", "ok")] * accepted + [(status, code)]
    receipt = events(site)[-1]
    assert (receipt["event"], receipt["status"], receipt["code"]) == ("receipt", status, code)


def test_a_failure_is_noted_without_its_words(
    site: SiteConfig, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Reply:
        raise RuntimeError("Erika_Mustermann.nii.gz")

    monkeypatch.setattr(gliofed.client.round.work, "train", fail)
    send(site, request_.to_records())
    assert [event.get("decision") for event in events(site)] == [None, "accepted", "failed", None]
    assert b"Mustermann" not in audit_file(Path(site.work)).read_bytes()


def test_an_unreadable_request_is_noted(site: SiteConfig) -> None:
    assert Reply.from_records(send(site, RecordDict())).code == "protocol"
    assert [(event["event"], event["run_id"]) for event in events(site)] == [
        ("request", None),
        ("decision", None),
        ("receipt", None),
    ]


@pytest.mark.parametrize("head", ["", "0" * 63, "G" * 64, "0" * 64 + "\n", "../../etc"])
def test_a_request_without_a_head_is_refused(site: SiteConfig, request_: Request, head: str) -> None:
    """It enters the log; a server that sends none could write its own log anew, and nobody could tell."""
    records = request_.to_records()
    records.config_records["request"]["head"] = head
    assert Reply.from_records(send(site, records)).code == "protocol"
    assert [event["event"] for event in events(site)] == ["request", "decision", "receipt"]


def block(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")


def damage(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "audit.jsonl").write_text("{}\n")
    (folder / "head.json").write_text('{"lines": 1, "hash": "0"}')


@pytest.mark.parametrize("how", [block, damage])
def test_without_an_audit_log_nothing_leaves(
    site: SiteConfig, request_: Request, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path], None]
) -> None:
    how(audit_file(Path(site.work)).parent)
    monkeypatch.setattr(gliofed.client.round.work, "train", lambda *_: pytest.fail("it was asked to train"))
    reply = Reply.from_records(send(site, request_.to_records()))
    assert reply == Reply(site="a", status="declined", code="audit")
    assert "audit" in (Path(site.work) / "site.log").read_text()


def test_without_a_receipt_nothing_leaves(site: SiteConfig, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full by the time that the update is there; it leaves when it is asked for again, with a receipt."""
    append = gliofed.client.round.audit.Chain.append

    def full(log: Any, *lines: dict[str, Any]) -> str:
        if any(line["event"] == "receipt" for line in lines):
            raise OSError(28, "No space left on device")
        return append(log, *lines)

    with monkeypatch.context() as patch:
        patch.setattr(gliofed.client.round.audit.Chain, "append", full)
        records = send(site, request_.to_records())
        assert Reply.from_records(records) == Reply(site="a", status="declined", code="audit")
    assert Reply.from_records(send(site, request_.to_records())).status == "ok"
    assert [event.get("stored") for event in events(site)] == [None, False, None, None, True, None]


def test_a_simulated_run_leaves_receipts(values: Callable[..., dict[str, Any]], out: Path) -> None:
    """Epsilon as it was told, which the ledger has; a refusal; and neither a patient nor a file in any line."""
    overrides = (
        "privacy=dp_sgd",
        "privacy.batch=3",
        "privacy.patches=1",
        "train.steps=1",
        "data.validation=0",
        "policies={site-2:{mechanisms:[none]}}",
    )
    assert simulate(values("sites=2", f"out={out}", *overrides)).status == "incomplete"
    works = {name: out / "sites" / name for name in ("site-1", "site-2")}
    logs = {name: read_audit(audit_file(work)).events() for name, work in works.items()}
    told = [event["epsilon"] for event in logs["site-1"] if event["event"] == "receipt" and event["kind"] == "train"]
    ledger = read_ledger(WorkFolder(works["site-1"]).ledger)
    assert ledger is not None and len(told) == 2
    assert told[0] < told[1] and ledger.epsilon() <= told[1] < ledger.epsilon() + 0.1
    codes = {event["code"] for event in logs["site-2"] if event["event"] in ("decision", "receipt")}
    assert codes == {"policy"}
    readings = [[event["reading"] for event in log if "reading" in event] for log in logs.values()]
    assert list(map(len, readings)) == [1, 0]  # a run is one reading; what the policy declines is none
    names = {path.name for path in (out / "data").rglob("*")} | {path.stem for path in (out / "data").rglob("*")}
    assert len(names) > 10
    for file in (*(audit_file(work) for work in works.values()), audit_file(out)):
        text = file.read_text()
        assert not [name for name in names - set(works) if name in text]


def test_the_command(
    site: SiteConfig,
    request_: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = audit_file(Path(site.work))
    with pytest.raises(NoLogError):
        audit_command(["verify", site.work])
    send(site, request_.to_records(), "query")
    for place in (site.work, str(file.parent), str(file)):
        assert audit_command(["verify", place]) == 0
    assert "3 lines hold" in capsys.readouterr().out
    (tmp_path / "copy.jsonl").write_bytes(file.read_bytes())  # without its head.json
    assert audit_command(["verify", str(tmp_path / "copy.jsonl")]) == 0
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("gliofed.client.round.audit_command.find_audit", of_another)
        with pytest.raises(PermissionError):
            audit_command(["verify", site.work])
    with pytest.raises(NoLogError):
        audit_command(["verify", site.work, "--server", str(file.parent.parent / "nowhere")])
    assert audit_command(["verify", site.work, "--server", site.work]) == 1  # no server's log
    file.write_text(file.read_text().replace('"accepted"', '"declined"'))
    assert audit_command(["verify", site.work]) == 1
    assert f"{file}: line 3 does not follow the one before" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        read_audit(file)
    with pytest.raises(SystemExit) as wrong:
        audit_command(["show", site.work])
    assert wrong.value.code == 2


def of_another(place: Path, hint: str) -> None:
    raise PermissionError(13, "Permission denied", str(place))
