"""What a federation is: federation.yaml, and the folder that is made from it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.kit import split_address
from gliofed.shared.parse import ConfigError, SiteName, Strict, parse
from gliofed.shared.yaml_file import read_yaml

SOON = 30
"""Days before its end from which a certificate is renewed, or announced."""


@dataclass(frozen=True, kw_only=True)
class FederationConfig(Strict):
    """The settings of federation.yaml."""

    name: SiteName
    """Of the federation; becomes a folder's name."""
    address: str
    """host:port that hospitals connect to."""
    names: tuple[str, ...] = ()
    """Other names and IP addresses under which the server is reached; the address' host is always in."""
    sites: Annotated[tuple[SiteName, ...], Field(min_length=1)]
    """Hospitals that may join."""
    days: Annotated[int, Field(gt=SOON, le=3650)] = 825
    """How long a server certificate is valid; the authority's own is ten years."""
    listen: str | None = None
    """address:port where the server listens, as "10.1.2.3:8443"; None: the port of `address`, at every address."""

    def __post_init__(self) -> None:
        split_address(self.address)
        if self.listen is not None and not _is_ip(split_address(self.listen)[0]):
            raise ValueError(f"listen={self.listen}: must be an IP address and a port, as in 0.0.0.0:8443")
        for name in self.hosts:
            if not _is_ip(name) and not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", name):
                raise ValueError(f"names={name}: must be a host's name or an IP address, without a port")
        # Folders of some systems take a and A for one.
        if len({site.casefold() for site in self.sites}) < len(self.sites):
            raise ValueError(f"sites={','.join(self.sites)}: names one twice")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every name of the server's certificate, once."""
        return tuple(dict.fromkeys((split_address(self.address)[0], *self.names)))


def read_federation(path: Path) -> FederationConfig:
    """Read federation.yaml, or raise ConfigError with every fault."""
    try:
        return parse(FederationConfig, read_yaml(path))
    except ConfigError as error:
        raise ConfigError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def open_federation(folder: Path) -> FederationConfig:
    """Read the federation of a folder that provision made, or raise ConfigError."""
    folder = folder.resolve()  # "." says nothing
    if not (file := FederationFolder(folder).settings).is_file():
        raise ConfigError(f"{folder}: no federation's folder; give the one that gliofed-server provision made")
    return read_federation(file)


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
