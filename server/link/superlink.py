"""The SuperLink, on loopback, and nginx in front of it: what they need to run, and how they are started."""

import json
import os
import shutil
import socket
import sqlite3
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gliofed.server.link.control import Control
from gliofed.server.link.proxy import ACCESS_LOG, nginx_conf
from gliofed.server.link.runs import FEDERATION
from gliofed.server.provisioning.certificates import SERVER_CERTIFICATES, load_authority, stale
from gliofed.server.provisioning.federation import FederationConfig, open_federation
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.kit import split_address
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import Program, no_proxy_here
from gliofed.shared.signatures import LINK_NAMES
from gliofed.shared.terminal import command_line

LOOPBACK = LINK_NAMES[0]


@dataclass(frozen=True)
class Link:
    """A federation's two programs, not started yet."""

    control: Control
    superlink: Program
    proxy: Program

    @property
    def programs(self) -> tuple[Program, ...]:
        """Both, in the order in which they start."""
        return self.superlink, self.proxy


def open_link(folder: Path) -> Link:
    """Check a federation's folder and this machine, and write the programs' settings. Raises ConfigError.

    `folder` is absolute. What an earlier supervisor left running is ended first.
    """
    federation = open_federation(folder)
    _check_certificates(folder, federation)
    nginx, files = _nginx(), FederationFolder(folder)
    home = files.link
    home.mkdir(mode=0o700, exist_ok=True)
    os.environ |= no_proxy_here()  # for our own calls too
    environment = _environment(files)
    arguments = (nginx, "-c", str(files.nginx), "-p", str(home), "-e", "stderr")
    proxy = Program("nginx", arguments, home, environment, other_logs=[home / ACCESS_LOG])
    superlink = Program("superlink", (), home, environment)
    for program in (proxy, superlink):
        program.end_older()
    _shrink(files.database)
    listen = _addresses(federation)
    for address in listen:
        _check_free(address)
    port = _loopback_port(files.port)
    superlink.command = _superlink(files, port)
    write_bytes(files.nginx, nginx_conf(listen, f"{LOOPBACK}:{port}").encode())
    return Link(Control(f"{LOOPBACK}:{port}", files.authority), superlink, proxy)


def _superlink(files: FederationFolder, port: int) -> tuple[str, ...]:
    return (
        *(sys.executable, "-P", "-m", "gliofed.server.link.fleet"),
        *("--host", LOOPBACK, "--port", str(port)),
        *("--ssl-ca-certfile", str(files.authority)),
        *("--ssl-certfile", str(files.certificate("link")), "--ssl-keyfile", str(files.link_key)),
        *("--database", str(files.database)),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",  # else it would fetch packages
    )


def _shrink(database: Path) -> None:
    """Give back the room of messages that are gone, which Flower never does; where that fails, the file stays."""
    if database.exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM")


def _environment(files: FederationFolder) -> dict[str, str]:
    """Flower starts its other programs by name, from the path; and tells its makers nothing.

    Of Flower's own variables none but these: some open other ports, as FLWR_INTERNAL_GRPC_CONTROL_API does.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    flower = {"FLWR_HOME": str(files.flower), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    # Where the programs of this Python are; not resolved, for it is a link in a virtual environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**others, **flower, FEDERATION: str(files.root), "PATH": path}


def _nginx() -> str:
    # Debian has it where only root's path leads.
    found = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise ConfigError("nginx: not found on this machine; apt install nginx-light")
    return found


def _check_certificates(folder: Path, federation: FederationConfig) -> None:
    authority, now = load_authority(folder), datetime.now(UTC)
    if (last := authority.certificate.not_valid_after_utc) <= now:
        raise ConfigError(f"{folder}/ca/ca.crt ended on {last:%Y-%m-%d}; make a new federation in another folder")
    for name, hosts in zip(SERVER_CERTIFICATES, (federation.hosts, LINK_NAMES), strict=True):
        path = FederationFolder(folder).certificate(name)
        if why := stale(path, authority, hosts, now, days=0):  # one that ends soon still serves, and status says so
            raise ConfigError(f"{path}: cannot be used ({why}); run {command_line('gliofed-server', 'renew', folder)}")


def _addresses(federation: FederationConfig) -> list[str]:
    """Where nginx listens."""
    if federation.listen is not None:
        return [federation.listen]
    port = split_address(federation.address)[1]
    return [f"0.0.0.0:{port}", *([f"[::]:{port}"] if _has_ipv6() else [])]


def _has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _check_free(address: str) -> None:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As nginx does: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            cure = "end the program that has it, or give another with listen in federation.yaml"
            raise ConfigError(f"{address}: cannot be listened on ({error.strerror}); {cure}") from None


def _loopback_port(file: Path) -> int:
    """The SuperLink's port: the one of last time if it is still free, so that logs and habits agree."""
    with suppress(OSError, ValueError, KeyError, TypeError, ConfigError):
        port = int(json.loads(file.read_text())["port"])
        _check_free(f"{LOOPBACK}:{port}")
        return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = int(probe.getsockname()[1])
    write_json(file, {"port": port})
    return port
