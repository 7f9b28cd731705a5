"""The names of Flower's that are replaced: what runs is what the hospital approved, and what happens is noted."""

import hashlib
import json
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flwr.supernode.start_client_internal as internal
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.config import parse_config_args
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeStateFactory
from real_superlink import tiny_app

import gliofed.client.link.life
import gliofed.client.link.supernode
from gliofed.client.link.life import Life
from gliofed.client.link.supernode import flower_options, is_approved, replace_names, run_supernode
from gliofed.shared.files import write_json
from gliofed.shared.flower import TESTED
from gliofed.shared.keys import new_key, own_certificate
from gliofed.shared.kit import Kit
from gliofed.simulation.grid import LocalGrid

CALLS = ("ActivateNode", "SendNodeHeartbeat", "PullMessages")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.yaml").write_text("name: a\nroot: scans\nlabels: msd\n")
    approve(tmp_path, tiny_app())
    return tmp_path


def approve(folder: Path, *codes: bytes) -> None:
    line = {"time": "now", "files": 1}
    write_json(folder / "approved.json", [{"sha256": hashlib.sha256(code).hexdigest(), **line} for code in codes])


def audited(folder: Path) -> list[dict[str, Any]]:
    file = folder / "work/audit/audit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "state.json").read_text()))


@pytest.fixture
def life(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    """Flower with our names in place, for one test."""
    ours = ("_verify_fab", "_pull_and_store_message", "_push_messages")
    for place, names in ((internal, ours), (FleetHttpClient, CALLS)):
        for name in names:
            monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr(FleetHttpClient, "__init__", FleetHttpClient.__init__)
    monkeypatch.setattr(gliofed.client.link.life, "EVERY", 0.0)
    made = Life(folder)
    replace_names(folder, made, ["false"])
    return made


@pytest.fixture
def receive(life: Life) -> Callable[[bytes], Any]:
    """Flower's own loop, given one message of a run with this code; returns its state afterwards."""

    def once(code: bytes, kind: str = "train", round: str = "4") -> Any:
        LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks
        message = Message(RecordDict(), 1, kind, group_id=round)
        message.metadata.__dict__["_message_id"] = message.object_id
        stores = ObjectStoreFactory()
        state = NodeStateFactory(objectstore_factory=stores).state()
        state.set_node_id(1)
        run = Run.create_empty(run_id=message.metadata.run_id)
        run.fab_id, run.fab_version, run.primary_task_type = "../../tmp/evil", "/../1", TaskType.AGENT_APP
        run.fab_hash = hashlib.sha256(code).hexdigest()
        internal._pull_and_store_message(
            state=state,
            object_store=stores.store(),
            node_config={},
            receive=lambda: (message, get_object_tree(message)),
            get_run=lambda run_id: run,
            get_fab=lambda sha256, run_id: Fab(sha256, code, {}),
            pull_object=lambda run_id, object_id: get_all_nested_objects(message)[object_id].deflate(),
            confirm_message_received=lambda run_id, object_id: None,
            trusted_entities=None,
        )
        return SimpleNamespace(state=state, run=message.metadata.run_id, store=stores.store())

    return once


def test_approved_code_is_kept_to_be_run(folder: Path, receive: Callable[[bytes], Any]) -> None:
    found = receive(tiny_app())
    assert found.state.get_run(found.run) is not None and not found.state.get_messages_legacy(is_reply=True)
    assert not audited(folder) and told(folder)["refused"] is None
    assert {key: told(folder)[key] for key in ("state", "kind", "round")} == dict(
        state="working", kind="train", round="4"
    )


def test_the_servers_words_do_not_say_which_code_is_run(receive: Callable[[bytes], Any]) -> None:
    """Flower looks for it in a folder of these names, which could be somebody else's, and could run another program."""
    found = receive(tiny_app())
    run = found.state.get_run(found.run)
    assert (run.fab_id, run.fab_version, run.fab_hash) == ("test/tiny", "1.0.0", hashlib.sha256(tiny_app()).hexdigest())
    assert [task.type for task in found.state.get_tasks()] == [TaskType.CLIENT_APP]


def send(found: Any) -> list[Message]:
    """What Flower sends of it."""
    sent: list[Message] = []

    def take(message: Message, *_: object) -> tuple[set[str], str]:
        sent.append(message)
        return set(), ""

    internal._push_messages(state=found.state, object_store=found.store, send=take, push_object=lambda *_: None)
    return sent


def test_an_error_that_leaves_is_noted(folder: Path, receive: Callable[[bytes], Any]) -> None:
    """Its process here ends without a reply; no ClientApp wrote a receipt of what leaves in its place."""
    (error,) = send(receive(tiny_app()))
    assert error.error.code == 8
    (line,) = audited(folder)
    told = {"event": "error_sent", "code": 8, "kind": "train", "round": "4"}
    assert {key: line[key] for key in told} == told


def test_words_of_any_length_are_not_written_down(folder: Path, receive: Callable[..., Any]) -> None:
    """They would stay in the audit log for ever, which is read whole for each message."""
    send(receive(tiny_app(), "train." + "x" * 1000, "4" * 1000))
    assert told(folder)["kind"] == told(folder)["round"] == "?"
    assert audited(folder)[0]["round"] == "?"


def test_no_redirection_is_followed(life: Life, tmp_path: Path) -> None:
    """The server could have this machine send a request to any address inside the hospital."""
    called: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request.url.host)
        return httpx.Response(307, headers={"location": "http://10.0.0.5/shutdown"})

    key = new_key()
    (tmp_path / "ca.crt").write_bytes(own_certificate(key, "127.0.0.1").public_bytes(Encoding.PEM))
    client = FleetHttpClient.from_server_address("127.0.0.1:1", False, (tmp_path / "ca.crt").read_bytes(), [])
    client._client._transport = httpx.MockTransport(answer)
    client._client._mounts = {}
    with pytest.raises(httpx.HTTPStatusError):
        client.PullMessages(PullMessagesRequest())
    assert called == ["127.0.0.1"]


