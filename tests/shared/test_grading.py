import math
import re

import numpy as np
import pytest
import torch
from monai.metrics.rocauc import compute_roc_auc
from torch.testing import assert_close

from gliofed.shared.data.samples import Batch
from gliofed.shared.tasks.grading import Grading
from gliofed.shared.tasks.scores import COUNTS, RESAMPLES, auc, drawn_patients, rates, resampled

RATES = ("accuracy", "sensitivity", "specificity", "f1")


def patients_of(scores, grades):
    return [{"loss": 0.5, "score": float(s), "grade": float(g)} for s, g in zip(scores, grades, strict=True)]


def some_patients(number, seed=0):
    """Scores that know something of the grade, with ties."""
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 2, number)
    return (rng.normal(grades - 0.4, 1.0)).round(1), grades


def slow_counts(scores, grades):
    """One patient after the other."""
    counts = dict.fromkeys(COUNTS, 0)
    for score, grade in zip(scores, grades, strict=True):
        counts[("tn", "fn", "fp", "tp")[2 * (score > 0) + int(grade)]] += 1
    return counts


def slow_rates(tp, fp, tn, fn):
    """The definitions, by precision and recall for F1."""
    sensitivity = tp / (tp + fn) if tp + fn else math.nan
    specificity = tn / (tn + fp) if tn + fp else math.nan
    if tp:
        precision = tp / (tp + fp)
        f1 = 2 * precision * sensitivity / (precision + sensitivity)
    else:
        f1 = 0.0 if fp + fn else math.nan
    return dict(zip(RATES, ((tp + tn) / (tp + fp + tn + fn), sensitivity, specificity, f1), strict=True))


def slow_auc(scores, grades):
    """All pairs of an HGG and an LGG; a tie is one half."""
    pairs = [(h > low) + (h == low) / 2 for h in scores[grades == 1] for low in scores[grades == 0]]
    return sum(pairs) / len(pairs) if pairs else math.nan


def slow_interval(values):
    known = sorted(value for value in values if not math.isnan(value))
    return np.quantile(known, [0.025, 0.975]) if known else (math.nan, math.nan)


def test_loss_equals_the_definition_and_weighs_each_sample():
    torch.manual_seed(0)
    logits, target, weight = torch.randn(4, 1), torch.tensor([[1.0], [0], [0], [1]]), torch.tensor([1.0, 0, 0.25, 3])
    each = [math.log1p(math.exp(-x if y else x)) for x, y in zip(logits[:, 0].tolist(), target[:, 0], strict=True)]
    assert Grading().loss(logits, target).item() == pytest.approx(sum(each) / 4, rel=1e-6)
    weighed = sum(w * one for w, one in zip(weight.tolist(), each, strict=True)) / 4
    assert Grading().loss(logits, target, weight).item() == pytest.approx(weighed, rel=1e-6)


def test_loss_does_not_mix_samples():
    """DP clips each patient's gradient: a sample's part of the gradient is what it gives alone."""
    torch.manual_seed(0)
    logits, target = torch.randn(3, 1, requires_grad=True), torch.tensor([[1.0], [0], [1]])
    weight = torch.tensor([0.3, 1.0, 2.0])
    (together,) = torch.autograd.grad(Grading().loss(logits, target, weight), logits)
    alone = [
        torch.autograd.grad(Grading().loss(logits[[i]], target[[i]], weight[[i]]), logits)[0][i] / 3 for i in range(3)
    ]
    assert_close(together, torch.stack(alone))


def test_loss_is_finite_for_sure_and_wrong_logits():
    target = torch.tensor([[1.0], [0.0]])
    assert Grading().loss(torch.tensor([[200.0], [-200.0]]), target) == 0
    assert Grading().loss(torch.tensor([[-200.0], [200.0]]), target) == 200


@pytest.mark.parametrize("grade", [0.0, 1.0])
def test_measure_is_of_one_patient_and_passes_on_what_is_present(grade):
    """A missing modality is the model's to leave out: it must hear of it."""
    image = torch.tensor([3.0, -1.0, 100.0]).reshape(1, 3, 1, 1, 1)
    batch = Batch(image, torch.tensor([[grade]]), present=torch.tensor([[True, True, False]]))

    def model(image, present):
        assert not torch.is_grad_enabled()
        return (image.flatten(1) * present).sum(dim=1, keepdim=True)

    measured = Grading().measure(model, iter([batch]), None, torch.device("cpu"))
    loss = math.log1p(math.exp(-2 if grade else 2))
    assert measured == {"loss": pytest.approx(loss), "score": 2.0, "grade": grade}
    with pytest.raises(ValueError, match="unpack"):
        Grading().measure(model, [batch, batch], None, torch.device("cpu"))


