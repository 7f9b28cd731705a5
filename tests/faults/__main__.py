"""make faults: break a federation of real processes in every way that is listed, and write what happened.

Runs in namespaces of its own (network, mounts, processes), so that a cable can be cut, a disk be full, and nothing be
left behind; that needs Linux and root. Results are kept in outputs/faults: a scenario that is there is not repeated.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from deployed_federation import Deployed, settle
from small_run import as_given

from faults.page import page
from faults.scenarios import SCENARIOS, Scenario
from faults.stage import Stage
from gliofed.shared.files import write_json
from gliofed.simulation.simulate import simulate

INSIDE = "GLIOFED_FAULTS_INSIDE"
KEPT, PAGE = Path("outputs/faults"), Path("docs/reliability.md")
SITES = ("site-1", "site-2", "site-3")
ROUNDS, PATIENCE = 2, 1200.0
HOST, DISK = "10.77.0.1", "6g"
RATE = 50
"""Of the first hospital's link, each way, in Mbit/s: an update of 21 MB travels for 3.4 s."""
SETTINGS = (
    *("model=unet", "model.preset=base", "data=phantom", "data.resolution=8", "data.patients=4"),
    *(f"round.evaluate_every={ROUNDS}", "round.retry=60"),
    *("data.patch=[16,16,16]", f"rounds={ROUNDS}", "train.steps=3", "round.join=180", "round.deadline=300"),
)
"""5.3 million weights, so that a transfer lasts; a training of some seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("scenarios", nargs="*", help="how their names begin, or =NAME (default: all)")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--only-write", action="store_true", help="write the page from the results that are there")
    parser.add_argument("--out", type=Path, help=f"folder for results, without a page (default: {KEPT} and {PAGE})")
    given = parser.parse_args()
    kept: Path = given.out or KEPT
    chosen = [name for name in SCENARIOS if _is_meant(name, given.scenarios)]
    todo = [name for name in chosen if given.again or not _file(kept, name).exists()]
    if todo and not given.only_write:
        if not os.environ.get(INSIDE):
            namespaces = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
            os.environ[INSIDE] = "1"
            os.execvp(namespaces[0], [*namespaces, sys.executable, "-m", "tests.faults", *sys.argv[1:]])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the first process of a namespace would ignore it
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # disks are mounted in it
            _run(todo, Path(folder), kept)
    if given.out is None:
        PAGE.write_text(page(_results(kept)))


def _is_meant(name: str, words: list[str]) -> bool:
    return not words or any(word == f"={name}" or name.startswith(word) for word in words)


def _run(todo: list[str], folder: Path, kept: Path) -> None:
    _wires()
    oracle = Oracle(folder / "simulated")
    made = Deployed(folder / "deployed", SITES, host=HOST, apart=SITES[0])
    made.root.mkdir()
    made.provision()
    for site in SITES:
        made.admit(site)
        settle(made.hospital(site), oracle(()) / "data" / site)
    for disk in (made.folder, made.hospital(SITES[0])):
        _own_disk(disk)
    made.start()
    try:
        for site in SITES:
            made.hospital_start(site)
        for name in todo:
            _connected(made)
            result = _one(name, SCENARIOS[name], made, oracle)
            print(f"{name}: {result}", file=sys.stderr, flush=True)
            write_json(_file(kept, name), result)
    finally:
        made.end()


def _own_disk(folder: Path) -> None:
    """Put what is there on a file system of its own."""
    before = folder.rename(folder.with_suffix(".before"))
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    shutil.copytree(before, folder, dirs_exist_ok=True)


class Oracle:
    """Simulations of the runs at the same seed and on the same phantoms, one for each settings."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, dict[tuple[str, ...], Path]()

    def __call__(self, settings: tuple[str, ...]) -> Path:
        if settings not in self._made:
            out = self._folder / str(len(self._made))
            there = [f"data.root={self._made[()] / 'data'}"] if self._made else []
            with redirect_stdout(sys.stderr):
                simulate(as_given(f"sites={len(SITES)}", *SETTINGS, *settings, *there, f"out={out}"))
            self._made[settings] = out
        return self._made[settings]


def _one(name: str, scenario: Scenario, made: Deployed, oracle: Oracle) -> dict[str, Any]:
    stage = Stage(made, _slug(name), SITES[0], (*SETTINGS, *scenario.settings))
    began, missed = time.monotonic(), None
    try:
        scenario.do(stage)
    except TimeoutError as error:
        missed = str(error)
    stage.until(stage.end, "the run's end", PATIENCE)
    seconds = time.monotonic() - began
    result = {
        "name": name,
        "status": stage.end(),
        "seconds": round(seconds, 1),
        "rounds": [round(event["seconds"], 1) for event in stage.rounds()],
        "uncounted": stage.uncounted(),
        "wrong": stage.records(oracle(scenario.settings), ROUNDS),
        "missed": missed,
        "transfer": _transfer((stage.run / "model" / "model.safetensors").stat().st_size),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": date.today().isoformat(),
    }
    if result["status"] == "done" and not result["wrong"]:
        shutil.rmtree(stage.run)  # a gigabyte; otherwise it is left to be looked into
    return result


def _transfer(size: int) -> dict[str, Any]:
    """Seconds that as many bytes take over the bare link, without TLS or HTTP."""
    code = "import socket, sys; socket.create_connection(sys.argv[1:3]).sendall(bytes(int(sys.argv[3])))"
    with socket.create_server((HOST, 0)) as server:
        words = (*("ip", "netns", "exec", "site", sys.executable, "-c", code), HOST, server.getsockname()[1], size)
        sender = subprocess.Popen(list(map(str, words)))
        wire, _ = server.accept()
        with wire:
            began, left = time.monotonic(), size
            while left:
                left -= len(wire.recv(1 << 20))
        seconds = time.monotonic() - began
        assert sender.wait() == 0
    return {"bytes": size, "seconds": round(seconds, 2)}


def _connected(made: Deployed) -> None:
    end = time.monotonic() + 300
    while not all(made.connected(site) for site in SITES):
        assert time.monotonic() < end, "the sites did not come back within 300 s"
        time.sleep(1)


def _wires() -> None:
    """A cable between the server and the first hospital, whose network is its own."""
    for command in (
        "ip link set lo up",
        "mount -t tmpfs tmpfs /run",
        "ip netns add site",
        "ip link add to-site type veth peer name to-server netns site",
        "ip address add 10.77.0.1/24 dev to-site",
        "ip link set to-site up",
        "ip -n site address add 10.77.0.2/24 dev to-server",
        "ip -n site link set to-server up",
        "ip -n site link set lo up",
        f"tc qdisc add dev to-site root tbf rate {RATE}mbit burst 256k latency 50ms",
        f"ip netns exec site tc qdisc add dev to-server root tbf rate {RATE}mbit burst 256k latency 50ms",
    ):
        subprocess.run(command.split(), check=True)


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def _file(kept: Path, name: str) -> Path:
    return kept / f"{_slug(name)}.json"


def _results(kept: Path) -> dict[str, Any]:
    files = {name: _file(kept, name) for name in SCENARIOS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


if __name__ == "__main__":
    main()
