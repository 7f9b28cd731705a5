"""The ServerApp: it finds its run and hands Flower's grid to the rounds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from gliofed.server.round.asking import Agreed, Names
from gliofed.server.round.rounds import federate
from gliofed.server.round.run_keys import RunKeys
from gliofed.shared.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Federation:
    """One run at the aggregator."""

    config: RunConfig
    out: Path
    """The run's folder; a run that is there goes on."""
    run_id: str
    waves: int = 1
    """Turns that the sites take, where they share a machine."""
    names: Names | None = None
    """Which site each node is; who is not in there is not asked. None: the nodes say it."""
    agreed: Agreed | None = None
    """The most patients of each site that may count."""
    lossy: bool = False
    """Whether what is on its way may be lost, as it may between machines."""
    keys: RunKeys | None = None
    """What requests are signed with, and replies checked by. None: nobody has keys."""


def make_server_app(
    federation_of: Callable[[Context], Federation], finished: Callable[[], None] | None = None
) -> ServerApp:
    """Make the app that runs a federation; the outcome is the last line of its history.

    `finished` is called at the end, however it comes: an engine may then stop waiting for a site that hangs.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run = federation_of(context)
        try:
            federate(
                grid,
                run.config,
                run.out,
                run.run_id,
                waves=run.waves,
                names=run.names,
                agreed=run.agreed,
                lossy=run.lossy,
                keys=run.keys,
            )
        finally:
            if finished:
                finished()

    return app
