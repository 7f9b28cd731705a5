"""A site's app, asked as Flower does it."""

from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from gliofed.client.app import make_client_app
from gliofed.server.round.model import initial_model
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.grid import LocalGrid


def ask(site: SiteConfig, run: RunConfig, kind: str = "query", round: int = 1, run_id: str = "r") -> Reply:
    """Ask the site to prepare, train or evaluate."""
    weights = b"" if kind == "query" else weights_to_bytes(travelling(initial_model(run)))
    request = Request(run_id=run_id, round=round, config=run, weights=weights, head="0" * 64)
    app = make_client_app(lambda _: site)
    LocalGrid(app, {}, 1, 1.0)  # a Message needs to know who speaks
    answer = app(Message(request.to_records(), 1, kind), Context(1, 1, {}, RecordDict(), {}))
    return Reply.from_records(answer.content)


def events_of(site: SiteConfig) -> list[dict[str, Any]]:
    return read_audit(audit_file(Path(site.work))).events()
