"""A federation in a temporary folder, with its server as a real process on free ports of loopback."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telephone import admit_told

from gliofed.client.link.approve import approve
from gliofed.client.link.join import join
from gliofed.server.provisioning.provision import provision

ROOT = Path(__file__).parents[1]
SITES = ("hospital-a", "hospital-b")
FAKETIME = next(
    (
        str(path)
        for root in (os.environ.get("GLIOFED_FAKETIME", "/"), "/")
        for path in Path(root).glob("usr/lib/*/faketime/libfaketimeMT.so.1")
    ),
    "",
)
"""The library that gives a program another time (Debian: libfaketime), also where it is only unpacked."""


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
    host: str = "127.0.0.1"
    apart: str | None = None
    """A site in a network namespace of its own, which is called site."""
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
        here = f"{self.host}:{self.port}"
        text = f"name: study\naddress: {here}\nlisten: {here}\nsites: [{', '.join(self.sites)}]\n"
        (self.root / "federation.yaml").write_text(text)
        provision(self.root / "federation.yaml", self.folder)
        for site in self.sites:
            join(self.folder / "kits" / f"{site}.zip", self.hospital(site), patients=100)

    def admit(self, site: str) -> None:
        admit_told(self.hospital(site) / f"{site}.request.json", self.folder)

    def start(self) -> None:
        with (self.root / "start.log").open("ab") as log:
            self.server = self.command("start", self.folder, stdout=log, stderr=log)

    def command(self, *words: object, **given: Any) -> "subprocess.Popen[bytes]":
        """Run gliofed-server from this checkout."""
        code = "from gliofed.server.cli import main; main()"
        return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, **given)

    def client(self, *words: object, **given: Any) -> "subprocess.Popen[bytes]":
        """Run gliofed-client from this checkout."""
        code = "from gliofed.client.cli import main; main()"
        return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, **given)

    def hospital_start(self, site: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a hospital as its people do."""
        with (self.hospital(site) / "start.log").open("ab") as log:
            apart = ("ip", "netns", "exec", "site") if site == self.apart else ()
            words = [
                *apart,
                sys.executable,
                "-c",
                "from gliofed.client.cli import main; main()",
                "start",
                self.hospital(site),
            ]
            given: dict[str, Any] = {"env": os.environ | environment, "stdout": log, "stderr": log}
            started = subprocess.Popen(list(map(str, words)), cwd=ROOT, start_new_session=True, **given)
        self.starts.append(started)
        return started

    def hospital_end(self, site: str) -> None:
        """End a hospital's programs as its people do."""
        words = str(self.hospital(site))
        for each in [each for each in self.starts if words in list(map(str, each.args))]:
            each.send_signal(signal.SIGTERM)
            each.wait(60)
            self.starts.remove(each)

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
            return probe.connect_ex((self.host, self.port)) == 0

    def connected(self, site: str) -> bool:
        return bool(self.online().get("sites", {}).get(site, {}).get("online"))

    def pid(self, program: str) -> int:
        """Of the SuperLink or nginx."""
        return int(json.loads((self.folder / "link" / f"{program}.process.json").read_text())["pid"])

    def node(self, site: str, key: Path | None = None, **environment: str) -> "subprocess.Popen[bytes]":
        """Start Flower's own SuperNode, without anything of ours around it."""
        home = self.hospital(site)
        environment = (
            os.environ
            | environment
            | {
                "FLWR_HOME": str(home / "flower"),
                "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_DISABLE_UPDATE_CHECK": "1",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
        )
        words = ["--superlink", f"{self.host}:{self.port}", "--root-certificates", str(home / "ca.crt")]
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


def settle(folder: Path, scans: Path) -> None:
    """Fill in what a hospital must say, and approve the code that came with its kit."""
    file = folder / "site.yaml"
    text = file.read_text().replace("root: ???", f"root: {scans}").replace("labels: ???", "labels: brats2020")
    text = text.replace("metrics: unless_private", "metrics: always").replace("min_patients: 5", "min_patients: 1")
    file.write_text(text.replace("device: auto", "device: cpu"))
    with redirect_stdout(io.StringIO()):  # it shows all of the code
        assert approve(folder, sha256=json.loads((folder / "kit.json").read_text())["code_sha256"]) == 0
