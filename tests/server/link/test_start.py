"""What `start` checks before anything runs, and whom it lets in; tests/deploy run it."""

import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from small_federation import provisioned
from telephone import admit_told

import server.link.superlink
from client.link.join import join
from server.link.control import Node, SilentError, key_bytes
from server.link.members import tend_members
from server.link.online import read_online
from server.link.runner import Runner
from server.link.start import HANGS, PENDING, TICK, Service, only_one, say
from server.link.superlink import Link, open_link
from server.provisioning.admit import expel
from server.provisioning.certificates import load_authority, write_certificate
from server.provisioning.federation import read_federation
from shared.keys import new_key, read_public
from shared.parse import ConfigError

SITES = ("hospital-a", "hospital-b")
HERE = "name: study\naddress: localhost:8443\nlisten: 127.0.0.1:{port}\nsites: [hospital-a, hospital-b]\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation with both hospitals' requests."""
    root = tmp_path_factory.mktemp("federation")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        folder = provisioned(root, HERE.format(port=probe.getsockname()[1]))
    for site in SITES:
        join(folder / "kits" / f"{site}.zip", root / site)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "root"))


@pytest.fixture
def folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(server.link.superlink, "_nginx", lambda: "nginx")
    yield root / "study"


def test_the_superlink_is_on_loopback_and_nginx_in_front_of_it(folder: Path) -> None:
    link = open_link(folder)
    words = list(link.superlink.command)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(words)
    assert "--insecure" not in words
    assert link.superlink.environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert f"server {link.control.address} max_fails=0;" in (folder / "link" / "nginx.conf").read_text()
    assert open_link(folder).control.address == link.control.address  # kept


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    address = read_federation(folder / "federation.yaml").listen
    assert address is not None
    with socket.create_server(("127.0.0.1", int(address.split(":")[1]))):
        with pytest.raises(ConfigError, match=rf"{address}: cannot be listened on .* listen in federation\.yaml"):
            open_link(folder)


def test_a_taken_port_of_the_superlink_is_changed(folder: Path) -> None:
    """Nobody has written it down: the proxy is told another."""
    old = open_link(folder).control.address
    with socket.create_server(("127.0.0.1", int(old.split(":")[1]))):
        assert open_link(folder).control.address != old


def _end(folder: Path, name: str, days: int) -> None:
    authority = load_authority(folder)
    assert authority is not None
    then = datetime.now(UTC) + timedelta(days=days - 825)
    write_certificate(folder / "server" / f"{name}.crt", authority, ["localhost"], 825, then)


def test_a_certificate_that_ended_is_said_before_anything_starts(folder: Path) -> None:
    _end(folder, "server", -1)
    with pytest.raises(ConfigError, match=r"cannot be used \(the old one ends on .*; run gliofed-server renew"):
        open_link(folder)


def test_a_certificate_that_ends_soon_still_serves(folder: Path) -> None:
    _end(folder, "server", 3)
    open_link(folder)


@pytest.mark.parametrize("lost", ["server/link.crt", "server/server.key", "ca"])
def test_what_is_missing_is_said(folder: Path, lost: str) -> None:
    (folder / lost).rename(folder / "elsewhere")
    with pytest.raises(ConfigError, match=lost.split(".")[0]):
        open_link(folder)


def test_it_starts_without_the_authoritys_key(folder: Path) -> None:
    """Whoever has it can pretend to be the server: it belongs on no machine that hospitals reach."""
    (folder / "ca" / "ca.key").unlink()
    open_link(folder)


def test_without_nginx_it_says_where_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="apt install nginx-light"):
        open_link(folder)


@pytest.mark.parametrize("listen", ["example.org:8443", "0.0.0.0", ":8443", "0.0.0.0:99999"])
def test_it_listens_at_an_ip_address_and_port(tmp_path: Path, listen: str) -> None:
    file = tmp_path / "federation.yaml"
    file.write_text(f"name: study\naddress: localhost:8443\nlisten: '{listen}'\nsites: [a]\n")
    with pytest.raises(ConfigError, match=r"federation\.yaml"):
        read_federation(file)


