"""What this hospital accepts."""

from shared.config import RunConfig
from shared.site_config import PolicyConfig


class DeclinedError(Exception):
    """The site will not: `code` may leave it, the sentence is for its own log."""

    def __init__(self, code: str, sentence: str) -> None:
        """Keep both."""
        super().__init__(sentence)
        self.code = code


def check_run(policy: PolicyConfig, run: RunConfig) -> None:
    """Decline a run that the hospital did not agree to, before anything is read."""
    if policy.models is not None and run.model.name not in policy.models:
        allowed = ", ".join(policy.models)
        raise DeclinedError("policy", f"model.name={run.model.name}: policy.models allows {allowed}")
    steps = run.train.steps
    if policy.max_steps is not None and steps is not None and steps > policy.max_steps:
        raise DeclinedError("policy", f"train.steps={steps}: policy.max_steps allows {policy.max_steps}")


def check_cohort(policy: PolicyConfig, run: RunConfig, patients: int) -> None:
    """Decline when the cohort is too small, or the epochs over it are too many steps."""
    if patients < policy.min_patients:
        sentence = f"{patients} training patients: policy.min_patients asks for {policy.min_patients}"
        raise DeclinedError("too_few_patients", sentence)
    steps = run.train.local_steps(patients)
    if policy.max_steps is not None and steps > policy.max_steps:
        raise DeclinedError("policy", f"{steps} local steps: policy.max_steps allows {policy.max_steps}")
