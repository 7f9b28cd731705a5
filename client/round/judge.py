"""Whether a request is answered: judged once, before anything is built, or any of the site's data read, for it.

A request is refused, by the code that leaves, in this order:

    protocol        it names no line of the server's audit log, or the server did not sign it
    data            it cannot be known which patients withdrew consent
    audit           the site cannot write its log
                    (from here on the log has the request, whatever becomes of it)
    protocol        it came before (*)
    policy, budget  the hospital did not agree to such a run: `check_run`
    protocol        its model cannot be built
    policy          its model or its step is too large: `check_size`
    hours           the site does not take part at this hour (*)
    rounds_a_day    to train: enough rounds were trained in the last 24 hours (*)
    readings        it reads the data in one way more than the policy allows
                    (from here on the site's log has `accepted`)
    withheld        to evaluate: metrics do not leave
    protocol        to train or evaluate: the weights' header does not fit the model (*)

(*) unless its reply is stored: the work is done already. What the ledger, the device and the patients do not allow is
refused later, by `gliofed.client.round.job.open_job`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gliofed.client.doctor.consent import read_consent
from gliofed.client.round.audit import Audit, rounds_since
from gliofed.client.round.outbox import Outbox, Stored
from gliofed.client.round.policy import (
    DeclinedError,
    check_hours,
    check_readings,
    check_rounds,
    check_run,
    data_reading,
    metrics_leave,
    reply_key,
)
from gliofed.shared.codec import EXACT, check_weights
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import MessageError, Request
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.shared.sizes import count, model_sentence, outline, outline_of_request, step_sentence, step_voxels


@dataclass(frozen=True)
class Admitted:
    """A request that the site works on."""

    site: SiteConfig
    request: Request
    stored: Stored | None = None
    """Its reply, if it was answered before."""
    withdrawn: frozenset[str] = frozenset()
    """Pseudonyms of the patients who had withdrawn consent when it was judged."""


def judge(kind: str, site: SiteConfig, request: Request, audit: Audit) -> Admitted:
    """Admit a request to prepare, train or evaluate. Raises DeclinedError with its code; MessageError is `protocol`."""
    policy, run, now = site.policy, request.config, _now()
    audit.identify(request)
    if not request.head:
        raise MessageError("the request names no line of the server's audit log")
    if not audit.is_signed(request, now):
        raise MessageError(f"the request to {site.name} is not signed by the federation's server")
    withdrawn = read_consent(site.folder.root).withdrawn
    outbox = Outbox(site.folder.outbox)
    stored = outbox.find(reply_key(policy, request), withdrawn) if kind == "train" else None
    fault: Exception | None = None
    try:  # before the log is held: PyTorch is loaded for it, which takes seconds
        check_run(policy, run)
        check_size(policy, run)
        reading = data_reading(run)
    except (DeclinedError, MessageError) as error:
        fault = error
    with audit.recording(request) as (log, lines):
        if not stored and audit.came_before(request, log):
            raise MessageError("the request came before, and the server signs each anew")
        if fault:
            raise fault
        if not stored:
            check_hours(policy, now.astimezone().time())
            if kind == "train" and policy.max_rounds_a_day is not None:
                check_rounds(policy, rounds_since(log, now - timedelta(hours=24)))
        accepted = audit.decision("accepted", "ok") | {"stored": stored is not None}
        # Before the data is read: that patients cannot be used in some way is an answer as well.
        if reading not in (known := [event["reading"] for event in log.events() if "reading" in event]):
            check_readings(policy, len(known))
            accepted["reading"] = reading
        lines.append(accepted)
    if kind == "evaluate" and not metrics_leave(policy, run):
        raise DeclinedError("withheld", f"policy.metrics={policy.metrics}: nothing is evaluated for others")
    if kind != "prepare" and not stored:
        try:
            training = kind == "train"
            check_weights(request.weights, outline_of_request(run, training), run.codec if training else EXACT)
        except ValueError as error:
            raise MessageError(str(error)) from None
    return Admitted(site, request, stored, withdrawn)


def check_size(policy: PolicyConfig, run: RunConfig) -> None:
    """Decline a model or a step that is larger than the hospital allows, before memory is taken for either.

    Raises MessageError for a model that cannot be, and for a run beyond the limits of any.
    """
    try:
        parameters = count(outline(run))
    except ValueError as error:
        raise MessageError(str(error)) from None
    if policy.max_parameters is not None and parameters > policy.max_parameters:
        sentence = f"{model_sentence(run, parameters)}; policy.max_parameters allows {policy.max_parameters}"
        raise DeclinedError("policy", sentence)
    voxels = step_voxels(run)
    if policy.max_step_voxels is not None and voxels > policy.max_step_voxels:
        sentence = f"{step_sentence(voxels)}; policy.max_step_voxels allows {policy.max_step_voxels}"
        raise DeclinedError("policy", sentence)


def _now() -> datetime:
    return datetime.now(UTC)