def test_two_servers_of_one_federation_do_not_run(folder: Path) -> None:
    with only_one(folder), pytest.raises(ConfigError, match="runs already"), only_one(folder):
        pass


class SuperLink:
    """The keys that a SuperLink lets in."""

    def __init__(self) -> None:
        self.keys: dict[int, bytes] = {}
        self.count = 0

    def nodes(self) -> list[Node]:
        return [Node(id=node, public_key=key, online=True, ended="") for node, key in self.keys.items()]

    def register(self, public_key: bytes, name: str) -> int:
        assert public_key not in self.keys.values()
        self.count += 1
        self.keys[self.count] = public_key
        return self.count

    def unregister(self, node: int) -> None:
        del self.keys[node]


@pytest.fixture
def tend(folder: Path) -> Callable[[], dict[str, int]]:
    superlink = SuperLink()
    superlink.keys[99] = key_bytes(new_key().public_key())  # of somebody whom nobody admitted

    def once() -> dict[str, int]:
        members, _ = tend_members(superlink, folder)  # type: ignore[arg-type]
        assert superlink.keys.keys() == {member.node for member in members.values()}
        return {site: member.node for site, member in members.items()}

    return once


def test_admitted_keys_are_let_in_and_no_others(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    assert tend() == {}
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    assert tend() == {"hospital-a": 1}
    admit_told(root / "hospital-b" / "hospital-b.request.json", folder)
    assert tend() == tend() == {"hospital-a": 1, "hospital-b": 2}
    expel("hospital-a", folder)
    assert tend() == {"hospital-b": 2}


def test_a_replaced_key_is_another_node(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    tend()
    join(folder / "kits" / "hospital-a.zip", root / "again")
    admit_told(root / "again" / "hospital-a.request.json", folder, replaces=True)
    assert tend() == {"hospital-a": 2}


def test_a_damaged_record_shuts_nobody_out(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    """The operator mends it; until then those who are in stay, and nobody else enters."""
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    before = tend()
    other = read_public((root / "hospital-b" / "site.key.pub").read_text(), "b")
    record = folder / "sites" / "hospital-a" / "key.pub"
    kept = record.read_text()
    record.write_text((root / "hospital-b" / "site.key.pub").read_text())
    with pytest.raises(ConfigError, match=r"key\.pub"):
        tend()
    record.write_text(kept)
    assert tend() == before
    assert key_bytes(other)


@pytest.mark.parametrize("file", ["site.json", "key.pub"])
def test_a_damaged_record_keeps_no_other_site_out(root: Path, folder: Path, file: str) -> None:
    """After a restart of the machine nginx would never have come back."""
    for site in SITES:
        admit_told(root / site / f"{site}.request.json", folder)
    (folder / "sites" / "hospital-a" / file).write_text("{half")
    service, superlink, _, proxy = served(folder)
    (said,) = service.tend()
    assert f"hospital-a/{file}" in said
    assert len(superlink.keys) == 1
    service.tend()
    assert proxy.tended == 1


def test_nobody_can_connect_before_the_keys_are_registered(root: Path, folder: Path) -> None:
    """Flower's node ends for good where its key is not known, as it is not in a database that is new."""
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    service, superlink, *programs = served(folder)
    control: Any = service.link.control
    control.nodes, programs[0].runs_for = refuse, 1.0
    assert service.tend() == ["the SuperLink starts"]
    assert (programs[0].tended, programs[1].tended) == (1, 0)
    control.nodes = superlink.nodes
    assert service.tend() == ["hospital-a: may connect"]
    service.tend()
    assert programs[1].tended == 1
    control.nodes = refuse  # it is started again, with its database
    service.tend()
    assert programs[1].tended == 2
    known = read_online(folder)
    assert known is not None
    assert known["trouble"] == "the SuperLink starts"
    assert known["sites"]["hospital-a"]["node"] == 1


def served(folder: Path) -> tuple[Service, SuperLink, "FakeProgram", "FakeProgram"]:
    """What `start` looks after, with programs that only count."""
    programs, superlink = (FakeProgram("superlink"), FakeProgram("nginx")), SuperLink()
    control = SimpleNamespace(**{name: getattr(superlink, name) for name in ("nodes", "register", "unregister")})
    control.unfinished = dict
    service = Service(folder, Link(control, *programs), Runner(folder, control), clock=Clock())  # type: ignore[arg-type]
    return service, superlink, *programs


def test_a_superlink_that_hangs_is_ended_and_so_started_again(folder: Path) -> None:
    """A process that does not answer has not ended, and nobody else would end it."""
    service, superlink, program, _ = served(folder)
    control, clock = cast(Any, service.link.control), cast(Clock, service.clock)
    service.tend()
    control.nodes = refuse
    said = []
    while not program.ended and clock.now < 2 * HANGS:
        clock.now += 30
        said += service.tend()
    assert (program.ended, clock.now) == (1, HANGS + 30)
    assert said == ["Connection refused", "the SuperLink has not answered for 240 s; it is started again"]
    clock.now += HANGS
    program.runs_for = 1.0
    service.tend()
    assert program.ended == 1  # the new one has its time
    program.runs_for, control.nodes = 2 * HANGS, superlink.nodes
    service.tend()
    assert program.ended == 1


def test_a_superlink_that_starts_no_servers_is_ended_and_so_started_again(folder: Path) -> None:
    """Flower's superexec does it, and nobody starts that again."""
    service, _, program, _ = served(folder)
    cast(Any, service.link.control).unfinished = lambda: {}
    service.tend()
    service.runner.pending = lambda: PENDING + TICK  # type: ignore[method-assign]
    assert service.tend() == ["a run has had no server for 120 s; the SuperLink is started again"]
    assert program.ended == 1


@pytest.mark.parametrize("broken", ["program", "state.json"])
def test_a_full_disk_does_not_end_the_service(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    service, _, program, proxy = served(folder)
    service.tend()
    with monkeypatch.context() as full:
        if broken == "program":
            full.setattr(program, "tend", disk_full)
        else:
            full.setattr("server.link.start.write_online", disk_full)
        assert service.tend() == ["/x: No space left on device"]
        assert service.tend() == []  # said once
        assert proxy.tended == 2
    assert (service.tend(), service.trouble) == ([], None)


def disk_full(*_: object) -> list[str]:
    raise OSError(28, "No space left on device", "/x")


def test_a_log_on_a_full_disk_does_not_end_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        say(["a", "b"])
        with suppress(OSError):
            full.close()


def test_what_is_said_is_no_command_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence may quote a file's name, or a SuperLink's words."""
    say(["a\x1b[2Kb"])
    assert capsys.readouterr().out.endswith(" a\\x1b[2Kb\n")


def test_flower_gets_no_variable_of_its_own_from_outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them opens another port for the Control API."""
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    known = {name for name in open_link(folder).superlink.environment if name.startswith("FLWR_")}
    assert known == {"FLWR_HOME", "FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"}


def test_the_superlinks_file_gives_its_room_back(folder: Path) -> None:
    """Flower deletes what was sent, a model for each site and round, and never shrinks the file."""
    (folder / "link").mkdir()
    file = folder / "link" / "state.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE sent (object BLOB)")
        connection.execute("INSERT INTO sent VALUES (zeroblob(1000000))")
        connection.execute("DELETE FROM sent")
        connection.commit()
    assert file.stat().st_size > 10**6
    open_link(folder)
    assert file.stat().st_size < 10**5
    file.write_bytes(b"no database" * 1000)  # Flower will say so; `start` goes on
    open_link(folder)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refuse() -> None:
    raise SilentError("Connection refused")


class FakeProgram:
    """A program that always runs."""

    def __init__(self, name: str) -> None:
        self.name, self.tended, self.process = name, 0, SimpleNamespace(pid=7)
        self.ended, self.runs_for = 0, 1000.0

    def tend(self) -> list[str]:
        self.tended += 1
        return []

    def end(self) -> None:
        self.ended += 1

    def seconds(self) -> float:
        return self.runs_for
