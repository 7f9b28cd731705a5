"""Whether a hospital reaches its own aggregator: faults end a start, warnings do not."""

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import gliofed.client.link.preflight
import gliofed.client.link.reach
from gliofed.client.link.reach import reach
from gliofed.server.provisioning.certificates import make_authority, write_certificate

NOW = datetime.now(UTC)


@contextmanager
def server(folder: Path, ahead: timedelta = timedelta(0), **made: Any) -> Iterator[str]:
    """An HTTPS server of a new authority in `folder`, with a clock `ahead` of ours; its address."""
    authority = make_authority(folder, "study", made.get("began", NOW))
    path, names = folder / "server/server.crt", made.get("names", ("localhost", "127.0.0.1"))
    write_certificate(path, authority, names, made.get("days", 825), made.get("began", NOW))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + ahead, usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that trusts nobody hangs up."""

    with Quiet(("127.0.0.1", 0), Answer) as httpd:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, path.with_suffix(".key"))
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"localhost:{httpd.server_port}"
        finally:
            httpd.shutdown()


def test_the_right_server(tmp_path: Path) -> None:
    with server(tmp_path) as address:
        found = reach(address, tmp_path / "ca/ca.crt")
    assert (found.faults, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"names": ("example.org",)}, "its certificate is for another name"),
        (
            {"began": NOW - timedelta(days=100), "days": 40},
            "its certificate has expired, or this machine's clock is wrong",
        ),
        ({"began": NOW + timedelta(days=2)}, "not valid yet, or this machine's clock is behind"),
        ({"ahead": timedelta(seconds=90)}, "this machine's clock is 90 s behind the aggregator's; set it right (NTP)"),
        ({"ahead": timedelta(seconds=-200)}, "this machine's clock is 200 s ahead of the aggregator's"),
        ({"began": NOW - timedelta(days=3651)}, "ca.crt: the authority ended on"),
    ],
)
def test_the_wrong_server(tmp_path: Path, made: dict[str, Any], sentence: str) -> None:
    with server(tmp_path, **made) as address:
        found = reach(address, tmp_path / "ca/ca.crt")
    # A second more or less, as the Date is cut off and a loaded machine takes its time.
    near = [sentence.replace(f" {s} s ", f" {s + more} s ") for s in (90, 200) for more in (-1, 0, 1)]
    # A certificate is renewed and a clock is set without the hospital; another authority comes with another kit alone.
    said, others = (found.faults, found.passing) if "authority" in sentence else (found.passing, found.faults)
    assert any(each in fault for fault in said for each in near) and (said is found.faults or not others), found


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"ahead": timedelta(seconds=30)}, "s behind the aggregator's"),
        (
            {"began": NOW - timedelta(days=20), "days": 40},
            f"its certificate expires on {NOW + timedelta(days=20):%Y-%m-%d}",
        ),
        ({"began": NOW - timedelta(days=3640), "days": 3650}, "ca.crt: the authority ends on"),
    ],
)
def test_what_can_wait(tmp_path: Path, made: dict[str, Any], sentence: str) -> None:
    with server(tmp_path, **made) as address:
        found = reach(address, tmp_path / "ca/ca.crt")
    assert not found.faults and any(sentence in warning for warning in found.warnings), found


def test_somebody_between(tmp_path: Path) -> None:
    """A hospital's proxy that opens TLS has a certificate of its own."""
    make_authority(tmp_path / "ours", "study", NOW)
    with server(tmp_path / "theirs") as address:
        found = reach(address, tmp_path / "ours/ca/ca.crt")
    assert "is not from the authority in" in found.faults[0] and "somebody in between" in found.faults[0]