def test_an_approval_that_was_withdrawn(folder: Path, receive: Callable[[bytes], Any]) -> None:
    """Flower asks when it gets to know a run, and not again."""
    found = receive(tiny_app())
    approve(folder, tiny_app("other"))
    assert [each.error.code for each in send(found)] == [7]


def test_altered_code_is_answered_with_an_error(folder: Path, receive: Callable[[bytes], Any]) -> None:
    """Flower's own answer: nothing of the code is kept, so nothing can run."""
    other = tiny_app("one line more")
    found = receive(other)
    assert found.state.get_run(found.run) is None
    assert [each.error.code for each in send(found)] == [7]
    line = audited(folder)[0]
    sha256 = hashlib.sha256(other).hexdigest()
    assert (line["event"], line["sha256"], told(folder)["refused"]) == ("code_refused", sha256, sha256)


def test_approval_is_read_each_time(folder: Path) -> None:
    """Approved while the SuperNode runs, or no longer; a damaged list approves nothing."""
    code, other = tiny_app(), tiny_app("other")
    assert is_approved(folder, code) and not is_approved(folder, other)
    approve(folder, code, other)
    assert is_approved(folder, code) and is_approved(folder, other)  # a run under way needs the older one
    approve(folder, other)
    assert is_approved(folder, other) and not is_approved(folder, code)
    for broken in ("{", "[1]", '{"sha256": "x"}'):
        (folder / "approved.json").write_text(broken)
        assert not is_approved(folder, other)
    (folder / "approved.json").unlink()
    assert not is_approved(folder, other)


def test_refused_also_where_it_cannot_be_noted(folder: Path) -> None:
    (folder / "site.yaml").unlink()
    assert not is_approved(folder, b"code")


