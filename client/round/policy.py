"""What this hospital accepts."""

from datetime import time
from typing import TYPE_CHECKING

from gliofed.shared.algorithms import returned_of
from gliofed.shared.config import RunConfig
from gliofed.shared.site_config import PolicyConfig
from gliofed.shared.tasks import TASKS, reading_of
from gliofed.shared.terminal import UserError
from gliofed.shared.wording import quantity

if TYPE_CHECKING:  # Flower comes with it, and the ledger's command needs none
    from gliofed.shared.messages import Request


class DeclinedError(UserError):
    """The site will not: `code` may leave it, the sentence is for its own log."""

    def __init__(self, code: str, sentence: str) -> None:
        """Keep both."""
        super().__init__(sentence)
        self.code = code


def check_run(policy: PolicyConfig, run: RunConfig) -> None:
    """Decline a run that the hospital did not agree to, before anything is read."""
    for key, value, setting, allowed in (
        ("model.name", run.model.name, "models", policy.models),
        ("task", run.task, "tasks", policy.tasks),
        ("codec", run.codec, "codecs", policy.codecs),
        ("privacy", run.privacy.mechanism, "mechanisms", policy.mechanisms),
    ):
        if allowed is not None and value not in allowed:
            sentence = f"{key}={value}: policy.{setting} allows {', '.join(allowed) or 'none'}"
            raise DeclinedError("policy", sentence)
    for group in returned_of(run):
        if policy.groups is not None and group.name not in policy.groups:
            sentence = f"{group.name} beside the update: policy.groups allows {', '.join(policy.groups) or 'none'}"
            raise DeclinedError("policy", sentence)
    if policy.max_epsilon is not None and not run.private:
        why = f"what leaves has no epsilon, and policy.max_epsilon={policy.max_epsilon:g}"
        raise DeclinedError("budget", f"privacy={run.privacy.mechanism}: {why}; ask for privacy=dp_sgd")
    if run.privacy.test_seed is not None and not policy.test_mode:
        raise DeclinedError("policy", "privacy.test_seed: not a private run; policy.test_mode does not allow it")
    steps = run.train.steps
    if policy.max_steps is not None and steps is not None and steps > policy.max_steps:
        raise DeclinedError("policy", f"train.steps={steps}: policy.max_steps allows {policy.max_steps}")


def check_hours(policy: PolicyConfig, clock: time) -> None:
    """Decline a request that arrives outside the site's hours; they may pass midnight."""
    if policy.hours is None:
        return
    begin, end = map(time.fromisoformat, policy.hours.split("-"))
    inside = begin <= clock < end if begin < end else clock >= begin or clock < end
    if not inside:
        raise DeclinedError("hours", f"it is {clock:%H:%M}: policy.hours={policy.hours}")


def check_rounds(policy: PolicyConfig, rounds: int) -> None:
    """Decline one round more, after so many in the last 24 hours."""
    most = policy.max_rounds_a_day
    if most is not None and rounds >= most:
        sentence = f"{quantity(rounds, 'round')} in the last 24 hours: policy.max_rounds_a_day={most}"
        raise DeclinedError("rounds_a_day", sentence)


def data_reading(run: RunConfig) -> dict[str, object]:
    """What of a run decides which patients can be used, on which side, and what the cache holds of them.

    Each other one tells more of the patients, or takes more of the disk. Plain values, as they come back from JSON.
    """
    reading, label, data = reading_of(run), TASKS[run.task].label, run.data
    return {
        "sample": label.reading if label else reading,
        "modalities": sorted(data.modalities),
        "regions": None if label else sorted(data.regions),
        "window": data.window if reading == "series" else None,
        "split": [data.validation, data.split_seed, *([] if data.test is None else [data.test])],
        "spacing": list(data.spacing) if isinstance(data.spacing, tuple) else data.spacing,
        "block": list(data.patch) if label else None,
        **({} if label or data.missing == "refuse" else {"missing": data.missing}),
    }


def check_readings(policy: PolicyConfig, readings: int) -> None:
    """Decline one reading of the data more, after so many."""
    if readings >= policy.max_readings:
        sentence = f"{readings} readings of the data were answered: policy.max_readings={policy.max_readings}"
        raise DeclinedError("readings", f"{sentence}; another split, spacing, task, window or channel is one more")


def check_noise(policy: PolicyConfig, sigma: float) -> None:
    """Decline a private run whose noise multiplier is below the site's least."""
    if policy.min_noise is not None and sigma < policy.min_noise:
        sentence = f"noise multiplier {sigma:.3g}: policy.min_noise asks for {policy.min_noise:g}"
        raise DeclinedError("policy", f"{sentence}; a smaller privacy.epsilon or fewer steps have more")


def reply_key(policy: PolicyConfig, request: "Request") -> str:
    """Name of the stored reply to a request.

    A private reply with an exact number of patients is another one: where the policy was tightened, it stays.
    """
    return request.key + "-exact" * (request.config.private and counts_leave(policy, request.config))


def metrics_leave(policy: PolicyConfig, run: RunConfig) -> bool:
    """Whether losses and metrics may leave: no budget covers them."""
    return policy.metrics == "always" or (policy.metrics == "unless_private" and not run.private)


def counts_leave(policy: PolicyConfig, run: RunConfig) -> bool:
    """Whether exact numbers of patients may leave."""
    return policy.counts == "always" or not run.private


OF_NO_PATIENT = frozenset(
    "policy hours rounds_a_day readings budget ledger ledger_busy audit withheld device protocol".split()
)
"""Codes that follow from settings, the clock, the ledger and the machine alone. Any other may depend on patients.

So does `policy` where epochs are too many steps; but no private run has epochs.
"""


def check_cohort(policy: PolicyConfig, run: RunConfig, patients: int) -> None:
    """Decline when the cohort is too small, or the epochs over it are too many steps.

    `patients` train; where their number may not leave, they are all of the site.
    """
    if patients < policy.min_patients:
        sentence = f"{quantity(patients, 'patient')}: policy.min_patients asks for {policy.min_patients}"
        raise DeclinedError("too_few_patients", sentence)
    steps = run.train.local_steps(patients)
    if policy.max_steps is not None and steps > policy.max_steps:
        raise DeclinedError("policy", f"{quantity(steps, 'local step')}: policy.max_steps allows {policy.max_steps}")
