"""make results: train what docs/results.md compares, and write that page from the runs' histories.

Runs are kept in outputs/results: one that is finished is not repeated, one that was killed goes on (of the tables of
privacy: starts anew). Phantoms are written once a seed. As many runs as there are cores work side by side, each on one.
`--tables segmentation` makes one table; `--only-write` writes the page from the runs that are there; `--full` trains
five seeds, and the segmentation pair at 2 mm too.
"""

import argparse
from pathlib import Path

from tests.benchmarks import attacks, honest, real_cases
from tests.benchmarks.pages import write_between
from tests.benchmarks.results_page import PAGE, write
from tests.benchmarks.results_runs import FULL, SEEDS, train_all
from tests.benchmarks.results_tables import TABLES

THREATS = {"attacks": attacks, "honest": honest}
"""Tables of docs/threats.md."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make results", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=[*TABLES, *THREATS, "real"])
    parser.add_argument("--cases", type=Path, help="for --tables real: a folder of six cases of BraTS 2021")
    parser.add_argument("--only-write", action="store_true", help="train nothing")
    parser.add_argument("--full", action="store_true", help="also two more seeds, and at 2 mm")
    arguments = parser.parse_args()
    usual = [name for name, table in TABLES.items() if arguments.full or not table.only_full]
    arguments.tables = arguments.tables or usual
    for name in [name for name in arguments.tables if name in THREATS]:  # of another page, and longer
        if not arguments.only_write:
            THREATS[name].make()
        write_between(attacks.PAGE, name, THREATS[name].table(), "make results")
        print(f"written: {attacks.PAGE}")
    if "real" in arguments.tables and not arguments.only_write:
        if arguments.cases is None:
            parser.error("--tables real: give --cases DIR as well, a folder of six cases of BraTS 2021")
        real_cases.make(arguments.cases)
    named = [name for name in arguments.tables if name in TABLES]
    if not {*named, *arguments.tables} - {*THREATS}:
        return
    if not arguments.only_write:
        seeds = FULL if arguments.full else SEEDS
        train_all([(TABLES[name], row, seed) for name in named for row in TABLES[name].rows for seed in seeds])
    PAGE.write_text(write(list(TABLES)))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