def test_contact(folder: Path, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats and pulls are told apart, and a failure is in a word that start can read."""
    answers: list[Any] = []

    def call(self: object, *, request: object, **_: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(FleetHttpClient, "_unary_unary", call)
    client = FleetHttpClient("https://localhost", verify=False)
    assert (told(folder)["state"], told(folder)["contact"]) == ("connecting", None)
    refusal = httpx.Response(412, json={"code": 2004, "public_details": None, "message": "no", "error": "x"})
    refusal.request = httpx.Request("POST", "https://localhost")
    answers += [httpx.HTTPStatusError("no", request=refusal.request, response=refusal)]
    with pytest.raises(httpx.HTTPStatusError):
        client.ActivateNode(None)  # type: ignore[arg-type]
    assert told(folder)["problem"].startswith("HTTP 412")
    answers += [SimpleNamespace(success=False)]
    client.SendNodeHeartbeat(None)  # type: ignore[arg-type]
    assert told(folder)["contact"] is None
    answers += [SimpleNamespace(success=True)]
    client.SendNodeHeartbeat(None)  # type: ignore[arg-type]
    assert told(folder)["contact"] and told(folder)["problem"] is None and told(folder)["pulled"] is None
    answers += [SimpleNamespace(messages_list=[]), httpx.ConnectError("[Errno 111] Connection refused")]
    client.PullMessages(None)  # type: ignore[arg-type]
    assert told(folder)["pulled"]
    with pytest.raises(httpx.ConnectError):
        client.PullMessages(None)  # type: ignore[arg-type]
    assert told(folder)["problem"] == "ConnectError: [Errno 111] Connection refused"
    client.close()


def test_a_full_disk_does_not_end_it(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does cannot be noted, and not even that can be said: a training goes on."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gliofed.client.link.life, "write_json", full)
    with open("/dev/full", "w", buffering=1) as device:
        monkeypatch.setattr(sys, "stderr", device)
        life.say("working", "train", "1")
        monkeypatch.undo()
        with suppress(OSError):  # what it could not write
            device.close()


@pytest.mark.parametrize("name", ["plain", "o'hara", 'two "words"', "back\\slash\\", "klinik-köln 🧠", "a=b"])
def test_the_folder_arrives_as_it_is(tmp_path: Path, name: str) -> None:
    """Flower takes its node's settings apart by quotes, and then as TOML."""
    folder = tmp_path / name
    folder.mkdir()
    kit = Kit(federation="study", site="a", address="here:1", ca_sha256="a" * 64, code_sha256="b" * 64, made="now")
    write_json(folder / "kit.json", kit.__dict__)
    words = flower_options(folder, 1)
    assert parse_config_args([words[words.index("--node-config") + 1]]) == {"folder": str(folder)}


def test_who_may_talk_to_it(tmp_path: Path) -> None:
    """Flower's port is anybody's on the machine, also to listen on once a SuperNode has ended."""
    gliofed.client.link.supernode._write_secrets(tmp_path)
    for name in ("runtime.key", "runtime.secret"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert len((tmp_path / "runtime.secret").read_bytes()) == 32
    ours = ssl.create_default_context(cafile=str(tmp_path / "runtime.crt"))
    ours.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shaken(tmp_path, ours)
    (tmp_path / "other").mkdir()
    gliofed.client.link.supernode._write_secrets(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(tmp_path / "other", ours)


def shaken(home: Path, ours: ssl.SSLContext) -> bool:
    """Whether a client speaks TLS with a server of these files."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(home / "runtime.crt", home / "runtime.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = ours.wrap_bio(back, there, server_hostname="127.0.0.1"), served.wrap_bio(there, back, server_side=True)
    for each in ends * 3:
        with suppress(ssl.SSLWantReadError):
            each.do_handshake()
    return ends[0].version() == "TLSv1.3" == ends[1].version()


def test_another_flower(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It might check code in another place, and then nothing would be checked."""
    monkeypatch.setattr("gliofed.shared.flower.__version__", "1.0.0")
    with pytest.raises(SystemExit, match=f"flwr 1.0.0: approval of code is known to hold with {TESTED}; install that"):
        run_supernode(folder)
