"""The ClientApp of a hospital, as Flower's SuperNode starts it: a new process for every message."""

from pathlib import Path

from flwr.app import Context

from client.app import make_client_app
from client.link.site_file import read_site
from shared.site_config import SiteConfig


def _site(context: Context) -> SiteConfig:
    """Read the site's own settings, from the folder that the SuperNode was started with."""
    return read_site(Path(str(context.node_config["folder"])))


app = make_client_app(_site, watched=True)
