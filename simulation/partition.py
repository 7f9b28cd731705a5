"""A cohort dealt to sites, always by patient: at random, skewed, by what hospitals differ in, or by real counts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gliofed.shared.parse import ConfigError
from gliofed.shared.seeding import generator
from gliofed.shared.wording import quantity

if TYPE_CHECKING:
    from gliofed.simulation.profiles import Profile

Parts = list[list[str]]
"""Names of patients, a list a site."""
Partition = Callable[[Sequence["Profile"], int, np.random.Generator, float], Parts]
"""(patients sorted by name, sites, randomness, alpha of `dirichlet`) -> parts. It reads no file."""

FETS_FILE = Path(__file__).parent / "fets_partitions.csv"
SITES = 4
"""Where nobody says how many."""
UNKNOWN = "not known"
QUARTERS = ("volume, 1st quarter", "volume, 2nd quarter", "volume, 3rd quarter", "volume, 4th quarter")


def iid(patients: "Sequence[Profile]", sites: int, rng: np.random.Generator, alpha: float) -> Parts:
    """At random, in equal parts."""
    order = rng.permutation(len(patients))
    return [[patients[i].name for i in order[site::sites]] for site in range(sites)]


def dirichlet(patients: "Sequence[Profile]", sites: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Skewed by class: each class is divided in proportions drawn from Dir(alpha); a small alpha is a strong skew.

    The class is that of `classes`. A site that drew nobody gets one patient of the largest. Source: Yurochkin et al.
    2019, arXiv:1905.12022.
    """
    of_class = classes(patients)
    parts: Parts = [[] for _ in range(sites)]
    for name in sorted(set(of_class.values())):
        members = _shuffled([patient.name for patient in patients if of_class[patient.name] == name], rng)
        cuts = np.cumsum(rng.dirichlet([alpha] * sites))[:-1] * len(members)
        bounds = [0, *(int(cut) for cut in np.rint(cuts)), len(members)]
        for site in range(sites):
            parts[site] += members[bounds[site] : bounds[site + 1]]
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return parts


def by_grade(patients: "Sequence[Profile]", sites: int, rng: np.random.Generator, alpha: float) -> Parts:
    """One grade at each site, if there are enough sites; patients without a grade count as a grade of their own."""
    groups = _grouped(patients, {patient.name: patient.grade or UNKNOWN for patient in patients}, rng)
    if groups.keys() == {UNKNOWN}:
        raise ConfigError("partition=by_grade: no patient has a grade; use partition=by_size or partition=iid")
    return _whole_groups(groups, sites)


