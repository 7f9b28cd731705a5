"""The ClientApp: message, work, reply. What goes wrong stays here; what leaves is a code."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from gliofed.client.doctor.consent import hold_patients, read_consent
from gliofed.client.round.audit import Audit, SiteKeys
from gliofed.client.round.memory import ran_out
from gliofed.client.round.policy import OF_NO_PATIENT, DeclinedError, counts_leave
from gliofed.shared.messages import CODES, MessageError, Reply, Request, describe_records
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.terminal import plain
from gliofed.shared.work_folder import WorkFolder

if TYPE_CHECKING:
    from gliofed.client.round.judge import Admitted

LOG = logging.getLogger("gliofed.site")
LONGEST_LOG = 32 * 2**20
"""Bytes from which site.log becomes site.old.log."""
LONGEST_LINE, MOST_LINES = 2000, 200
"""Characters of a line of it, and lines of a traceback."""
_LOGS = threading.Lock()
SiteOf = Callable[[Context], SiteConfig]
"""Which site a message is for: one in a hospital, several in a simulation."""


def make_client_app(
    site_of: SiteOf,
    mods: Sequence[Mod] = (),
    watched: bool = False,
    keys_of: Callable[[Context], SiteKeys | None] = lambda _: None,
) -> ClientApp:
    """Make the app that answers every message of a federation; `mods` are Flower's, around every answer.

    `watched`: a request that takes too long is ended; only where the process ends after each answer. Sites that have
    keys answer signed requests alone, and sign their replies.
    """

    def answer(kind: str, message: Message, context: Context) -> Message:
        """Do the work; every fault becomes a code, its words and its traceback a line of the site's log."""
        try:
            site = site_of(context)
            with hold_patients(Path(site.work)), _log(Path(site.work)):  # no name is added to a log that is rewritten
                records = _audited(kind, site, message, Audit(site, kind, keys_of(context)), watched)
        except Exception:  # no configuration or no place for a log: the SuperNode's own output has the reason
            LOG.exception("%s: the site's configuration or its work folder cannot be used", kind)
            records = Reply(site="", status="failed", code="config").to_records()
        return Message(records, reply_to=message)

    app = ClientApp(mods=list(mods))
    for kind, register in (("prepare", app.query()), ("train", app.train()), ("evaluate", app.evaluate())):
        register(partial(answer, kind))
    return app


def _audited(kind: str, site: SiteConfig, message: Message, audit: Audit, watched: bool) -> RecordDict:
    """Answer, with a receipt of the very records on disk; where that cannot be, nothing but this code leaves."""
    reply = _work(kind, site, message, audit, watched)
    try:
        records = reply.to_records()
        parts = describe_records(records)
        head = audit.receipt(reply, parts)
        records.config_records["reply"].update(head=head, signature=audit.sign(reply, parts, head))
        return records
    except Exception as error:
        LOG.error("%s declined, because its receipt cannot be written: %s", kind, error, exc_info=error)
        return Reply(site=site.name, status="declined", code="audit").to_records()


def _work(kind: str, site: SiteConfig, message: Message, audit: Audit, watched: bool) -> Reply:
    request = None
    try:
        request = Request.from_records(message.content)
        # Imported here, where a broken installation is a code as well, and not a stack trace at the server.
        from gliofed.client.round.judge import judge

        admitted = judge(kind, site, request, audit)
        if not watched:
            return _done(kind, admitted)
        from gliofed.client.round.watchdog import limit_of, within

        logged = _log(Path(site.work))(partial(_done, kind, admitted))  # again, for a log hears one thread
        return within(limit_of(site.policy, request.config), logged)
    except Exception as error:  # whatever it is must not leave the site
        reply = _fault(kind, site, error)
        return reply if request is None or counts_leave(site.policy, request.config) else _undisclosed(reply)


def _done(kind: str, admitted: "Admitted") -> Reply:
    from gliofed.client.round import work

    reply: Reply = getattr(work, kind)(admitted)
    if read_consent(Path(admitted.site.work)).withdrawn != admitted.withdrawn:
        raise DeclinedError("changed_file", "a patient withdrew consent meanwhile: this answer does not leave")
    return reply


def _fault(kind: str, site: SiteConfig, error: Exception) -> Reply:
    # DeclinedError and DataError carry a code; they are not imported, for their import may be what is broken.
    if isinstance(code := getattr(error, "code", None), str):
        LOG.error("%s declined: %s", kind, error)
        code, left_out = code if code in CODES else "data", getattr(error, "left_out", {})
        return Reply(site=site.name, status="declined", code=code, left_out=left_out)
    if isinstance(error, MessageError):
        LOG.error("%s refused: %s", kind, error)
        return Reply(site=site.name, status="failed", code="protocol")
    LOG.error("%s failed", kind, exc_info=error)
    code = "out_of_memory" if ran_out(error) else "error"
    return Reply(site=site.name, status="failed", code=code)


def _undisclosed(reply: Reply) -> Reply:
    """The refusal as it may leave a private run: all that may depend on patients are one.

    Else a server that asks with one window, split or list of modalities after the other learns of them free of charge.
    """
    if reply.code in OF_NO_PATIENT:
        return replace(reply, left_out={})
    return Reply(site=reply.site, status="declined", code="undisclosed")


@contextmanager
def _log(work: Path) -> Iterator[None]:
    """Write what this thread logs to the site's own log: in a simulation other sites run beside it."""
    work.mkdir(parents=True, exist_ok=True)
    thread, file = threading.get_ident(), WorkFolder(work).log
    with suppress(OSError):  # there is none yet
        if file.stat().st_size > LONGEST_LOG:
            file.replace(WorkFolder(work).old_log)
    handler = logging.FileHandler(file, delay=True)
    handler.setFormatter(_OneLine())
    handler.addFilter(lambda record: record.thread == thread)
    with _LOGS:
        LOG.addHandler(handler)
        LOG.propagate = False
    try:
        yield
    finally:
        with _LOGS:
            LOG.removeHandler(handler)
            LOG.propagate = not LOG.handlers  # what no site writes down goes where the process logs
        with suppress(OSError):  # a full disk
            handler.close()


class _OneLine(logging.Formatter):
    """A line for a message, and indented ones for a traceback: both may hold words of the server's, line feeds too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format without what other handlers left in the record."""
        line = plain(f"{self.formatTime(record)} {record.levelname} {record.getMessage()}")
        trace = self.formatException(record.exc_info).split("\n")[-MOST_LINES:] if record.exc_info else []
        return "\n".join([line[:LONGEST_LINE], *(f"    {plain(each)[:LONGEST_LINE]}" for each in trace)])
