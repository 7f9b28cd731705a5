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
    if policy.max_epsilon is not None and not run.private:
        limit = f"policy.max_epsilon={policy.max_epsilon:g}"
        mechanism = run.privacy.mechanism
        sentence = f"privacy={mechanism}: what leaves has no epsilon, and {limit}; ask for privacy=dp_sgd"
        raise DeclinedError("budget", sentence)
    if run.privacy.test_seed is not None and not policy.test_mode:
        raise DeclinedError("policy", "privacy.test_seed: not a private run; policy.test_mode does not allow it")
    steps = run.train.steps
    if policy.max_steps is not None and steps is not None and steps > policy.max_steps:
        raise DeclinedError("policy", f"train.steps={steps}: policy.max_steps allows {policy.max_steps}")


def metrics_leave(policy: PolicyConfig, run: RunConfig) -> bool:
    """Whether losses and metrics may leave: no budget covers them."""
    return policy.metrics == "always" or (policy.metrics == "unless_private" and not run.private)


def counts_leave(policy: PolicyConfig, run: RunConfig) -> bool:
    """Whether exact numbers of patients may leave."""
    return policy.counts == "always" or not run.private


def check_cohort(policy: PolicyConfig, run: RunConfig, patients: int) -> None:
    """Decline when the cohort is too small, or the epochs over it are too many steps."""
    if patients < policy.min_patients:
        sentence = f"{patients} training patients: policy.min_patients asks for {policy.min_patients}"
        raise DeclinedError("too_few_patients", sentence)
    steps = run.train.local_steps(patients)
    if policy.max_steps is not None and steps > policy.max_steps:
        raise DeclinedError("policy", f"{steps} local steps: policy.max_steps allows {policy.max_steps}")
