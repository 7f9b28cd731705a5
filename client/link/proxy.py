"""The way to the aggregator through a hospital's HTTP proxy, as the environment names it for Flower's library too."""

import socket
from base64 import b64encode
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import no_proxy_here

VARIABLES = {"https": "HTTPS_PROXY", "all": "ALL_PROXY", "http": "HTTP_PROXY"}
"""In this order; one that cannot be used ends Flower's library, although only the first is for us."""


class ProxyError(Exception):
    """The proxy cannot be reached, or does not let the connection through."""


def connect(host: str, port: int, patience: float) -> socket.socket:
    """Connect to the server, directly or through a tunnel of the proxy; TLS comes afterwards, end to end.

    Raises OSError, ProxyError, or ConfigError for a proxy that cannot be used.
    """
    proxy = proxy_of(host, port)
    if proxy is None:
        return socket.create_connection((host, port), patience)
    place = f"{proxy.hostname}:{proxy.port or 80}"  # without the password
    way = HTTPConnection(str(proxy.hostname), proxy.port or 80, timeout=patience)
    login = b64encode(f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()).decode()
    way.set_tunnel(host, port, {"Proxy-Authorization": f"Basic {login}"} if proxy.username else {})
    with closing(way):
        try:
            way.connect()
        except (OSError, HTTPException, UnicodeError) as error:  # the last of a name that DNS cannot have
            why = getattr(error, "strerror", None) or error
            cure = f"ask for one, or put {host} in NO_PROXY"
            raise ProxyError(f"no way through the proxy {place} ({why}); {cure}") from None
        tunnel, way.sock = way.sock, None
        return tunnel


def proxy_of(host: str, port: int) -> SplitResult | None:
    """The proxy on the way to a host; None where there is none. Raises ConfigError for one that cannot be used."""
    proxies = getproxies_environment()
    found = None
    for scheme, variable in VARIABLES.items():
        if given := proxies.get(scheme):
            proxy = _usable(given if "://" in given else f"http://{given}")
            if proxy is None:
                raise ConfigError(f"{variable}: must be http://HOST:PORT, of a proxy that lets TLS through unopened")
            found = found or (proxy if scheme != "http" else None)
    return None if proxy_bypass(f"{host}:{port}", {"no": no_proxy_here()["no_proxy"]}) else found


def _usable(given: str) -> SplitResult | None:
    try:
        proxy = urlsplit(given)
        host = proxy.hostname or ""
        usable = proxy.scheme == "http" and host.isprintable() and host.split() == [host] and proxy.port != 0
    except ValueError:  # half an address of IPv6, or a port that is no number
        return None
    return proxy if usable else None
