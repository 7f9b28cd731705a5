"""Examples in docstrings are true: where arithmetic is the contract, a reader can trust them."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import gliofed

PACKAGE = Path(gliofed.__file__).parent
FILES = [path for room in PACKAGE.iterdir() for path in sorted(room.rglob("*.py"))]  # room by room, for they are links
EXAMPLES = [
    ".".join(("gliofed", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in FILES
    if ">>> " in path.read_text(encoding="utf-8")
]
CONTRACTS = (
    "shared.accounting.default_delta",
    "shared.accounting.noise_for",
    "shared.codecs.from_int8",
    "shared.codecs.int8",
    "shared.data.cases.split",
    "shared.noise.noisy_mean",
    "shared.seeding.seed_of",
    "shared.sizes.padded_voxels",
    "shared.tasks.means.over_patients",
    "shared.tasks.means.over_sites",
    "server.round.fold.limit_shares",
)


@pytest.mark.parametrize("module", EXAMPLES)
def test_every_example_gives_what_it_says(module: str) -> None:
    found = doctest.testmod(import_module(module))
    assert found.attempted and not found.failed


@pytest.mark.parametrize("name", CONTRACTS)
def test_what_both_ends_must_compute_alike_has_an_example(name: str) -> None:
    module, _, function = name.rpartition(".")
    assert ">>> " in getattr(import_module(f"gliofed.{module}"), function).__doc__
