"""Flower's own simulation on Ray: several cores, several GPUs, or a cluster."""

import importlib.util
import logging
import os
import threading
import warnings
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from gliofed.shared.messages import LATE
from gliofed.shared.parse import ConfigError
from gliofed.simulation.grid import answer_or_error

GRACE = 10.0
"""Seconds that Ray has to end by itself once the server has; a site that hangs would hold it for ever."""


def deadline_mod(deadline: float) -> Mod:
    """Make a Flower mod that answers for a site which works longer than `deadline` seconds.

    Else the site would hold Ray's actor for ever, and with it the turns of others.
    """

    def mod(message: Message, context: Context, inner: ClientAppCallable) -> Message:
        answers: list[Message] = []
        thread = threading.Thread(target=lambda: answers.append(answer_or_error(inner, message, context)), daemon=True)
        thread.start()
        thread.join(deadline)
        return answers[0] if answers else Message(Error(LATE), reply_to=message)

    return mod


def run_on_ray(server: ServerApp, client: ClientApp, sites: int, share: dict[str, float]) -> bool:
    """Run both apps with actors that take `share` of Ray's resources.

    Returns whether Ray had to be ended by force, and so threads of Flower's still wait for it.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine=ray: Ray is not installed; pip install 'gliofed[ray]', or use engine=local")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change to come
    import ray

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # the history tells what went wrong
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that it runs in a thread
    backend: dict[str, dict[str, Any]] = {
        "client_resources": {**share},
        # Loopback only: Ray would listen on the host's own address.
        "init_args": {"_node_ip_address": "127.0.0.1", "include_dashboard": False, "log_to_driver": False},
    }
    failures: list[BaseException] = []
    done, app = threading.Event(), ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            server(grid, context)
        finally:
            done.set()

    def run() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of run_simulation itself
                run_simulation(app, client, sites, backend_config=backend)
        except BaseException as error:  # raised again below, in the thread that waits
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    done.wait()
    thread.join(GRACE)
    forced = thread.is_alive()
    ray.shutdown()
    if failures and not forced:
        raise failures[0]
    return forced
