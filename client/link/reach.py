"""Whether the aggregator's server can be reached, is the right one, and has the same time as this machine."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from gliofed.client.link.proxy import ProxyError, connect
from gliofed.shared.keys import read_authority
from gliofed.shared.kit import split_address
from gliofed.shared.parse import ConfigError

PATIENCE = 5.0
"""Seconds for the connection, and for each answer."""
SOON = timedelta(days=30)
"""Before its end, a certificate is announced so long."""
FAULT, WARNING = 60.0, 5.0
"""Seconds by which clocks may differ: Flower takes no signature of a clock that is 5 s ahead, and old ones replayed."""
UNKNOWN, EXPIRED, TOO_EARLY, OTHER_NAME = {2, 7, 18, 19, 20, 21}, {10}, {9}, {62, 64}
"""OpenSSL's X509_V_ERR codes of a certificate that does not hold."""


@dataclass
class Findings:
    """Sentences: what must be mended before anything is begun, and what should be."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    passing: list[str] = field(default_factory=list)
    """Faults that end without anybody at the hospital: a certificate is renewed, a clock is set by NTP."""


def reach(address: str, ca: Path) -> Findings:
    """Connect to the server, trusting this authority alone. No answer is a warning: it may be started later."""
    found = Findings()
    try:
        _look_at_authority(ca, found)
        with _connected(address, ca) as connection:
            _look_at_certificate(address, connection, found)
            _compare_clocks(address, connection, found)
    except ssl.SSLCertVerificationError as error:
        passing = error.verify_code in EXPIRED | TOO_EARLY | OTHER_NAME
        (found.passing if passing else found.faults).append(f"{address}: {_untrusted(error, ca)}")
    except UnicodeError:  # of a label that DNS cannot have
        found.faults.append(f"{address}: no such name can be; ask the aggregator for another kit")
    except ConfigError as error:
        found.faults.append(str(error))
    except ProxyError as error:
        found.warnings.append(f"{address}: {error}; still trying")
    except OSError as error:
        found.warnings.append(f"{address}: {_unreachable(error)}; still trying")
    return found


@contextmanager
def _connected(address: str, ca: Path) -> Iterator[ssl.SSLSocket]:
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=ca)
    with connect(host, port, PATIENCE) as plain, context.wrap_socket(plain, server_hostname=host) as encrypted:
        yield encrypted


def _look_at_authority(ca: Path, found: Findings) -> None:
    last, now = read_authority(ca.read_bytes(), str(ca)).not_valid_after_utc, datetime.now(UTC)
    if last < now + SOON:
        ends, what = ("ends", found.warnings) if last > now else ("ended", found.faults)
        what.append(f"{ca}: the authority {ends} on {last:%Y-%m-%d}; ask the aggregator for a new federation's kit")


def _look_at_certificate(address: str, connection: ssl.SSLSocket, found: Findings) -> None:
    certificate = connection.getpeercert()
    assert certificate, "it was verified, so there is one"
    last = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    if last < datetime.now(UTC) + SOON:
        found.warnings.append(f"{address}: its certificate expires on {last:%Y-%m-%d}; tell the aggregator")


def _compare_clocks(address: str, connection: ssl.SSLSocket, found: Findings) -> None:
    """Hold this machine's clock against the Date of any HTTP answer, which has whole seconds."""
    asking = HTTPConnection(*split_address(address), timeout=PATIENCE)
    asking.sock = connection
    begin = time.time()
    try:
        asking.request("GET", "/")
        theirs = parsedate_to_datetime(asking.getresponse().getheader("Date", ""))
    except (HTTPException, ValueError, TypeError):
        found.warnings.append(f"{address}: it sends no time, so the clocks could not be compared")
        return
    # Half a second on: the Date is cut off, not rounded.
    ahead = (begin + time.time()) / 2 - theirs.timestamp() - 0.5
    if abs(ahead) > WARNING:
        word = "ahead of" if ahead > 0 else "behind"
        sentence = f"this machine's clock is {abs(ahead):.0f} s {word} the aggregator's"
        what = found.passing if abs(ahead) > FAULT else found.warnings
        what.append(f"{address}: {sentence}; set it right (NTP), since signatures contain the time")


def _untrusted(error: ssl.SSLCertVerificationError, ca: Path) -> str:
    tell = "tell the aggregator"
    if error.verify_code in EXPIRED:
        return f"its certificate has expired, or this machine's clock is wrong; check the clock, then {tell}"
    if error.verify_code in TOO_EARLY:
        return f"its certificate is not valid yet, or this machine's clock is behind; check the clock, then {tell}"
    if error.verify_code in OTHER_NAME:
        return f"its certificate is for another name; {tell}: this one belongs in names of federation.yaml"
    if error.verify_code in UNKNOWN:
        between = "somebody in between (a hospital's own inspection of TLS, say), or a kit of another federation"
        return f"its certificate is not from the authority in {ca}: {between}; ask for a way past it, or {tell}"
    return f"its certificate is not valid ({error.verify_message}); {tell}"


def _unreachable(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such name is found; check the address in kit.json and this machine's DNS"
    if isinstance(error, ConnectionRefusedError):
        return "nothing answers at this port; the server may not be started yet"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s; a firewall may be in between: open this outgoing connection"
    if isinstance(error, ssl.SSLError | ConnectionResetError):
        reason = error.reason if isinstance(error, ssl.SSLError) else ""
        return f"what answers does not speak TLS as it should ({reason})"
    return f"it cannot be reached ({error.strerror or error})"
