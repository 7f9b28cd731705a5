"""Patients to sites: whole, repeatable, and each partition what its name says."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliofed.shared.data.cases import Side, split
from gliofed.shared.parse import ConfigError
from gliofed.simulation.partition import FETS, PARTITIONS, apportion, classes, deal, number_of_sites
from gliofed.simulation.profiles import Profile

KINDS = sorted(set(PARTITIONS) - set(FETS))


def cohort(patients: int, high: float = 0.5) -> list[Profile]:
    """A share `high` of HGG; scanners A to E; volumes that have nothing to do with the names' order."""
    return [
        Profile(
            name=f"p{n:04d}",
            grade="HGG" if n < high * patients else "LGG",
            volume=float(n * 7919 % 1009),
            scanner="ABCDE"[n % 5],
        )
        for n in range(patients)
    ]


def dealt(partition: str, patients: list[Profile], sites: int, seed: int = 0, alpha: float = 0.5) -> list[Any]:
    return deal(partition, alpha, patients, sites, seed)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*KINDS, "fets2021_1"]), st.integers(1, 9), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_everybody_is_at_one_site_and_no_site_is_empty(partition: str, sites: int, more: int, seed: int) -> None:
    """Whatever is known of the patients, in whatever order they come, and twice the same."""
    rng = np.random.default_rng(seed)
    sites = number_of_sites(partition, None if partition in FETS else sites)
    # One whom everything is known of, and another of another scanner: else some partitions rightly refuse.
    patients = cohort(2)[: sites + more] + [
        Profile(
            name=f"q{n}",
            grade=rng.choice(["HGG", "LGG", None]),
            volume=rng.choice([None, 0.0, rng.lognormal(10)]),
            scanner=rng.choice(["A", "B", "C", None]),
        )
        for n in range(sites + more - 2)
    ]
    alpha = rng.choice([1e-9, 0.1, 0.5, 100.0, 1e6])
    parts = dealt(partition, patients, sites, seed, alpha)
    assert len(parts) == sites and all(parts)
    assert Counter(name for part in parts for name in part) == Counter(one.name for one in patients)
    shuffled = [patients[i] for i in rng.permutation(len(patients))]
    assert parts == dealt(partition, shuffled, sites, seed, alpha)


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "by_grade", "fets2021_1"])
def test_another_seed_is_another_deal(partition: str) -> None:
    """But by size, or by whole scanners, nothing is left to chance."""
    sites = number_of_sites(partition, None)
    assert dealt(partition, cohort(200), sites, seed=0) != dealt(partition, cohort(200), sites, seed=1)


@pytest.mark.parametrize(("partition", "sites", "patients"), [("fets2022_1", 23, 1251), ("fets2021_2", 22, 341)])
def test_a_cohort_of_the_real_size_has_the_real_counts(partition: str, sites: int, patients: int) -> None:
    """Counted by hand in the file: the two largest of 2022_1 hold 511 and 382."""
    parts = dealt(partition, cohort(patients), sites)
    assert [len(part) for part in parts] == FETS[partition]
    if partition == "fets2022_1":
        assert (len(parts[0]), len(parts[17]), sorted(map(len, parts))[11]) == (511, 382, 13)


def test_a_smaller_cohort_has_shares_by_largest_remainder() -> None:
    assert apportion([6, 3, 1], 10) == [6, 3, 1]
    assert apportion([6, 3, 1], 5) == [3, 1, 1]  # 3.0, 1.5, 0.5: one each first, and 2.67, 1.33 of the other four
    assert apportion([50, 30, 20], 7) == [4, 2, 1]  # 3.5, 2.1, 1.4
    assert apportion([511, 6, 4], 3) == [1, 1, 1]
    shares = apportion(FETS["fets2022_1"], 2502)
    assert shares == [2 * count for count in FETS["fets2022_1"]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 600), min_size=1, max_size=40), st.integers(0, 2000))
def test_shares_sum_up_and_keep_the_order_of_the_counts(counts: list[int], more: int) -> None:
    shares = apportion(counts, len(counts) + more)
    assert sum(shares) == len(counts) + more and min(shares) >= 1
    by_count = sorted(zip(counts, shares, strict=True))
    # Equal counts may differ by the one patient that is left over.
    assert all(after - before >= -(low == high) for (low, before), (high, after) in pairwise(by_count))


def test_by_grade_has_pure_sites_where_there_are_sites_enough() -> None:
    """369 patients as in BraTS 2020: 293 HGG, 76 LGG."""
    patients = cohort(369, 293 / 369)
    grade_of = classes(patients)
    for sites in (2, 3, 4, 8):
        parts = dealt("by_grade", patients, sites)
        assert all(len({grade_of[name] for name in part}) == 1 for part in parts)
    assert [len(part) for part in dealt("by_grade", patients, 4)] == [98, 98, 97, 76]


