"""The ServerApp: it finds its run and hands Flower's grid to the rounds."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from gliofed.server.round.rounds import federate
from gliofed.server.round.sites import Federation


def make_server_app(federation_of: Callable[[Context], Federation]) -> ServerApp:
    """Make the app that runs a federation; the outcome is the last line of its history."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        federate(grid, federation_of(context))

    return app
