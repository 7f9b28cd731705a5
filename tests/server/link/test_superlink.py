"""What must be there before the SuperLink and nginx start, and how they are started."""

import shutil
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gliofed.server.link.superlink import open_link
from gliofed.server.provisioning.certificates import load_authority, write_certificate
from gliofed.server.provisioning.federation import read_federation
from gliofed.shared.parse import ConfigError


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
