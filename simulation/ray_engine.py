"""Flower's own simulation on Ray: several cores, several GPUs, or a cluster."""

import importlib.util
import logging
import threading
import warnings

from flwr.clientapp import ClientApp
from flwr.server.superlink.fleet.vce.backend.backend import BackendConfig
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from shared.config import ConfigError

GRACE = 20.0
"""Seconds that Ray has to end by itself once the server has; a site that hangs would hold it for ever."""


def run_on_ray(
    server: ServerApp, client: ClientApp, sites: int, threads: int, gpus: float, done: threading.Event
) -> None:
    """Run both apps with one Ray actor for each `threads` cores; `done` is set when the server has finished."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine=ray: Ray is not installed; pip install 'gliofed[ray]', or use engine=local")
    import ray

    logging.getLogger("flwr").setLevel(logging.ERROR)
    backend: BackendConfig = {
        "client_resources": {"num_cpus": threads, "num_gpus": gpus},
        # Loopback only: Ray would listen on the host's own address.
        "init_args": {"_node_ip_address": "127.0.0.1", "include_dashboard": False},
    }
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                run_simulation(server, client, sites, backend_config=backend)
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="flower-on-ray", daemon=True)
    thread.start()
    done.wait()
    thread.join(GRACE)
    ray.shutdown()
    if failure:
        raise failure[0]
