"""The arithmetic of membership inference, against slow oracles."""

import numpy as np
import pytest
from scipy.stats import norm

from gliofed.simulation.attacks.membership import confidence, figures, lira, roc


def test_lira_is_the_ratio_of_two_gaussians() -> None:
    """Against scipy, a patient at a time; the pooled variance as a weighted mean of the patients' own."""
    rng = np.random.default_rng(0)
    shadows, observed = rng.normal(size=(8, 5)), rng.normal(size=5)
    inside = np.array([rng.permutation([True] * 4 + [False] * 4) for _ in range(5)]).T
    deviation = {
        side: np.sqrt(np.mean([shadows[inside[:, n] == side, n].var(ddof=1) for n in range(5)]))
        for side in (True, False)
    }
    for patient, score in enumerate(lira(observed, shadows, inside)):
        mean = {side: shadows[inside[:, patient] == side, patient].mean() for side in (True, False)}
        member, other = (norm(mean[side], deviation[side]).logpdf(observed[patient]) for side in (True, False))
        assert score == pytest.approx(member - other)


def test_lira_tells_more_than_the_score_where_patients_differ() -> None:
    """A patient who is hard has a low score whether trained on or not; the shadow models know that of each."""
    rng = np.random.default_rng(0)
    hard, members = rng.normal(size=200), np.arange(200) % 2 == 0
    inside = np.array([np.arange(200) % 4 < 2, np.arange(200) % 4 >= 2] * 4)
    shadows, observed = (0.5 * side + hard + rng.normal(0, 0.2, side.shape) for side in (inside, members))
    assert figures(observed, members)["auc"] < 0.7
    assert figures(lira(observed, shadows, inside), members)["auc"] > 0.85


def test_confidence_of_a_grade_is_its_logit() -> None:
    """Where the loss is the cross-entropy of one sigmoid; also where exp(-loss) would round to 0 or 1."""
    logits = np.array([-30.0, -1.0, 0.0, 2.0, 20.0])
    assert confidence(np.log1p(np.exp(-logits))) == pytest.approx(logits, rel=1e-6, abs=1e-12)


def test_rates_are_those_of_counting() -> None:
    """Ties are called together: a threshold cannot part them."""
    scores, inside = np.array([3, 2, 2, 1.0]), np.array([True, True, False, False])
    fpr, tpr = roc(scores, inside)
    assert fpr.tolist() == [0, 0, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 1, 1]
    found = figures(scores, inside)
    assert found["auc"] == 0.875  # of four pairs three are in order, and one is even
    assert found["tpr_at_fpr_0.1"] is None  # two non-members cannot show it
    ten = figures(np.arange(20.0), np.arange(20) % 2 == 1)
    assert (ten["tpr_at_fpr_0.01"], ten["tpr_at_fpr_0.1"]) == (None, 0.2)  # 19 and 17 lie above 16
