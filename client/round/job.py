"""One request at one site, admitted and with its data open."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import nn

from gliofed.client.doctor.manifest import admit
from gliofed.client.round.judge import Admitted
from gliofed.client.round.ledger import check_no_budget
from gliofed.client.round.policy import DeclinedError, check_cohort, counts_leave
from gliofed.client.round.training import pick_device
from gliofed.shared.codec import load_weights, weights_from_bytes
from gliofed.shared.data.dataset import Cohort, Reading, open_cohort
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

    @property
    def seed_key(self) -> tuple[int, str, int]:
        """Where the round's randomness comes from, but for noise and sampling of a private run."""
        return self.request.config.seed, self.site.name, self.request.round

    def model(self) -> nn.Module:
        """Build the model with the weights that were sent, on the site's device."""
        model = model_of(self.request.config)
        load_weights(model, weights_from_bytes(self.request.weights))
        return model.to(self.device)


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
    among = cohort.train if counts_leave(site.policy, request.config) else [*cohort.train, *cohort.validation]
    check_cohort(site.policy, request.config, len(among))
    return Job(site, request, cohort, device, reading)
