"""A federation in this process."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.app import Context, RecordDict, UserConfig
from flwr.clientapp.typing import ClientAppCallable, Mod

from gliofed.client.app import make_client_app
from gliofed.server.app import make_server_app
from gliofed.server.round.sites import Federation
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.grid import LocalGrid


def run_here(
    federation: Federation,
    sites: Sequence[SiteConfig],
    at_once: int,
    mods: Sequence[Mod] = (),
    elsewhere: Callable[[ClientAppCallable], ClientAppCallable] | None = None,
) -> bool:
    """Run a federation of these sites in this process; return whether a site hung, and so a thread still works.

    `elsewhere` makes the sites' app one that answers in other processes, and gives up by itself who takes too long.
    """
    names = {number: site.name for number, site in enumerate(sites, start=1)}  # by node id: Flower's count from 1
    nodes: dict[int, UserConfig] = {number: {"partition-id": number - 1} for number in names}
    client: ClientAppCallable = make_client_app(lambda context: sites[int(context.node_config["partition-id"])], mods)
    deadline = federation.config.round.deadline
    if elsewhere:
        client, deadline = elsewhere(client), math.inf
    grid = LocalGrid(client, nodes, at_once, deadline)
    federation = replace(federation, names=lambda: names, waves=math.ceil(len(sites) / at_once))
    server = make_server_app(lambda _: federation)
    server(grid, Context(grid.run.run_id, 0, {}, RecordDict(), {}))
    return grid.hung
