"""The two ends of a run, each with the log that it writes in truth; a test says what is lost or forged."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gliofed.client.round.audit import Audit, SiteKeys
from gliofed.client.round.judge import judge
from gliofed.server.round.audit import RunAudit, hold_audit
from gliofed.server.round.model import initial_model
from gliofed.server.round.run_keys import RunKeys
from gliofed.shared.audit import audit_file, compare, read_audit
from gliofed.shared.chain import Chain
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request, describe_records
from gliofed.shared.site_config import SiteConfig


@dataclass
class Both:
    """A server, and the site a; z is asked as well."""

    server: RunAudit
    site: SiteConfig
    config: RunConfig
    keys: SiteKeys | None = None

    @cached_property
    def weights(self) -> bytes:
        """The run's first."""
        return weights_to_bytes(travelling(initial_model(self.config)))

    def ask(
        self,
        kind: str = "train",
        round: int = 1,
        site: str = "a",
        audit: Audit | None = None,
        parents: Mapping[str, str] = MappingProxyType({}),
        of: str = "",
        **other: Any,
    ) -> Reply:
        """Ask, let the site note and answer it, and return the reply as it comes; `of` is the request's part, `other`
        than noted comes there.
        """
        weights = b"" if kind == "prepare" else self.weights
        request = Request(run_id="r", round=round, config=self.config, weights=weights, parents=parents, part=of)
        request = replace(self.server.log_requests(kind, request, [site, "z"])[0], **other)
        audit = audit or Audit(self.site, kind, self.keys)
        judge(kind, self.site, Request.from_records(request.to_records()), audit)
        return self.answer(audit, Reply(site="a", patients=3, update=b"update" if kind == "train" else b""))

    def answer(self, audit: Audit, reply: Reply) -> Reply:
        """The reply as it comes, with its receipt in the site's log."""
        parts = describe_records(reply.to_records())
        head = audit.receipt(reply, parts)
        gone = replace(reply, head=head, signature=audit.sign(reply, parts, head))
        return Reply.from_records(gone.to_records())

    def take(self, reply: Reply, kind: str = "train", round: int = 1) -> None:
        """Let the server check and note a reply."""
        assert self.server.is_signed(kind, round, "a", reply)
        self.server.log_reply(kind, round, "a", reply)

    def logs(self) -> tuple[Chain, Chain]:
        """The site's and the server's."""
        work = Path(self.site.work)
        return read_audit(audit_file(work)), read_audit(audit_file(work.parent))

    def agree(self) -> str:
        """What is said of both logs, without what they are called."""
        site, server = self.logs()
        return compare(site, server).replace(str(server.file), "LOG")


@contextmanager
def both_ends(
    folder: Path, config: RunConfig, server_keys: RunKeys | None = None, site_keys: SiteKeys | None = None
) -> Iterator[Both]:
    """A run that began, with its site prepared."""
    site = SiteConfig(name="a", root=str(folder), labels="mock", work=str(folder / "work"))
    with hold_audit(folder, server_keys) as server:
        made = Both(server, site, config, site_keys)
        server.log_start("start", "r", config.hash)
        made.take(made.ask("prepare"), "prepare")
        yield made