@pytest.mark.parametrize("number", [2, 7, 40])
def test_auc_equals_all_pairs_and_monai(number):
    for seed in range(5):
        scores, grades = some_patients(number, seed)
        grades[:2] = 0, 1
        value = auc(scores, grades.astype(float))
        assert value == pytest.approx(slow_auc(scores, grades))
        assert value == pytest.approx(compute_roc_auc(torch.from_numpy(scores), torch.from_numpy(grades)))


def test_auc_of_known_orders():
    grades = np.array([0.0, 0, 1, 1])
    assert auc(np.array([1.0, 2, 3, 4]), grades) == 1
    assert auc(np.array([4.0, 3, 2, 1]), grades) == 0
    assert auc(np.zeros(4), grades) == 0.5


def test_summary_equals_loops():
    """With the same resamples, one at a time: of patients for the AUC, of counts for what follows from counts."""
    scores, grades = some_patients(30)
    summary = Grading().summarise(patients_of(scores, grades))
    counts = slow_counts(scores, grades)
    assert {name: summary[name] for name in COUNTS} == counts
    assert summary["loss"] == 0.5
    expected = slow_rates(**counts) | {"auc": slow_auc(scores, grades)}
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    aucs = [slow_auc(scores[chosen], grades[chosen]) for chosen in drawn_patients(30)]
    assert (summary["auc_low"], summary["auc_high"]) == pytest.approx(slow_interval(aucs))
    drawn = [slow_rates(*row) for row in resampled(np.array([counts[name] for name in COUNTS], float)).tolist()]
    for name in RATES:
        interval = summary[f"{name}_low"], summary[f"{name}_high"]
        assert interval == pytest.approx(slow_interval([row[name] for row in drawn])), name


def test_drawing_counts_is_drawing_patients():
    """Both bootstraps have the same distribution: here their mean and covariance, within sampling error."""
    outcomes = np.repeat(np.eye(4), [9, 3, 6, 2], axis=0)  # one row a patient
    by_patient = outcomes[drawn_patients(20)].sum(axis=1)
    by_count = resampled(np.array([9.0, 3, 6, 2]))
    assert by_count.shape == by_patient.shape == (RESAMPLES, 4)
    assert (by_count.sum(axis=1) == 20).all()
    assert by_count.mean(axis=0) == pytest.approx(by_patient.mean(axis=0), abs=0.3)
    assert np.cov(by_count.T) == pytest.approx(np.cov(by_patient.T), abs=0.6)


