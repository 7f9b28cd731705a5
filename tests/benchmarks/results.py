"""make results: train what docs/results.md compares, and write that page from the runs' histories.

Runs are kept in outputs/results: one that is finished is not repeated, one that was killed goes on (of the tables of
privacy: starts anew). Phantoms are written once a seed. As many runs as there are cores work side by side, each on one.
`--tables segmentation` makes one table, with all of its rows; `--only-write` writes the page from the runs that are
there; `--full` trains all rows of all tables, the segmentation pair at 2 mm too, at five seeds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import attacks, honest, real_cases
from tests.benchmarks.pages import write_between
from tests.benchmarks.results_page import PAGE, write
from tests.benchmarks.results_runs import FULL, SEEDS, train_all
from tests.benchmarks.results_tables import ONLY_FULL, TABLES, Table

THREATS = {"attacks": attacks, "honest": honest}
"""Tables of docs/threats.md."""


def chosen(named: Sequence[str] | None, *, full: bool) -> list[tuple[Table, str, int]]:
    """Table, row and seed of what is trained: all rows of the tables that are named, else the usual ones of all."""
    tables = {name: TABLES[name] for name in named or TABLES if name in TABLES}
    left_out = {} if named or full else ONLY_FULL
    seeds = FULL if full else SEEDS
    rows = [(table, row) for name, table in tables.items() for row in table.rows if row not in left_out.get(name, ())]
    return [(table, row, seed) for table, row in rows for seed in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make results", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=[*TABLES, *THREATS, "real"])
    parser.add_argument("--cases", type=Path, help="for --tables real: a folder of six cases of BraTS 2021")
    parser.add_argument("--only-write", action="store_true", help="train nothing")
    parser.add_argument("--full", action="store_true", help="two more seeds, and the rows that are left out else")
    arguments = parser.parse_args()
    runs = chosen(arguments.tables, full=arguments.full)
    arguments.tables = arguments.tables or list(TABLES)
    for name in [name for name in arguments.tables if name in THREATS]:  # of another page, and longer
        if not arguments.only_write:
            THREATS[name].make()
        made = THREATS[name].tables()
        for place, text in made.items():
            write_between(attacks.PAGE, place, text, "make results")
        print(f"{attacks.PAGE}: written: {', '.join(made) or f'nothing; not all runs of {name} are there'}")
    if "real" in arguments.tables and not arguments.only_write:
        if arguments.cases is None:
            parser.error("--tables real: give --cases DIR as well, a folder of six cases of BraTS 2021")
        real_cases.make(arguments.cases)
    if not {*arguments.tables} - {*THREATS}:
        return
    if not arguments.only_write:
        train_all(runs)
    PAGE.write_text(write(list(TABLES)))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
