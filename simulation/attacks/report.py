"""The result of an attack as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gliofed.shared.files import write_json
from gliofed.shared.terminal import cell
from gliofed.simulation.attacks.settings import AttackConfig, Row
from gliofed.simulation.attacks.target import Target

WIDEST = 8
"""Figures that stand side by side; with more, they stand below each other."""


def write_rows(path: Path, attack: str, targets: Sequence[Target], settings: AttackConfig, rows: Sequence[Row]) -> None:
    """Write every figure as JSON, with the runs that were attacked and how."""
    runs = [
        {"folder": str(target.folder), "label": target.label, "config_hash": target.run.hash, "note": target.note}
        for target in targets
    ]
    write_json(
        path, {"attack": attack, "settings": asdict(settings), "runs": runs, "rows": [dict(row) for row in rows]}
    )


def rows_table(title: str, rows: Sequence[Row]) -> Table:
    """Show a line a row, or where they have many figures a column each; a figure with an interval is one cell."""
    names = [name for name in rows[0] if not _bounds(name, rows[0])]
    heads = [name.replace("_", " ") for name in names]
    lines = [[_cell(name, row) for name in names] for row in rows]
    if len(names) > WIDEST:
        heads, *lines = [list(line) for line in zip(heads, *lines, strict=True)]
    table = Table(title=title, box=SIMPLE_HEAD)
    for head, *cells in zip(heads, *lines, strict=True):
        table.add_column(head, justify="right" if _numbers(cells) else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(cell, line))
    return table


def _numbers(cells: Sequence[str]) -> bool:
    return all(cell[:1].isdigit() or cell[:1] == "-" for cell in cells)


def _bounds(name: str, row: Row) -> bool:
    """Whether a figure is an end of another's interval."""
    return any(name.endswith(end) and name.removesuffix(end) in row for end in ("_low", "_high"))


def _cell(name: str, row: Row) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None:
        return _figure(row[name])
    return f"{_figure(row[name])} ({_figure(low)}-{_figure(high)})"


def _figure(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else f"{value:.3g}"


def labels_apart(targets: Mapping[Path, str]) -> list[str]:
    """Labels of runs by folder; runs with the same label get their folder's name with it, or all of its path.

    >>> labels_apart({Path("a"): "none", Path("b"): "dp_sgd, epsilon 8", Path("c"): "none"})
    ['none (a)', 'dp_sgd, epsilon 8', 'none (c)']
    """
    labels, names = list(targets.values()), [path.name for path in targets]
    shown = [path.name if names.count(path.name) == 1 else str(path) for path in targets]
    return [
        f"{label} ({name})" if labels.count(label) > 1 else label for label, name in zip(labels, shown, strict=True)
    ]
