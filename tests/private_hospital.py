"""A hospital of four patients, whose private rounds are tested."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load

from gliofed.client.round.ledger import Charge, read_ledger
from gliofed.client.round.policy import DeclinedError
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Request
from gliofed.shared.site_config import PolicyConfig, SiteConfig

PATIENTS = 4
# All patients are in each step, whatever number is drawn to be told: nothing is left to chance.
PRIVATE = ("privacy=dp_sgd", "privacy.batch=10000", "privacy.patches=1", "data.validation=0", "train.steps=1")
Config = Callable[..., RunConfig]


@dataclass
class Hospital:
    scans: Path
    folder: Path

    def site(self, name: str = "work", **policy: object) -> SiteConfig:
        """The hospital with another work folder, or another policy."""
        accepts = PolicyConfig(**policy)  # type: ignore[arg-type]
        work = str(self.folder / name)
        return SiteConfig(name="a", root=str(self.scans), labels="mock", work=work, policy=accepts, device="cpu")


def request_of(config: RunConfig, round: int = 1) -> Request:
    weights = weights_to_bytes(travelling(initial_model(config)))
    return Request(run_id="r", round=round, config=config, weights=weights)


def other_weights(request: Request) -> Request:
    """The same round once more, as after the server was restored from a backup."""
    first = load(request.weights)
    return replace(request, weights=weights_to_bytes({name: tensor + 0.01 for name, tensor in first.items()}))


def charges(site: SiteConfig, what: str = "train") -> list[Charge]:
    ledger = read_ledger(site.folder.ledger)
    return [charge for charge in ledger.charges if charge.what == what] if ledger else []


def refusal(work: Callable[..., object], site: SiteConfig, request: Request) -> tuple[str, str]:
    with pytest.raises(DeclinedError) as refused:
        work(site, request)
    return refused.value.code, str(refused.value)
