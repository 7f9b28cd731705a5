"""gliofed-client compare: what was asked is checked before PyTorch is loaded; what is printed of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from gliofed.client.link.site_file import read_site
from gliofed.client.reference.question import question
from gliofed.shared.comparison import FEDERATED, FEWEST, OWN, verdict, with_interval
from gliofed.shared.exported import find_export, read_export
from gliofed.shared.files import absolute
from gliofed.shared.parse import Strict, parse
from gliofed.shared.site_config import Device
from gliofed.shared.terminal import plain
from gliofed.shared.wording import quantity
from gliofed.shared.work_folder import CompareFolder


@dataclass(frozen=True, kw_only=True)
class _Given(Strict):
    device: Device | None


def compare_command(model: Path, folder: Path, rounds: int | None, out: Path | None, device: str | None) -> int:
    """Compare a federated model with one of the hospital's own patients alone, and print it; 0.

    Raises ConfigError over wrong use, and as `compare_here` does.
    """
    site, export = read_site(folder), find_export(absolute(model), "MODEL")
    device, exported = parse(_Given, {"device": device}).device, read_export(export)
    asked = question(site, export, exported, rounds, device)
    name = f"{exported.run_id[:12]}-{quantity(asked.rounds, 'round').replace(' ', '-')}"
    files = CompareFolder(absolute(out) if out else site.folder.compare / name)
    # Imported here, so that a mistyped word is answered at once.
    from gliofed.client.reference.at_hospital import compare_here

    try:
        found = compare_here(asked, files)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on after the last finished round") from None
    Console().print(table(found))
    for sentence in [*sentences(found), f"written: {files.root}, which stays at the hospital; {SCORES}"]:
        print(plain(sentence))
    return 0


VERDICTS = {
    "few": f"fewer than {FEWEST} test patients: whatever the interval, the difference may be chance",
    "better": "the federated model is better here than the hospital's own",
    "worse": "the hospital's own model is better here than the federated one",
    "open": "the interval holds 0: the difference may be chance",
}
SCORES = f"{CompareFolder(Path()).scores.name} there names patients. Nothing was sent"


def table(found: Mapping[str, Any]) -> Table:
    """Each metric of both models on the test patients, the headline first."""
    own, overall = OWN + found["site"], found["overall"]
    rounds = {model: about["round"] for model, about in found["models"].items()}
    title = f"{found['site']}: {quantity(overall[FEDERATED]['patients'], 'test patient')}, 95 % intervals"
    result = Table(Column("metric", no_wrap=True), title=title)
    result.add_column(f"federated model,\nround {rounds[FEDERATED]}", justify="right")
    result.add_column(f"own model,\n{quantity(rounds[own], 'round')}", justify="right")
    values = [overall[model]["metrics"] for model in (FEDERATED, own)]
    for metric in sorted(values[0], key=lambda name: name != found["metric"]):
        result.add_row(metric, *(with_interval(each[metric]) for each in values))
    return result


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Which model is better here, and what must be known of that."""
    gain, metric, models = found["gains"][found["site"]], found["metric"], found["models"]
    less, number = found["lower_is_better"], gain["patients"]
    said = [f"{metric}, federated minus own: {with_interval(gain, '+')} (n={number})" + ", where less is better" * less]
    if gain["value"] is None:
        said[0] = f"{metric}: one of the models has no value here (n={number}), so they cannot be compared"
    else:
        said.append(VERDICTS[verdict(gain, less)])
    if models[FEDERATED]["private"]:
        said.append("the federation is private; the own model was trained WITHOUT privacy, so it must not leave")
    if found["given_weights"]:
        given = "the federation began with given weights, which may have been trained on these test patients"
        said.append(f"{given}; the own model began with random ones")
    if found["smaller_patch"]:
        said.append("memory did not suffice here in the run, so both models take the smaller patch of then")
    return said
