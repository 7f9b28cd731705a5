"""The ClientApp of a hospital, as Flower's SuperNode starts it: a new process for every message."""

from pathlib import Path

from flwr.app import Context

from gliofed.client.app import make_client_app
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.site_file import own_key, read_site
from gliofed.client.round.audit import SiteKeys
from gliofed.shared.keys import read_authority
from gliofed.shared.site_config import SiteConfig


def _site(context: Context) -> SiteConfig:
    """Read the site's own settings, from the folder that the SuperNode was started with."""
    return read_site(Path(str(context.node_config["folder"])))


def _keys(context: Context) -> SiteKeys:
    """Read the hospital's own key, and the certificate by which it knows the server."""
    folder = Path(str(context.node_config["folder"]))
    ca = HospitalFolder(folder).authority
    return SiteKeys(own_key(folder, "restore it from a copy"), read_authority(ca.read_bytes(), str(ca)))


app = make_client_app(_site, watched=True, keys_of=_keys)