def by_size(patients: "Sequence[Profile]", sites: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Equal parts by tumour size, the smallest at the first site, the largest at the last; unknown sizes come last."""
    if all(patient.volume is None for patient in patients):
        raise ConfigError(
            "partition=by_size: no patient has a mask that can be read, so no volume is known; use another partition"
        )
    order = sorted(patients, key=lambda patient: (np.inf if patient.volume is None else patient.volume, patient.name))
    return [[order[i].name for i in chunk] for chunk in np.array_split(np.arange(len(order)), sites)]


def by_scanner(patients: "Sequence[Profile]", sites: int, rng: np.random.Generator, alpha: float) -> Parts:
    """Whole scanners at each site, about equal parts; with fewer scanners than sites, sites share a scanner."""
    groups = _grouped(patients, {patient.name: patient.scanner or UNKNOWN for patient in patients}, rng)
    if len(groups) == 1 and sites > 1:
        raise ConfigError(
            f"partition=by_scanner: all {len(patients)} patients have the same scanner and image header, as in data "
            "that were brought to one grid; use partition=iid"
        )
    return _whole_groups(groups, sites)


def apportion(counts: Sequence[int], patients: int) -> list[int]:
    """Share out `patients` in proportion to `counts`, by largest remainder, at least one each.

    >>> apportion([511, 6, 4], 521), apportion([511, 6, 4], 10)
    ([511, 6, 4], [8, 1, 1])
    """
    one_each: set[int] = set()
    while True:  # those that get one by right of being there leave less for the others
        free = [i for i in range(len(counts)) if i not in one_each]
        left, total = patients - len(one_each), sum(counts[i] for i in free)
        small = {i for i in free if counts[i] * left < total}
        if not small:
            break
        one_each |= small
    shares = [1] * len(counts)
    for i in free:
        shares[i] = counts[i] * left // total
    by_remainder = sorted(free, key=lambda i: (-(counts[i] * left % total), i))
    for i in by_remainder[: patients - sum(shares)]:
        shares[i] += 1
    return shares


def _fets() -> dict[str, list[int]]:
    """Cases per institution of each partitioning of the FeTS Challenge."""
    counts: dict[str, list[int]] = {}
    for line in FETS_FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, _, cases = line.split(",")
            counts.setdefault(name, []).append(int(cases))
    return dict(sorted(counts.items()))


def _by_institution(counts: Sequence[int]) -> Partition:
    def partition(patients: "Sequence[Profile]", sites: int, rng: np.random.Generator, alpha: float) -> Parts:
        names = _shuffled([patient.name for patient in patients], rng)
        ends = np.cumsum(apportion(counts, len(names)))
        return [names[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    partition.__doc__ = f"At random, with the counts of {len(counts)} institutions of the FeTS Challenge."
    return partition


FETS = _fets()
"""Real case counts of institutions, in their order."""

PARTITIONS: dict[str, Partition] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "by_grade": by_grade,
    "by_size": by_size,
    "by_scanner": by_scanner,
    **{name: _by_institution(counts) for name, counts in FETS.items()},
}
"""A new partition is a function here, of the kind `Partition`, whose docstring says in --help what it does."""


def number_of_sites(partition: str, sites: int | None) -> int:
    """How many sites there will be, where `sites` is what the user said, or None.

    Raises ConfigError: no such partition, or another number than its institutions.
    """
    if partition not in PARTITIONS:
        raise ConfigError(f"partition={partition}: unknown; known are {', '.join(PARTITIONS)}")
    if partition not in FETS:
        return SITES if sites is None else sites
    institutions = len(FETS[partition])
    if sites not in (None, institutions):
        raise ConfigError(f"sites={sites}: partition={partition} has {institutions} institutions; give sites=null")
    return institutions


def site_names(sites: int) -> list[str]:
    """Names that sort as the numbers do."""
    return [f"site-{number:0{len(str(sites))}d}" for number in range(1, sites + 1)]


def deal(partition: str, alpha: float, patients: "Sequence[Profile]", sites: int, seed: int) -> list[tuple[str, ...]]:
    """Names of patients, sorted, a tuple a site; nobody twice, no site empty, whatever the order of `patients`.

    Raises ConfigError: more sites than patients, and where the partition needs what no patient has.
    """
    sites = number_of_sites(partition, sites)
    if len(patients) < sites:
        cure = "use another partition" if partition in FETS else "use fewer sites"
        raise ConfigError(
            f"sites={sites}: only {quantity(len(patients), 'patient')} to deal by partition={partition}; {cure}"
        )
    ordered = sorted(patients, key=lambda patient: patient.name)
    parts = PARTITIONS[partition](ordered, sites, generator(seed, "deal"), alpha)
    return [tuple(sorted(part)) for part in parts]


def classes(patients: "Sequence[Profile]") -> dict[str, str]:
    """Class of each patient: the grade; of those without one the quartile of tumour volume; else UNKNOWN."""
    volumes = [patient.volume for patient in patients if patient.grade is None and patient.volume is not None]
    edges = np.quantile(volumes or [0.0], (0.25, 0.5, 0.75))

    def of(patient: "Profile") -> str:
        if patient.grade is not None:
            return patient.grade
        return UNKNOWN if patient.volume is None else QUARTERS[int(np.searchsorted(edges, patient.volume))]

    return {patient.name: of(patient) for patient in patients}


def _grouped(patients: "Sequence[Profile]", group_of: dict[str, str], rng: np.random.Generator) -> dict[str, list[str]]:
    """Names by group, sorted by group, shuffled within."""
    groups: dict[str, list[str]] = {group: [] for group in sorted(set(group_of.values()))}
    for name in _shuffled([patient.name for patient in patients], rng):
        groups[group_of[name]].append(name)
    return groups


def _whole_groups(groups: dict[str, list[str]], sites: int) -> Parts:
    """Whole groups to the smallest site so far; with fewer groups than sites, each group to sites of its own."""
    largest_first = sorted(groups, key=lambda group: (-len(groups[group]), group))
    if len(groups) >= sites:
        parts: Parts = [[] for _ in range(sites)]
        for group in largest_first:
            min(parts, key=len).extend(groups[group])
        return parts
    shares = dict.fromkeys(largest_first, 1)
    for _ in range(sites - len(groups)):
        shares[max(largest_first, key=lambda group: len(groups[group]) / shares[group])] += 1
    return [groups[group][start :: shares[group]] for group in largest_first for start in range(shares[group])]


def _shuffled(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [names[i] for i in rng.permutation(len(names))]
