"""What `start` checks before anything runs, and whom it lets in; tests/deploy run it."""

import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_federation import provisioned

import server.link
from client.join import join
from server.admit import admit, expel
from server.certificates import load_authority, write_certificate
from server.control import ControlError, Node, key_bytes
from server.federation import read_federation
from server.link import Link, open_link
from server.members import tend_members
from server.online import read_online
from server.runner import Runner
from server.start import Service, only_one
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
    monkeypatch.setattr(server.link, "_nginx", lambda: "nginx")
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
    admit(root / "hospital-a" / "hospital-a.request.json", folder)
    assert tend() == {"hospital-a": 1}
    admit(root / "hospital-b" / "hospital-b.request.json", folder)
    assert tend() == tend() == {"hospital-a": 1, "hospital-b": 2}
    expel("hospital-a", folder)
    assert tend() == {"hospital-b": 2}


def test_a_replaced_key_is_another_node(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    admit(root / "hospital-a" / "hospital-a.request.json", folder)
    tend()
    join(folder / "kits" / "hospital-a.zip", root / "again")
    admit(root / "again" / "hospital-a.request.json", folder, replaces=True)
    assert tend() == {"hospital-a": 2}


def test_a_damaged_record_shuts_nobody_out(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    """The operator mends it; until then those who are in stay, and nobody else enters."""
    admit(root / "hospital-a" / "hospital-a.request.json", folder)
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


def test_nobody_can_connect_before_the_keys_are_registered(root: Path, folder: Path) -> None:
    """Flower's node ends for good where its key is not known, as it is not in a database that is new."""
    admit(root / "hospital-a" / "hospital-a.request.json", folder)
    programs, superlink = [FakeProgram("superlink"), FakeProgram("nginx")], SuperLink()
    control = SimpleNamespace(**{name: getattr(superlink, name) for name in ("nodes", "register", "unregister")})
    control.unfinished = dict
    control.nodes = refuse
    service = Service(folder, Link(control, *programs), Runner(folder, control))  # type: ignore[arg-type]
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


def refuse() -> None:
    raise ControlError("Connection refused")


class FakeProgram:
    """A program that always runs."""

    def __init__(self, name: str) -> None:
        self.name, self.tended, self.process = name, 0, SimpleNamespace(pid=7)

    def tend(self) -> list[str]:
        self.tended += 1
        return []

    def seconds(self) -> float:
        return 1.0
