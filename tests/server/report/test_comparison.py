"""What is printed of a comparison, by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from gliofed.server.report.comparison import comparison_sentences, print_comparison


def interval(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def made(sites: int, **other: Any) -> dict[str, Any]:
    """Of so many sites of 3 patients; every model scores .50 at the first, .51 at the second, and so on."""
    names = [f"site-{number:02d}" for number in range(1, sites + 1)]
    models = ["federated", "best", "pooled", *(f"local {name}" for name in names)]
    row = {name: {"patients": 3, "metrics": {"dice": 0.5 + place / 100}} for place, name in enumerate(names)}
    whole = {"patients": 3 * sites, "metrics": {"dice": interval(0.75, 0.7, 0.8)}}
    facts = {"samples": 8, "steps": 4, "seconds": 1.0, "round": 7, "private": False}
    return {
        "metric": "dice",
        "lower_is_better": False,
        "sites": names,
        "models": dict.fromkeys(models, facts),
        "matrix": dict.fromkeys(models, row),
        "overall": dict.fromkeys(models, whole),
        "own": whole,
        "gains": {name: {"patients": 3, **interval(0.1 - place / 10, -0.1, 0.3)} for place, name in enumerate(names)},
        "over_pooled": interval(0.95, 0.9, 0.99),
        "worst_site": {"site": "site-01", "value": 0.5, "patients": 3},
        "untested": [],
    } | other


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def of(comparison: dict[str, Any], columns: int = 200) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        print_comparison(comparison)
        return capsys.readouterr().out.partition("federated over")[0]

    return of


def test_few_sites_have_a_column_and_a_row_each(printed: Callable[..., str]) -> None:
    text = printed(made(3))
    assert all(word in text for word in ("site-03", "n=3", "n=9", "best, round 7", "local site-02", "each site's own"))
    assert "0.750 [0.700, 0.800]" in text and "0.520" in text


@pytest.mark.parametrize(("sites", "columns"), [(9, 200), (8, 80)])
def test_of_many_sites_or_in_a_narrow_terminal_the_spread_is_shown(
    printed: Callable[..., str], sites: int, columns: int
) -> None:
    text = printed(made(sites), columns)
    assert "lowest" in text and "0.500" in text and f"0.5{sites - 1}0" in text
    assert "local site" not in text and "site-02" not in text and "…" not in text
    assert "each site's own" in text and f"n={3 * sites}" in text and "0.750 [0.700, 0.800]" in text


def test_sentences_have_names_and_numbers() -> None:
    assert comparison_sentences(made(3, untested=["site-04"])) == [
        "federated over pooled, dice: 0.950 [0.900, 0.990] (n=9)",
        "the federated model is better than the site's own at 0 of 3 sites and worse at 0; at 3 the difference may be "
        "chance, since its interval holds 0 or is of fewer than 6 patients; dice, federated minus own: "
        "site-01 +0.100 [-0.100, +0.300] (n=3), site-02 +0.000 [-0.100, +0.300] (n=3), "
        "site-03 -0.100 [-0.100, +0.300] (n=3)",
        "the federated model is worst at site-01: dice 0.500 (n=3)",
        "no test patients, so nothing is known of site-04",
    ]


def test_less_may_be_better_and_nothing_may_be_known() -> None:
    """A gain of a distance is below zero; where a model has no score there is no sentence of it."""
    gains = {name: {"patients": n, **interval(-0.2, -0.3, -0.1)} for name, n in (("a", 6), ("b", 5))}
    turned = made(2, lower_is_better=True, over_pooled=interval(None), worst_site=None, gains=gains)
    [sentence] = comparison_sentences(turned)
    assert "at 1 of 2 sites and worse at 0; at 1 the" in sentence and "a -0.200 [-0.300, -0.100] (n=6)" in sentence
    given = comparison_sentences(made(1, gains={}, given_weights=True))[-1]
    assert given == "every model began with the given weights, so none is of one site's data alone"
    alone = made(1, gains={}, over_pooled=None, models={"federated": {"private": True}})
    assert comparison_sentences(alone)[-1] == "the federation is private; the references are trained without privacy"
