"""The page on eight uneven sites says what the scores say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import composed

from gliofed.client.reference.scoring import write_scores
from gliofed.shared.comparison import Subject, compare
from gliofed.shared.data.cases import split
from gliofed.simulation.phantom import PhantomConfig, case_name
from gliofed.simulation.scanner import SCANNERS
from gliofed.simulation.settings import parse_settings
from tests.benchmarks import together
from tests.benchmarks.federation_results import BESIDE, EQUAL_ROWS, PATIENTS, UNEVEN, draw, read_scores, section

METRICS = ("dice", "dice_wt")


def test_the_split_leaves_every_site_test_patients() -> None:
    """At least 100 in all; names, and so the split, are the same at each seed. And each site has its own scanner."""
    run, settings = parse_settings(composed(*[word for word in UNEVEN if word != "data=phantom"]))
    of_sites = [
        split(
            [case_name(PhantomConfig(patients=number), site, each) for each in range(1, number + 1)],
            run.data.validation,
            run.data.split_seed,
            test=run.data.test,
        )
        for site, number in enumerate(PATIENTS)
    ]
    assert sum(len(parts.test) for parts in of_sites) >= 100
    assert min(len(parts.test) for parts in of_sites) >= 2 and all(parts.training for parts in of_sites)
    assert settings.sites == len(PATIENTS) <= len(SCANNERS)


def test_scores_are_read_back_and_seeds_do_not_mix(tmp_path: Path) -> None:
    subjects = [Subject("site-1", "P1", "scanner 1", "HGG", 1.5), Subject("site-2", "P2", None, None, None)]
    measured = {"federated": [{"dice": 0.25}, {"dice": 0.5}], "pooled": [{"dice": 0.75}, {"dice": 1.0}]}
    write_scores(tmp_path / "scores.csv", subjects, measured)
    of_seeds = [read_scores(tmp_path / "scores.csv", seed) for seed in (0, 1)]
    assert [found for _, found in of_seeds] == [measured] * 2
    assert {one.patient for there, _ in of_seeds for one in there} == {"0-P1", "0-P2", "1-P1", "1-P2"}
    assert [(one.site, one.scanner, one.grade, one.volume) for one in of_seeds[0][0]] == [
        ("site-1", "scanner 1", "HGG", 1.5), ("site-2", None, None, None),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_page_has_each_site_with_its_gain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sites = [f"site-{number}" for number in range(1, 9)]
    subjects = [Subject(site, f"{site} {place}", site, "HGG", float(place)) for site in sites for place in range(3)]
    models = ["federated", "best", "pooled", *(f"local {site}" for site in sites)]
    measured = {m: [{"loss": 1.0, **dict.fromkeys(METRICS, rng.uniform())} for _ in subjects] for m in models}
    data = replace(parse_settings(composed())[0].data, regions=("wt",))
    found = compare("segmentation", data, subjects, measured)
    found["by_seed"] = {0: {"federated": 0.25, "pooled": 0.5}, 1: {"federated": 0.75, "pooled": 1.0}}
    page = "\n".join(section(found, METRICS, "pictures/federation.png"))
    assert "By seed: 0.250 over 0.500 with seed 0, 0.750 over 1.000 with seed 1." in page
    gain = found["gains"]["site-8"]
    assert f"| site-8 | 4 | 3 | {found['matrix']['federated']['site-8']['metrics']['dice']:.3f} |" in page
    assert f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" in page
    assert f"worst at {found['worst_site']['site']}" in page and "24 test patients" in page
    lead = together.sentences(found, PATIENTS)
    best = max(sites, key=lambda site: found["gains"][site]["value"])
    assert lead.count("\n") == 3 and "24 patients" in lead and "160 to 4 **synthetic** patients" in lead
    assert f"{PATIENTS[sites.index(best)]} patients ({found['gains'][best]['value']:+.2f})" in lead
    together.draw(found, PATIENTS).savefig(tmp_path / "together.png")
    assert (tmp_path / "together.png").stat().st_size > 5000
    draw(found).savefig(tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 5000


def test_every_row_of_equal_sites_has_pooled_data_of_as_many_samples_beside_it() -> None:
    for row, words in EQUAL_ROWS.items():
        likes = [like for like, same in BESIDE.items() if row in same]
        assert any(word.startswith("baselines=") for word in words) != (len(likes) == 1)
        for like in likes:
            assert samples(EQUAL_ROWS[like]) == samples(words)


def samples(words: tuple[str, ...]) -> int:
    run = parse_settings(composed(*[word for word in words if word != "data=phantom"]))[0]
    assert run.train.steps is not None
    return run.rounds * run.train.steps * run.train.batch
