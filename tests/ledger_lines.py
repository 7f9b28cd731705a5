"""Small ledgers: a study's first charges, and what is in the folder."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from gliofed.client.round.ledger import Charge, hold, read_ledger
from gliofed.shared.accounting import rdp_epsilon

DELTA = 0.01
# A rate of 1 is exact and quick to account for; what is told of a number of patients has it anyway.
ROUND = Charge(what="train", run_id="r", round=1, sigma=4.0, rate=1.0, steps=3, patients=10)
COUNT = replace(ROUND, what="count", sigma=10.0, steps=1, noisy=12)


def write(folder: Path, *charges: Charge, ceiling: float | None = None) -> None:
    for charge in charges:
        with hold(folder, DELTA) as ledger:
            ledger.charge(charge, ceiling)


def epsilon_of(folder: Path) -> float:
    ledger = read_ledger(folder)
    assert ledger is not None
    return ledger.epsilon()


def together(charges: list[Charge]) -> float:
    """Epsilon by hand: steps of equal mechanisms are added, and RDP composes the rest."""
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.sigma, charge.rate] += charge.steps
    return rdp_epsilon([(*mechanism, count) for mechanism, count in steps.items()], DELTA)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}
