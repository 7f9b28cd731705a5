"""gliofed-client ledger: what a hospital's patients have been charged for, from the file alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gliofed.client.round.ledger import Budget, Charge, Ledger, read_ledger
from gliofed.shared.accounting import prv_epsilon
from gliofed.shared.files import absolute
from gliofed.shared.parse import ConfigError
from gliofed.shared.work_folder import WorkFolder


def show_ledger(work: Path, as_json: bool) -> int:
    """Show the ledger of a work folder, or the one in this folder; 0. Raises ConfigError where there is no whole one.

    No lock is taken, so that a run is not disturbed.
    """
    folder = absolute(work)
    try:
        ledger = read_ledger(WorkFolder(folder).ledger) or read_ledger(folder)
    except OSError as error:  # of another user, say
        raise ConfigError(f"{error.filename or work}: {error.strerror}; fix it, then start again") from None
    if ledger is None:
        raise ConfigError(f"{work}: no ledger there; a work folder has one from its first private run on")
    if as_json:
        print(json.dumps(_as_json(ledger)))
    else:
        _show(ledger)
    return 0


def _as_json(ledger: Ledger) -> dict[str, object]:
    """The epsilons hold only where `private` is true."""
    return {
        "delta": ledger.delta,
        "epsilon_rdp": ledger.epsilon(),
        "epsilon_prv": prv_epsilon(ledger.spent, ledger.delta),
        "private": ledger.private,
        "budgets": [asdict(line) for line in ledger.lines if isinstance(line, Budget)],
        "charges": [asdict(charge) for charge in ledger.charges],
    }


def _show(ledger: Ledger) -> None:
    if not ledger.charges:
        print(f"nothing was charged yet (delta={ledger.delta:.3g})")
        return
    Console().print(_table(ledger))
    rdp, prv = ledger.epsilon(), prv_epsilon(ledger.spent, ledger.delta)
    print(f"spent: epsilon {rdp:.3f} by RDP, {prv:.3f} by PRV, at delta={ledger.delta:.3g}")
    if not ledger.private:
        print("not private: no epsilon holds, since anybody can compute the noise of a run in test mode")
    print(f"training patients: {ledger.charges[-1].patients}")
    print(f"last charge: {ledger.charges[-1].time}")


def _table(ledger: Ledger) -> Table:
    """A row for each run, in order of its first charge, and one for the noisy numbers of patients."""
    table = Table(title="Charged to each patient")
    for heading in ("run", "rounds", "charges", "steps", "noise", "rate", "epsilon (RDP)"):
        table.add_column(heading, justify="left" if heading in ("run", "rounds") else "right", overflow="fold")
    steps = [charge for charge in ledger.charges if charge.what == "train"]
    for run_id in dict.fromkeys(charge.run_id for charge in steps):
        of_run = [charge for charge in steps if charge.run_id == run_id]
        table.add_row(run_id[:12], *_cells(ledger, of_run))
    if counts := [charge for charge in ledger.charges if charge.what == "count"]:
        table.add_row("patients told", *_cells(ledger, counts))
    return table


def _cells(ledger: Ledger, charges: Sequence[Charge]) -> list[str]:
    """A row behind its name: what these charges were, and what they would have spent alone."""
    alone = replace(ledger, lines=list(charges))
    rounds = sorted({charge.round for charge in charges})
    return [
        str(rounds[0]) if len(rounds) == 1 else f"{rounds[0]}-{rounds[-1]}",
        str(len(charges)),
        str(sum(charge.steps for charge in charges)),
        ", ".join(f"{sigma:.3g}" for sigma in dict.fromkeys(charge.sigma for charge in charges)),
        ", ".join(f"{rate:.3g}" for rate in dict.fromkeys(charge.rate for charge in charges)),
        f"{alone.epsilon():.3f}" if alone.private else "not private",
    ]
