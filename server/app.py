"""The ServerApp: it finds its run and hands Flower's grid to the rounds."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from gliofed.server.round.asking import Federation
from gliofed.server.round.rounds import federate


def make_server_app(
    federation_of: Callable[[Context], Federation], finished: Callable[[], None] | None = None
) -> ServerApp:
    """Make the app that runs a federation; the outcome is the last line of its history.

    `finished` is called at the end, however it comes: an engine may then stop waiting for a site that hangs.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        federation = federation_of(context)
        try:
            federate(grid, federation)
        finally:
            if finished:
                finished()

    return app
