"""The ClientApp of a hospital, as Flower's SuperNode starts it: a new process for every message."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context

from gliofed.client.app import make_client_app
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.site_file import read_site
from gliofed.client.round.audit import SiteKeys
from gliofed.shared.keys import read_authority
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import SiteConfig


def _site(context: Context) -> SiteConfig:
    """Read the site's own settings, from the folder that the SuperNode was started with."""
    return read_site(Path(str(context.node_config["folder"])))


def _keys(context: Context) -> SiteKeys:
    """Read the hospital's own key, and the certificate by which it knows the server."""
    folder = HospitalFolder(Path(str(context.node_config["folder"])))
    ca, path = folder.authority, folder.key
    key = load_ssh_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path}: no private key as join makes it; restore it from a copy")
    return SiteKeys(key, read_authority(ca.read_bytes(), str(ca)))


app = make_client_app(_site, watched=True, keys_of=_keys)
