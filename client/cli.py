"""gliofed-client: the hospital's command."""

import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

WRONG_USE = 2
HELP = """gliofed-client: one hospital.

usage: gliofed-client check data.root=DIR data.labels=SCHEME [data.modalities=[flair,t1,t1ce,t2]]

  check   read every scan to its end and say what to mend; status 0 without errors, 1 with

SCHEME is what the masks' values mean: brats2018, brats2019, brats2020, brats2021, brats2023, brats2024, msd, lumiere.
"""


def main() -> None:
    """Run the subcommand that the first word names."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h") or "--help" in words:
        print(HELP)
    elif command == "check":
        sys.exit(_check(words))
    else:
        _wrong(f"no command {command!r}; there is: check")


def _check(overrides: list[str]) -> int:
    try:
        with initialize_config_module("configs", version_base="1.3"):
            config: Any = OmegaConf.to_container(compose("check", overrides), throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        _wrong(" ".join(str(error).split())[:300])
    # Imported here, so that a mistyped key is answered at once.
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from client.doctor import findings
    from shared.data.cases import find_cases
    from shared.data.labels import LABELS
    from shared.data.volume import DataError

    data = config["data"]
    if data["labels"] not in LABELS:
        _wrong(f"data.labels={data['labels']}: unknown scheme; known are {', '.join(LABELS)}")
    if not isinstance(data["modalities"], list):
        _wrong(f"data.modalities={data['modalities']}: must be a list, such as [flair,t1,t1ce,t2]")
    try:
        cases = find_cases(Path(str(data["root"])).expanduser(), data["labels"])
    except DataError as error:
        _wrong(str(error))
    table = Table("patient", "visit", "grade", "modalities", "mask", "findings")
    faults, sentences = 0, []
    for case in track(cases, "reading", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        found = list(findings(case, data["modalities"]))
        faults += bool(found)
        sentences += [f"{finding.code}: {finding.sentence}" for finding in found]
        codes = " ".join(sorted({finding.code for finding in found})) or "ok"
        table.add_row(case.patient, case.visit, case.grade, " ".join(case.images), "yes" if case.mask else "no", codes)
    Console().print(table)
    print(*sentences, sep="\n", end="\n" if sentences else "")
    print(f"{len(cases)} cases, {faults} with errors")
    return 1 if faults else 0


def _wrong(sentence: str) -> NoReturn:
    print(f"gliofed-client: {sentence}; see gliofed-client --help", file=sys.stderr)
    sys.exit(WRONG_USE)
