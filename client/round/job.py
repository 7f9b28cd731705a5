"""One request at one site, admitted and with its data open."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import nn

from gliofed.client.doctor.manifest import admit
from gliofed.client.round.judge import Admitted
from gliofed.client.round.ledger import check_no_budget
from gliofed.client.round.policy import DeclinedError, check_cohort, counts_leave
from gliofed.client.round.states import States
from gliofed.client.round.training import pick_device, pick_workers
from gliofed.shared.algorithms import ALGORITHMS, sent_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.algorithms.groups import Groups, Local, parted, zeros
from gliofed.shared.algorithms.optimizers import rate_of
from gliofed.shared.codec import load_weights, weights_from_bytes
from gliofed.shared.data.dataset import Cohort, Patient, Reading, open_cohort
from gliofed.shared.messages import Request
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import model_of, reading_of


@dataclass(frozen=True)
class Job:
    """What every answer needs."""

    site: SiteConfig
    request: Request
    cohort: Cohort
    device: torch.device
    reading: Reading
    kept: Groups
    """What the site kept of its last round that counted; empty where it kept nothing."""

    @property
    def seed_key(self) -> tuple[int, str, int]:
        """Where the round's randomness comes from, but for noise and sampling of a private run."""
        return self.request.config.seed, self.site.name, self.request.round

    @property
    def workers(self) -> int:
        """Threads that draw samples ahead."""
        return pick_workers(self.site.workers, self.device)

    @property
    def measured(self) -> list[Patient]:
        """Whom an evaluation is of."""
        return self.cohort.test if self.request.part else self.cohort.validation

    def model(self) -> nn.Module:
        """Build the model with the weights that were sent, and with the site's own, on its device."""
        model = model_of(self.request.config)
        weights, _ = parted(weights_from_bytes(self.request.weights))
        load_weights(model, weights, ALGORITHMS[self.request.config.algorithm.name].at_home(model))
        model.load_state_dict(self.kept.get(HOME.name, {}), strict=False)
        return model.to(self.device)

    def local(self, model: nn.Module, steps: int) -> Local:
        """What the run's method has to work with, for so many steps."""
        config, groups = self.request.config, Groups()
        if sent_of(config):
            groups = parted(weights_from_bytes(self.request.weights))[1]
        of_method = (group for group in ALGORITHMS[config.algorithm.name].kept if group != HOME)
        kept = self.kept if self.request.parent else zeros(of_method, dict(model.named_parameters()))
        return Local(
            config=config.algorithm,
            optimizer=config.optimizer,
            round=self.request.round,
            steps=steps,
            rate=rate_of(config, self.request.round),
            sent=_on(groups, self.device),
            kept=_on(kept, self.device),
        )


def open_job(admitted: Admitted) -> Job:
    """Read the ledger, take the device and open the data, in this order: refusing is cheap."""
    site, request = admitted.site, admitted.request
    if not request.config.private:
        check_no_budget(site.folder.ledger, request.run_id)
    try:
        device = pick_device(site.device)
    except ValueError as error:
        raise DeclinedError("device", str(error)) from None
    torch.set_num_threads(site.threads)  # holds for this thread
    reading = reading_of(request.config)
    usable = admit(site, request.config.data, request.config.task)
    cohort = open_cohort(site, request.config.data, reading, usable.cases)
    left_out = Counter(usable.left_out) + Counter(cohort.left_out)
    cohort = replace(cohort, left_out=dict(left_out))
    # The server chooses who validates: an exact number would tell it, one choice after the other, who is there.
    among = cohort.train if counts_leave(site.policy, request.config) else cohort.everybody
    check_cohort(site.policy, request.config, len(among))
    kept = States(site.folder.state / request.run_id).load(request.parent) if request.parent else {}
    return Job(site, request, cohort, device, reading, kept)


def _on(groups: Groups, device: torch.device) -> Groups:
    return {group: {name: each.to(device) for name, each in named.items()} for group, named in groups.items()}
