"""Sites as tasks of Ray: several cores or GPUs of this machine, or an existing cluster."""

import importlib.util
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

import gliofed
from gliofed.client.round.training import pick_device
from gliofed.server.round.sites import Federation
from gliofed.shared.messages import LATE
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import cores
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.versions import versions
from gliofed.simulation.grid import answer_or_error
from gliofed.simulation.local_engine import run_here
from gliofed.simulation.settings import Settings

JOIN = 30.0
"""Seconds to join a cluster; Ray itself tries for minutes where another program listens."""
POLL = 0.2
"""Seconds between two looks whether a task is late, or the run over."""
GRACE = 10.0
"""Seconds for cancelled tasks to end."""
RETRIES = 3
"""Times that a task is started again after its node or its process was lost; then the site has failed."""


@contextmanager
def ray_for(settings: Settings) -> Iterator[None]:
    """Start Ray on this machine and end it, or join the cluster at ray.address and leave it. Raises ConfigError."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine=ray: Ray is not installed; pip install 'gliofed[ray]', or use engine=local")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change to come
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what goes wrong is a sentence here, or in the history
    try:
        if settings.ray.address is None:  # loopback only: Ray would listen on the host's own address
            ray.init(
                "local",
                num_cpus=cores(),
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                log_to_driver=False,
                configure_logging=False,
            )
        else:
            _join(settings.ray.address, settings.device)
        yield
    finally:
        ray.shutdown()  # a cluster that was joined goes on


def run_on_ray(federation: Federation, sites: Sequence[SiteConfig], settings: Settings, mods: Sequence[Mod]) -> None:
    """Run a federation whose sites answer on any node that has room. Raises ConfigError."""
    import ray

    gpu = pick_device(settings.device).type == "cuda"
    nodes = [node for node in ray.nodes() if node["Alive"]]
    gpus = sum(node["Resources"].get("GPU", 0) for node in nodes)
    on_a_gpu = math.ceil((settings.at_once or 1) / max(gpus, 1)) if gpu else None
    room = [_room(node["Resources"], settings.threads, on_a_gpu) for node in nodes]
    if not any(room):
        needs = f"threads={settings.threads}" + f" and device={settings.device}" * gpu
        raise ConfigError(f"{needs}: no node of Ray has as many cores{' and a GPU' * gpu}")
    if settings.ray.address is not None:
        paths = [str(SimulationFolder(federation.out).description), *sorted({site.root for site in sites})]
        _check_nodes([node for node, sites_there in zip(nodes, room, strict=True) if sites_there], paths)
    at_once = min(settings.at_once or sum(room), sum(room))
    share = {"num_cpus": settings.threads, "num_gpus": 1 / on_a_gpu if on_a_gpu else 0}
    with _tasks(share, at_once, federation.config.round.deadline) as elsewhere:
        run_here(federation, sites, at_once, mods, elsewhere)


def _room(resources: Mapping[str, float], threads: int, on_a_gpu: int | None) -> int:
    """How many sites can work at once on a node; `on_a_gpu` on each of its GPUs, or None of them."""
    by_cores = int(resources.get("CPU", 0) // threads)
    return by_cores if on_a_gpu is None else min(by_cores, int(resources.get("GPU", 0)) * on_a_gpu)


@contextmanager
def _tasks(
    share: Mapping[str, float], at_once: int, deadline: float
) -> Iterator[Callable[[ClientAppCallable], ClientAppCallable]]:
    """What lets an app answer in tasks that take `share` of Ray's resources; none is left running.

    A task whose node is lost starts anew on another: the site sends what it has stored, or trains again, and both are
    the same bytes. One that takes longer than `deadline` seconds is ended.
    """
    import ray

    # Without a limit of calls also on a GPU, for which Ray would start, and import PyTorch in, a process for each.
    task_of = ray.remote(max_retries=RETRIES, max_calls=0, **share)(answer_or_error)
    over, turns = threading.Event(), threading.Semaphore(at_once)

    def elsewhere(app: ClientAppCallable) -> ClientAppCallable:
        shared = ray.put(app)

        def answer(message: Message, context: Context) -> Message:
            with turns:
                task, end = task_of.remote(shared, message, context), time.monotonic() + deadline
                while not ray.wait([task], timeout=POLL)[0]:
                    if over.is_set() or time.monotonic() >= end:
                        ray.cancel(task, force=True)  # never one that has ended: Ray 2.55 would crash
                        return Message(Error(LATE), reply_to=message)
                reply: Message = ray.get(task)
                return reply

        return answer

    try:
        yield elsewhere
    finally:
        over.set()
        end = time.monotonic() + GRACE
        for _ in range(at_once):  # a thread that waits in Ray's own code while Ray goes would crash the process
            turns.acquire(timeout=max(0, end - time.monotonic()))


def _join(address: str, device: str) -> None:
    """Join the cluster at an address, with a task's own environment on each node."""
    from ray._private.services import get_ray_address_from_environment

    where = f"ray.address={address}"
    try:  # Ray looks at RAY_ADDRESS first, whatever it is given
        host, _, port = (get_ray_address_from_environment("auto", None) if address == "auto" else address).rpartition(
            ":"
        )
        socket.create_connection((host, int(port)), timeout=JOIN).close()
    except (OSError, ValueError):
        raise ConfigError(f"{where}: no Ray cluster is there; start one with 'ray start', or leave it out") from None
    # Ray replaces both, written like this, by the host's own address, where a cluster on loopback does not listen.
    host = "Localhost" if host in ("localhost", "127.0.0.1") else host
    environment = {"PYTHONPATH": f"{Path(gliofed.__file__).parents[1]}:${{PYTHONPATH}}"}
    if pick_device(device).type == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # device=auto is one for all nodes
    try:
        _init({"address": f"{host}:{port}", "runtime_env": {"env_vars": environment}})
    except (RuntimeError, OSError, ValueError) as error:
        why = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"{where}: the Ray cluster cannot be joined from this machine: {why}") from None


def _init(options: Mapping[str, Any]) -> None:
    """Call ray.init in a thread, which can be left there. Raises what it raises, or TimeoutError."""
    import ray

    failures: list[BaseException] = []

    def init() -> None:
        try:
            ray.init(log_to_driver=False, configure_logging=False, **options)
        except BaseException as error:  # raised again below, in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=init, daemon=True)
    thread.start()
    thread.join(JOIN)
    if thread.is_alive():
        failures.append(TimeoutError(f"no answer of Ray within {JOIN:g} s"))
    if failures:
        raise failures[0]


def _check_nodes(nodes: Sequence[Mapping[str, Any]], paths: list[str]) -> None:
    """Refuse a node that does not see all paths, or that has other versions of what decides the result."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look, looks = ray.remote(num_cpus=0)(_look), {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        looks[node["NodeManagerAddress"]] = look.options(scheduling_strategy=there).remote(paths)
    for address, task in looks.items():
        where = f"ray.address: the node at {address}"
        try:
            unseen, there = ray.get(task)
        except ray.exceptions.RayError:
            raise ConfigError(f"{where} cannot import gliofed; install there what is on this machine") from None
        if unseen:
            raise ConfigError(f"{where} does not see {unseen[0]}; all nodes must share the file system of data and out")
        if other := [name for name, version in versions().items() if there.get(name) != version]:
            name = other[0]
            here = versions()[name]
            raise ConfigError(f"{where} has {name} {there.get(name)}, and this machine {here}; install the same there")


def _look(paths: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What of these paths is not there, and the versions, both where this is run."""
    return [path for path in paths if not os.path.exists(path)], versions()
