"""The folder of a hospital that has joined: its settings, site.yaml, and where its programs write."""

from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.shared.files import absolute, home_path
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.yaml_file import load_yaml, read_yaml

MIN_PATIENTS = 5
"""Of a hospital whose policy says nothing: what fewer taught tells much of each. In a simulation it is 1."""


def own_folder(folder: Path) -> Path:
    """The hospital's folder, from the root on; ConfigError where it is none."""
    folder = absolute(folder)
    if not HospitalFolder(folder).kit.is_file():
        raise ConfigError(f"{folder}: no hospital's folder; give the one that gliofed-client join made")
    return folder


def own_key(folder: Path, cure: str) -> ec.EllipticCurvePrivateKey:
    """Read the hospital's private key. Raises ConfigError with the `cure` where it is none."""
    path = HospitalFolder(folder).key
    with suppress(ValueError, UnsupportedAlgorithm):
        key = load_ssh_private_key(path.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    raise ConfigError(f"{path}: no private key as join makes it; {cure}")


def read_site(folder: Path) -> SiteConfig:
    """Read site.yaml; its paths become absolute, from the folder on. Raises ConfigError with every fault."""
    folder = absolute(folder)
    path = HospitalFolder(folder).settings
    if not path.exists():
        raise ConfigError(f"{folder}: no site.yaml there; give the folder that gliofed-client join made")
    values = {"work": "work", "policy": {}} | read_yaml(path)
    if isinstance(values["policy"], dict):
        values["policy"] = {"min_patients": MIN_PATIENTS} | values["policy"]
    try:
        for key in ("root", "work"):
            if isinstance(values.get(key), str):
                values[key] = str(folder / home_path(values[key]))
        return parse(SiteConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def work_of(folder: Path) -> Path:
    """The work folder, also while other settings of site.yaml are not filled in yet, or wrong."""
    work = Path("work")
    with suppress(OSError, ConfigError):
        given = load_yaml(HospitalFolder(folder).settings).get("work")
        work = home_path(given) if isinstance(given, str) and given != "???" else work
    return absolute(folder) / work