@contextmanager
def proxy(port: int | None, answer: str = "200 OK") -> Iterator[tuple[str, list[str]]]:
    """An HTTP proxy whose tunnels lead to this port of ours, whatever was asked for; its place, and what was asked."""
    asked: list[str] = []

    def tunnel(near: socket.socket) -> None:
        with near, near.makefile("rb") as lines:
            asked.extend(line.decode().strip() for line in iter(lines.readline, b"\r\n"))
            near.sendall(f"HTTP/1.1 {answer}\r\n\r\n".encode())
            if port is not None:
                join(near, port)

    def join(near: socket.socket, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=copy, args=(far, near))
            back.start()
            copy(near, far)
            back.join()

    def copy(source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):  # either end hangs up
            while some := source.recv(65536):
                to.sendall(some)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                tunnel(listening.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxy")
def test_through_the_hospitals_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Flower's library goes, which asks the same environment; TLS is with the server itself."""
    with (
        server(tmp_path, names=("fl.invalid",)) as address,
        proxy(port := int(address.rpartition(":")[2])) as (at, asked),
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:se%40cret@{at}")
        found = reach(f"fl.invalid:{port}", ca := tmp_path / "ca/ca.crt")
        assert (found.faults, found.warnings) == ([], [])
        login = b64encode(b"me:se@cret").decode()
        assert asked[0].startswith(f"CONNECT fl.invalid:{port} ") and f"Proxy-Authorization: Basic {login}" in asked
        asked.clear()
        with httpx.Client(verify=ssl.create_default_context(cafile=ca)) as library:
            assert library.get(f"https://fl.invalid:{port}/").status_code == 404
        assert asked[0].startswith(f"CONNECT fl.invalid:{port} ") and f"Proxy-Authorization: Basic {login}" in asked
        asked.clear()
        monkeypatch.setenv("NO_PROXY", ".invalid")
        assert "no such name" in reach(f"fl.invalid:{port}", ca).warnings[0] and not asked


@pytest.mark.usefixtures("no_proxy")
def test_a_proxy_that_lets_nobody_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its password is in no sentence."""
    make_authority(tmp_path, "study", NOW)
    with proxy(None, "407 Proxy Authentication Required") as (at, _):
        monkeypatch.setenv("https_proxy", f"me:secret@{at}")
        (said,) = reach("fl.invalid:443", tmp_path / "ca/ca.crt").warnings
    assert f"no way through the proxy {at}" in said and "secret" not in said
    (said,) = reach("fl.invalid:443", tmp_path / "ca/ca.crt").warnings  # it is gone
    assert f"no way through the proxy {at} (Connection refused)" in said


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    "given",
    [
        "socks5://me:secret@proxy:1080",
        "https://proxy:443",
        "http://proxy:port",
        "http://",
        "http://[::1:3",
        "http://a b:3",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY"])
def test_a_proxy_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, variable: str
) -> None:
    """Flower's library would end the SuperNode over some of them."""
    make_authority(tmp_path, "study", NOW)
    monkeypatch.setenv(variable, given)
    (said,) = reach("fl.invalid:443", tmp_path / "ca/ca.crt").faults
    assert said.startswith(f"{variable}: must be http://HOST:PORT") and "secret" not in said


def test_a_name_that_cannot_be(tmp_path: Path) -> None:
    """A label of DNS is neither empty nor longer than 63 characters; Python says so in an error of its own kind."""
    make_authority(tmp_path, "study", NOW)
    for name in ("a..b", f"{'a' * 64}.org"):
        assert "no such name can be" in reach(f"{name}:443", tmp_path / "ca/ca.crt").faults[0]


def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be started later: no fault."""
    monkeypatch.setattr(gliofed.client.link.reach, "PATIENCE", 0.3)
    make_authority(tmp_path, "study", NOW)
    ca = tmp_path / "ca/ca.crt"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        said = [reach(f"127.0.0.1:{port}", ca)]  # bound, and nobody listens
        deaf.listen()
        said += [reach(f"127.0.0.1:{port}", ca)]  # the kernel takes the connection, and nobody answers
    said += [reach("no-such-host.invalid:443", ca)]
    assert not any(found.faults for found in said)
    for found, words in zip(
        said, ("nothing answers at this port", "no answer within 0.3 s", "no such name"), strict=True
    ):
        assert words in found.warnings[0]