def test_interval_is_that_of_a_large_sample():
    """320 of 400 right: the normal approximation, whose 95 % is 0.8 +- 1.96 * 0.02."""
    scores = np.where(np.arange(400) % 5 == 0, -1.0, 1.0)
    grades = np.ones(400)
    summary = Grading().summarise(patients_of(scores, grades))
    assert summary["accuracy"] == 0.8
    assert (summary["accuracy_low"], summary["accuracy_high"]) == pytest.approx((0.7608, 0.8392), abs=0.005)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Scores N(0, 1) and N(1, 1) have an AUC of Phi(1 / sqrt 2) = 0.7602, decided at 0 an accuracy of 0.6707."""
    held = {"auc": 0, "accuracy": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        grades = np.arange(60) % 2
        summary = Grading().summarise(patients_of(rng.normal(grades, 1.0), grades))
        for name, truth in (("auc", 0.7602), ("accuracy", 0.6707)):
            held[name] += summary[f"{name}_low"] <= truth <= summary[f"{name}_high"]
    assert min(held.values()) >= 34  # 38 expected


@pytest.mark.parametrize(("patients", "known"), [(1, False), (2, True)])
def test_one_patient_has_no_interval(patients, known):
    """All its resamples are that patient: 1.000 to 1.000 looks certain."""
    summary = Grading().summarise([{"loss": 0.1, "score": 1.0, "grade": 1.0}] * patients)
    assert summary["accuracy"] == 1
    assert all(math.isfinite(summary[f"accuracy_{end}"]) == known for end in ("low", "high"))


def test_the_same_patients_have_the_same_interval():
    patients = patients_of(*some_patients(25))
    assert Grading().summarise(patients) == Grading().summarise(patients)


def test_what_is_undefined_is_nan_without_a_warning():
    """One grade only: there is no AUC and no specificity, in no resample either."""
    summary = Grading().summarise(patients_of([1.0, -1.0, 2.0], [1, 1, 1]))
    undefined = {name for name, value in summary.items() if math.isnan(value)}
    both = ("auc", "specificity")
    assert undefined == {*both, *(f"{name}_{side}" for name in both for side in ("low", "high"))}
    right = Grading().summarise(patients_of([-1.0], [0]))
    assert math.isnan(right["f1"])  # no HGG, and none called so
    assert right["accuracy"] == right["specificity"] == 1


def test_undefined_resamples_do_not_enter():
    """One LGG among eight: a third of the resamples lack it, and still there is an interval."""
    scores, grades = np.arange(8.0), np.array([0, 0, 0, 0, 0, 0, 1, 0])
    summary = Grading().summarise(patients_of(scores, grades))
    aucs = [slow_auc(scores[chosen], grades[chosen]) for chosen in drawn_patients(8)]
    assert 200 < sum(map(math.isnan, aucs)) < 500
    assert (summary["auc_low"], summary["auc_high"]) == pytest.approx(slow_interval(aucs))


def test_a_broken_model_has_no_accuracy():
    """NaN is not above 0: counted as LGG it would look like a fair grader where LGG are many."""
    patients = [{"loss": math.nan, "score": math.nan, "grade": grade} for grade in (0.0, 0.0, 1.0)]
    summary = Grading().summarise(patients)
    assert summary.keys() == {"loss", "accuracy", "auc"} and all(map(math.isnan, summary.values()))
    assert Grading().pool([(summary, 3)], None) == {}


def test_nobody_has_no_metrics_and_names_can_travel():
    assert Grading().summarise([]) == {}
    summary = Grading().summarise(patients_of(*some_patients(5)))
    assert Grading().headline in summary
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) for name in summary)
    assert Grading().outputs(None) == 1


def test_pooled_counts_are_those_of_one_place():
    """And so is all that follows from them, with the same intervals; only the AUC needs scores."""
    parts = [patients_of(*some_patients(number, seed)) for seed, number in enumerate((4, 11, 30))]
    parts[1] = [patient | {"loss": 2.0} for patient in parts[1]]
    pooled = Grading().pool([(Grading().summarise(part), len(part)) for part in parts], None)
    together = Grading().summarise([patient for part in parts for patient in part])
    assert pooled["loss"] == pytest.approx(together["loss"])
    without = {name: value for name, value in together.items() if not name.startswith(("auc", "loss"))}
    assert {name: pooled[name] for name in without} == without
    assert set(together) - set(pooled) == {"auc_low", "auc_high"}


def test_pooled_auc_is_the_share_of_pairs_within_sites():
    parts = [
        some_patients(9, 0),
        some_patients(20, 1),
        (np.array([1.0, 2.0]), np.array([1, 1])),
    ]  # the last has no pair
    pooled = Grading().pool([(Grading().summarise(patients_of(*part)), len(part[0])) for part in parts], None)
    won = [slow_auc(*part) * (part[1] == 1).sum() * (part[1] == 0).sum() for part in parts[:2]]
    pairs = sum((grades == 1).sum() * (grades == 0).sum() for _, grades in parts)
    assert pooled["auc"] == pytest.approx(sum(won) / pairs)
    alone = Grading().pool([(Grading().summarise(patients_of(*parts[2])), 2)], None)
    assert math.isnan(alone["auc"])


GOOD = {"loss": 0.4, "tp": 3.0, "fp": 1.0, "tn": 4.0, "fn": 2.0, "auc": 0.7}


@pytest.mark.parametrize(
    ("metrics", "patients"),
    [
        ({}, 10),  # withheld
        ({"loss": 9.0, "accuracy": 1.0}, 10),
        (GOOD | {"tp": math.nan}, 10),
        (GOOD | {"tp": math.inf}, 10),
        (GOOD | {"tp": -3.0, "tn": 10.0}, 10),
        (GOOD | {"tp": 3.5, "fp": 0.5}, 10),
        (GOOD | {"tp": 1e9}, 10),  # more than its patients
        (GOOD, 11),
        (GOOD | {"auc": 1.5}, 10),
        (GOOD | {"accuracy_low": -0.5}, 10),
        (GOOD | {"loss": -1.0}, 10),
        (dict.fromkeys(COUNTS, 0.0), 0),
    ],
)
def test_a_site_whose_counts_cannot_be_does_not_enter(metrics, patients):
    """They come from another house: neither raise, nor let one site outweigh all."""
    good = Grading().pool([(GOOD, 10)], None)
    assert good["accuracy"] == 0.7
    assert Grading().pool([(metrics, patients), (GOOD, 10)], None) == good
    assert Grading().pool([(metrics, patients)], None) == Grading().pool([], None) == {}


def test_the_largest_counts_that_travel_are_pooled():
    """A reply may claim 1e9 patients; two of them must still be summed and drawn."""
    site = {"tp": 1e9, "fp": 0.0, "tn": 0.0, "fn": 0.0}
    pooled = Grading().pool([(site, 10**9), (site, 10**9)], None)
    assert (pooled["tp"], pooled["accuracy_low"]) == (2e9, 1)
    assert math.isnan(pooled["loss"])
    assert math.isnan(pooled["auc"])


def test_rates_of_many_counts_are_those_of_each():
    counts = np.random.default_rng(0).integers(0, 3, (50, 4)).astype(float)
    counts[0] = 1, 0, 0, 0  # no LGG
    counts = counts[counts.sum(axis=1) > 0]
    found = rates(counts)
    for i, row in enumerate(counts.tolist()):
        assert {name: found[name][i] for name in RATES} == pytest.approx(slow_rates(*row), nan_ok=True)