def test_by_size_goes_from_small_to_large() -> None:
    patients = [*cohort(30), Profile(name="unread", grade=None)]
    volumes = {patient.name: np.inf if patient.volume is None else patient.volume for patient in patients}
    parts = [[volumes[name] for name in part] for part in dealt("by_size", patients, 4)]
    assert all(max(low) <= min(high) for low, high in pairwise(parts))
    assert [len(part) for part in parts] == [8, 8, 8, 7]
    assert parts[-1][-1] == np.inf


def test_by_scanner_keeps_scanners_whole_and_sites_balanced() -> None:
    sizes = {"A": 40, "B": 30, "C": 20, "D": 10}
    patients = [Profile(name=f"{name}{n}", scanner=name) for name, size in sizes.items() for n in range(size)]
    whole = [Counter(name[0] for name in part) for part in dealt("by_scanner", patients, 2)]
    assert whole == [{"A": 40, "D": 10}, {"B": 30, "C": 20}]
    apart = [Counter(name[0] for name in part) for part in dealt("by_scanner", patients, 6)]
    assert apart == [{"A": 20}, {"A": 20}, {"B": 15}, {"B": 15}, {"C": 20}, {"D": 10}]


def spread(partition: str, patients: list[Profile], alpha: float) -> float:
    """Mean over sites and seeds of the distance between a site's shares of classes and the cohort's, 0 to 1."""
    class_of = classes(patients)
    whole = Counter(class_of.values())
    distances = []
    for seed in range(10):
        for part in dealt(partition, patients, 4, seed, alpha):
            held = Counter(class_of[name] for name in part)
            gaps = (abs(held[name] / len(part) - count / len(patients)) for name, count in whole.items())
            distances.append(sum(gaps) / 2)
    return float(np.mean(distances))


@pytest.mark.parametrize("graded", [True, False])
def test_dirichlet_is_skewed_as_alpha_says(graded: bool) -> None:
    """Without grades, over quartiles of tumour volume."""
    patients = [one if graded else Profile(name=one.name, volume=one.volume) for one in cohort(200)]
    strong, weak, none = (spread("dirichlet", patients, alpha) for alpha in (0.1, 1.0, 1000.0))
    iid = spread("iid", patients, 0.5)
    assert strong > weak + 0.05 > none + 0.05
    assert none < 0.05 and iid < 0.1 < weak


def test_dirichlet_without_grades_or_volumes_is_skewed_in_size() -> None:
    sizes = [len(part) for part in dealt("dirichlet", [Profile(name=f"p{n}") for n in range(100)], 4)]
    assert sum(sizes) == 100 and max(sizes) - min(sizes) > 10


@pytest.mark.parametrize(
    ("partition", "sites", "patients", "words"),
    [
        ("by_hand", 4, cohort(9), ("partition=by_hand", "known are iid, dirichlet", "fets2022_2")),
        ("iid", 10, cohort(9), ("sites=10", "9 patients", "fewer sites")),
        ("fets2022_1", 4, cohort(99), ("sites=4", "fets2022_1 has 23 institutions", "give sites=null")),
        ("fets2022_1", 23, cohort(9), ("sites=23", "9 patients", "another partition")),
        ("by_grade", 2, [Profile(name=n) for n in "abc"], ("partition=by_grade", "no patient has a grade")),
        ("by_size", 2, [Profile(name=n) for n in "abc"], ("partition=by_size", "no patient has a mask")),
        ("by_scanner", 2, [Profile(name=n, scanner="A") for n in "abc"], ("partition=by_scanner", "all 3 patients")),
    ],
)
def test_what_cannot_be_is_one_sentence(partition: str, sites: int, patients: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        dealt(partition, patients, sites)
    assert all(word in str(caught.value) for word in words)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*KINDS, *FETS]),
    st.integers(1, 6),
    st.floats(0, 0.49),
    st.floats(0, 0.49),
    st.dictionaries(st.integers(0, 59), st.sampled_from(["training", "validation", "test"])),
    st.integers(0, 99),
)
def test_no_partition_puts_a_patient_on_two_sides(
    partition: str, sites: int, validation: float, test: float, declared: dict[int, Side], seed: int
) -> None:
    """Neither at one site nor at another, and declared sides are kept."""
    profiles = cohort(60)
    sites = number_of_sites(partition, None if partition in FETS else sites)
    named = {profiles[number].name: side for number, side in declared.items()}
    parts = [split(names, validation, seed, named, test) for names in dealt(partition, profiles, sites, seed)]
    everybody = [name for part in parts for side in part for name in side]
    assert sorted(everybody) == sorted(profile.name for profile in profiles)
    for name, side in named.items():
        assert any(name in getattr(part, side) for part in parts)
