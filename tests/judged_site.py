"""A site that judges a request and does what it asks for, without a message around either."""

from dataclasses import replace

from gliofed.client.round import work
from gliofed.client.round.audit import Audit
from gliofed.client.round.judge import Admitted, judge
from gliofed.shared.messages import Reply, Request
from gliofed.shared.site_config import SiteConfig


def admitted(kind: str, site: SiteConfig, request: Request) -> Admitted:
    """What the site makes of a request; one that names no line of a server's log names some line."""
    return judge(kind, site, replace(request, head=request.head or "0" * 64), Audit(site, kind))


def prepare(site: SiteConfig, request: Request) -> Reply:
    return work.prepare(admitted("prepare", site, request))


def train(site: SiteConfig, request: Request) -> Reply:
    return work.train(admitted("train", site, request))


def evaluate(site: SiteConfig, request: Request) -> Reply:
    return work.evaluate(admitted("evaluate", site, request))
