"""A federation in a temporary folder, with its server as a real process on free ports of loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.join import join
from server.admit import admit
from server.provision import provision

ROOT = Path(__file__).parents[1]
PATIENCE = 180.0
"""Seconds for anything to happen: a SuperLink starts in four on an idle machine, and in fifty on a busy one."""
SITES = ("hospital-a", "hospital-b")


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + patience
    while not (value := true()):
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.5)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Deployed:
    """A federation's folder, those of its hospitals, and the server's process."""

    root: Path
    sites: tuple[str, ...] = SITES
    port: int = field(default_factory=free_port)
    server: "subprocess.Popen[bytes] | None" = None
    others: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    """Of Flower alone; killed in the end."""
    starts: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    """Of hospitals; asked to end, since they end what they have started."""

    @property
    def folder(self) -> Path:
        return self.root / "study"

    def hospital(self, site: str) -> Path:
        return self.root / site

    def provision(self) -> None:
        here = f"127.0.0.1:{self.port}"
        text = f"name: study\naddress: {here}\nlisten: {here}\nsites: [{', '.join(self.sites)}]\n"
        (self.root / "federation.yaml").write_text(text)
        provision(self.root / "federation.yaml", self.folder)
        for site in self.sites:
            join(self.folder / "kits" / f"{site}.zip", self.hospital(site))

    def admit(self, site: str) -> None:
        admit(self.hospital(site) / f"{site}.request.json", self.folder)

    def start(self) -> None:
        with (self.root / "start.log").open("ab") as log:
            self.server = self.command("start", self.folder, stdout=log, stderr=log)

    def command(self, *words: object, **given: Any) -> "subprocess.Popen[bytes]":
        """Run gliofed-server from this checkout."""
        code = "from server.cli import main; main()"
        return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, **given)

    def client(self, *words: object, **given: Any) -> "subprocess.Popen[bytes]":
        """Run gliofed-client from this checkout."""
        code = "from client.cli import main; main()"
        return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, **given)

    def hospital_start(self, site: str) -> "subprocess.Popen[bytes]":
        """Start a hospital as its people do."""
        with (self.hospital(site) / "start.log").open("ab") as log:
            started = self.client("start", self.hospital(site), stdout=log, stderr=log, start_new_session=True)
        self.starts.append(started)
        return started

    def status(self) -> dict[str, Any]:
        """What gliofed-server status says."""
        said, _ = self.command("status", self.folder, "--json", stdout=subprocess.PIPE).communicate()
        return dict(json.loads(said))

    def online(self) -> dict[str, Any]:
        """What the server knows, read without starting a program."""
        path = self.folder / "link" / "state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def listens(self) -> bool:
        """Whether nginx is there, which it is once the keys are registered."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def connected(self, site: str) -> bool:
        return bool(self.online().get("sites", {}).get(site, {}).get("online"))

    def pid(self, program: str) -> int:
        """Of the SuperLink or nginx."""
        return int(json.loads((self.folder / "link" / f"{program}.process.json").read_text())["pid"])

    def node(self, site: str, key: Path | None = None) -> "subprocess.Popen[bytes]":
        """Start Flower's own SuperNode, without anything of ours around it."""
        home = self.hospital(site)
        environment = os.environ | {
            "FLWR_HOME": str(home / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        words = ["--superlink", f"127.0.0.1:{self.port}", "--root-certificates", str(home / "ca.crt")]
        words += ["--auth-supernode-private-key", str(key or home / "site.key"), "--port", str(free_port())]
        words += ["--node-config", f"folder='{home}'"]
        with (home / "node.log").open("ab") as log:
            program = str(Path(sys.executable).parent / "flower-supernode")
            node = subprocess.Popen([program, *words], env=environment, stdout=log, stderr=log, start_new_session=True)
        self.others.append(node)
        return node

    def end(self) -> None:
        """End everything that was started, by its process."""
        for each in self.starts:
            if each.poll() is None:
                each.send_signal(signal.SIGTERM)
        for each in self.starts:
            each.wait(60)
        for each in self.others:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
        if self.server is not None:
            self.server.wait(60)
