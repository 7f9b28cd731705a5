"""The answers on a report's first screen, sentence by sentence: each figure with its n, and no verdict without data."""

import math
from dataclasses import replace

from reported_run import absent, compared, counted, measured_at_the_end, record_of, round_of

from gliofed.server.report.page.answers import is_all_used, is_learning, is_weak
from gliofed.server.report.page.standing import is_better, is_shown

TWO = {"site-a": counted(0.5), "site-b": counted(0.7)}


def test_a_run_that_learns() -> None:
    answer = is_learning(record_of(round_of(1, 0.5, TWO), round_of(2, 0.75, TWO)))
    assert (answer.verdict, answer.tone) == ("Yes", "good")
    assert answer.sentences == [
        "Dice rose: 0.500 after round 1 (n=80 patients), 0.750 after round 2 (n=80 validation patients)."
    ]


def test_a_run_that_stands_still_or_gets_worse_does_not_learn() -> None:
    still = is_learning(record_of(round_of(1, 0.5, TWO), round_of(2, 0.505, TWO)))
    assert still.verdict == "No" and still.sentences[0].startswith("Dice did not change much: 0.500")
    worse = is_learning(record_of(round_of(1, 0.5, TWO), round_of(2, 0.6, TWO), round_of(3, 0.4, TWO)))
    assert (worse.verdict, worse.tone) == ("No, it got worse", "bad")
    assert worse.sentences[1] == "Its best was 0.600, after round 2 (n=80 patients)."


def test_a_loss_that_falls_while_the_metric_does_not_is_no_clear_answer() -> None:
    """At first a model marks nothing, which counts 1 for each patient without enhancing tumour."""
    first, last = round_of(1, 0.57, TWO), round_of(2, 0.55, TWO)
    first["global"]["loss"] = 1.1
    answer = is_learning(record_of(first, last))
    assert (answer.verdict, answer.tone) == ("Not clear", "warn")
    assert answer.sentences[-1] == (
        "The validation loss fell, from 1.100 to 0.500, so it learns something; a model that finds nothing scores well "
        "on patients who lack a region."
    )
    first["global"]["loss"] = 0.5
    assert is_learning(record_of(first, last)).verdict == "No, it got worse"


def test_a_metric_of_which_less_is_better_learns_by_falling() -> None:
    record = record_of(round_of(1, 0.5, TWO), round_of(2, 0.25, TWO))
    object.__setattr__(record, "lower_is_better", True)  # no task has such a headline yet
    assert is_learning(record).verdict == "Yes"
    assert is_weak(record).sentences[0].startswith("The worst site is site-b: Dice 0.700")


def test_other_patients_are_no_progress() -> None:
    """0.4 at one site and 0.8 at another were called a rise."""
    gone = absent("missing", "not connected")
    first = round_of(1, 0.4, {"site-a": counted(0.4), "site-b": gone})
    answer = is_learning(record_of(first, round_of(2, 0.8, {"site-a": gone, "site-b": counted(0.8)})))
    assert (answer.verdict, answer.tone) == ("Not clear", "warn")
    assert answer.sentences[-1] == "Not the same sites were measured: of 0 sites in both rounds 0 improved."
    more = is_learning(record_of(first, round_of(2, 0.7, {"site-a": counted(0.6), "site-b": counted(0.8)})))
    assert more.verdict == "Yes" and more.sentences[-1].endswith("of 1 site in both rounds 1 improved.")


def test_a_run_that_levels_off_says_so() -> None:
    rounds = [round_of(number, dice, TWO) for number, dice in enumerate((0.3, 0.5, 0.7, 0.701), start=1)]
    assert is_learning(record_of(*rounds)).sentences[-1] == "It has levelled off: by +0.001 since round 3."


def test_few_patients_are_said_to_be_few() -> None:
    few = {"site-a": counted(0.5, 3)}
    answer = is_learning(record_of(round_of(1, 0.5, few), round_of(2, 0.6, few)))
    assert answer.sentences[-1] == "With 3 patients, small differences may be chance."


def test_one_round_is_too_few_to_say() -> None:
    answer = is_learning(record_of(round_of(1, 0.5, TWO)))
    assert (answer.verdict, answer.sentences) == (
        "Too early to say",
        ["Dice is 0.500 after round 1 (n=80 validation patients)."],
    )


def test_without_metrics_the_losses_are_what_is_known() -> None:
    kept = {"site-a": counted(None, None), "site-b": counted(None, None, train={"loss": math.nan})}
    answer = is_learning(record_of(round_of(1, None, kept), {"event": "end", "status": "done"}))
    assert (answer.verdict, answer.tone) == ("Not known", "open")
    assert answer.sentences[0] == "No site has told metrics of its validation patients."
    assert answer.sentences[1] == "The training loss, averaged over sites, was 0.500 in round 1 (1 site)."
    assert is_learning(record_of()).sentences == ["No round is finished."]


def test_weights_that_were_given_are_where_a_run_begins() -> None:
    initial = round_of(0, 0.4, TWO) | {"event": "initial"}
    answer = is_learning(record_of(initial, round_of(1, 0.6, TWO)))
    assert answer.sentences[0].startswith(
        "Dice rose: 0.400 before the first round (n=80 patients), 0.600 after round 1"
    )


def test_the_weakest_site_and_region_are_named() -> None:
    answer = is_weak(record_of(round_of(1, 0.6, {"site-a": counted(0.5, 3), "site-b": counted(0.7)})))
    assert answer.verdict == "At site-a and on ET"
    assert answer.sentences == [
        "The worst site is site-a: Dice 0.500 (n=3 validation patients); "
        "the best is site-b: 0.700 (n=40 validation patients).",
        "site-a has so few patients that this may be chance.",
        "By region, over all sites (n=43 validation patients): ET 0.400, WT 0.700.",
    ]


def test_one_site_is_neither_worst_nor_best() -> None:
    answer = is_weak(record_of(round_of(1, 0.6, {"site-a": counted(0.5)}), data={"regions": ["wt"]}))
    assert answer.verdict == "One site alone cannot tell"
    assert answer.sentences[0] == "The only site with a figure is site-a: Dice 0.500 (n=40 validation patients)."


def test_regions_of_a_test_alone_are_told() -> None:
    """With round.evaluate_every=0 nothing is measured before."""
    test = measured_at_the_end(0.6, {"site-a": 0.5, "site-b": 0.7})
    test["models"]["last"]["global"] |= {"dice_et": 0.2, "dice_wt": 0.9}
    answer = is_weak(record_of(round_of(1, None, {"site-a": counted(None, None)}), test))
    assert answer.verdict == "At site-a and on ET"


def test_a_site_without_a_figure_is_not_passed_over() -> None:
    lines = TWO | {"site-c": absent("missing", "not connected"), "site-d": counted(None, 0)}
    said = is_weak(record_of(round_of(1, 0.6, lines))).sentences
    assert said[-2:] == ["No validation patients at site-d.", "No figure from site-c."]


def test_the_test_goes_before_validation() -> None:
    answer = is_weak(record_of(round_of(2, 0.6, TWO), measured_at_the_end(0.55, {"site-a": 0.8, "site-b": 0.3})))
    assert answer.verdict == "At site-b" and "Dice 0.300 (n=10 test patients)" in answer.sentences[0]


def test_all_data_was_used() -> None:
    answer = is_all_used(record_of(round_of(1, 0.6, TWO)))
    assert (answer.verdict, answer.tone) == ("Yes", "good")
    assert answer.sentences == ["All 2 sites counted in every round.", "The sites told 18 training patients."]


def test_a_site_that_never_counted_is_named_with_its_reason() -> None:
    lines = TWO | {"site-c": absent("declined", "too few"), "site-d": counted(0.5) | {"left_out": {"truncated": 2}}}
    lines |= {"site-e": absent("not_invited", "not in round.expected")}
    answer = is_all_used(record_of(round_of(1, 0.6, lines), round_of(2, 0.6, lines | {"site-a": absent("late", None)})))
    assert (answer.verdict, answer.tone) == ("No", "bad")
    assert answer.sentences == [
        "2 of 4 sites counted in every round.",
        "site-c (n not known) counted in no round: too few.",
        "site-a did not count in round 2.",
        "The sites left out 2 cases of their own: 2 at site-d.",
        "3 of 4 sites told 27 training patients.",
    ]


def test_many_sites_that_missed_rounds_are_counted() -> None:
    lines = {f"site-{n}": counted(0.5) for n in range(9)}
    away = {f"site-{n}": absent("missing", None) for n in range(8)}
    last = round_of(3, 0.6, lines | {"site-0": absent("missing", None)})
    answer = is_all_used(record_of(round_of(1, 0.6, lines), round_of(2, 0.6, lines | away), last))
    assert answer.verdict == "Yes, but not in every round"
    assert answer.sentences[:2] == [
        "1 of 9 sites counted in every round.",
        "8 sites did not count in some rounds; site-0 missed the most, 2 of 3.",
    ]


def test_a_site_that_nobody_drew_or_asked_did_not_count() -> None:
    """It was called one of the sites that counted in every round."""
    lines = TWO | {"site-c": absent("not_invited", "not drawn this round")}
    answer = is_all_used(record_of(round_of(1, 0.6, lines)))
    assert (answer.verdict, answer.tone) == ("No", "bad")
    assert answer.sentences[:2] == [
        "2 of 3 sites counted in every round that drew them.",
        "site-c (n not known) counted in no round: not drawn this round.",
    ]
    gone = TWO | {"site-b": absent("not_asked", "has not answered since round 1")}
    answer = is_all_used(record_of(round_of(1, 0.6, TWO), round_of(2, 0.6, gone)))
    assert answer.verdict == "Yes, but not in every round" and "site-b did not count in round 2." in answer.sentences


def test_a_site_that_came_late_missed_what_was_before() -> None:
    answer = is_all_used(record_of(round_of(1, 0.6, {"site-a": counted(0.5)}), round_of(2, 0.6, TWO)))
    assert answer.sentences[:2] == ["1 of 2 sites counted in every round.", "site-b did not count in round 1."]


def test_nothing_counts_in_a_round_without_a_result() -> None:
    """Its lines say that updates counted, but they are in no model."""
    failed, end = round_of(2, None, TWO) | {"event": "round_failed"}, {"event": "end", "status": "failed"}
    answer = is_all_used(record_of(round_of(1, 0.6, TWO), failed, end))
    assert answer.verdict == "Yes, but not in every round"
    assert "Nothing counted in round 2, without a result." in answer.sentences
    assert is_all_used(record_of(failed, end)).verdict == "No"
    assert is_all_used(record_of(failed)).verdict == "Not known yet"


def test_fewer_samples_than_patients_are_not_all_data() -> None:
    lines = {"site-a": counted(0.5, patients=160), "site-b": counted(0.5, patients=32)}
    rounds = [round_of(1, 0.6, lines), round_of(2, 0.6, lines)]
    answer = is_all_used(record_of(*rounds, train={"steps": 8, "batch": 2, "epochs": None}))
    assert (answer.verdict, answer.tone) == ("No", "warn")
    assert answer.sentences[1] == "site-a took 32 samples in all, fewer than its 160 training patients."
    assert is_all_used(record_of(*rounds, train={"steps": None, "batch": 2, "epochs": 1})).verdict == "Yes"


def test_what_sites_keep_to_themselves_is_not_counted_as_nothing() -> None:
    kept = {"site-a": counted(0.5, patients=None), "site-b": counted(0.5)}
    assert is_all_used(record_of(round_of(1, 0.6, kept))).sentences[-1] == "1 of 2 sites told 9 training patients."
    private = {"mechanism": "central", "epsilon": 8.0, "test_seed": None}
    answer = is_all_used(record_of(round_of(1, 0.6, {"site-a": kept["site-a"]}), privacy=private))
    assert answer.verdict == "Yes, as far as the sites tell"
    assert answer.sentences[1:] == [
        "The run is private, so sites need not tell which cases they left out.",
        "No site told how many training patients it has.",
    ]


def test_what_was_not_compared_is_not_called_better() -> None:
    answer = is_better(record_of(round_of(1, 0.6, TWO)))
    assert answer.verdict == "Not measured" and "baselines=[pooled,local]" in answer.sentences[0]
    assert "only a simulation does that" in is_better(record_of(simulated=False)).sentences[0]


def test_references_of_a_private_federation_are_named_as_not_private() -> None:
    private = {"federated": {"private": True}, "pooled": {"private": False}}
    for models, said in ((private, 1), ({"federated": {"private": False}}, 0)):
        answer = is_better(record_of(round_of(1, 0.6, TWO), comparison=compared() | {"models": models}))
        assert sum("trained without privacy" in sentence for sentence in answer.sentences) == said


def test_a_gain_counts_where_its_interval_is_above_zero() -> None:
    answer = is_better(record_of(round_of(1, 0.6, TWO), comparison=compared()))
    assert (answer.verdict, answer.tone) == ("At 1 of 2 sites", "warn")
    assert answer.sentences == [
        "site-b: Dice +0.010 (-0.040 to +0.060) against its own model (n=10).",
        "site-a: Dice +0.200 (+0.150 to +0.250) against its own model (n=10).",
        "Together they reach 93.8 % (91.8 to 95.8) of a model that was trained on all data at one place (n=20).",
        "The interval holds 0 at site-b: the difference may be chance.",
    ]


def test_a_difference_without_an_interval_or_a_value_proves_nothing() -> None:
    """One patient has no interval that could hold 0, and a site without a score no gain."""
    comparison = compared() | {"over_pooled": {"value": None, "low": None, "high": None}}
    comparison["gains"]["site-a"] = {"patients": 1, "value": 0.2, "low": None, "high": None}
    comparison["gains"]["site-b"] = {"patients": 1, "value": None, "low": None, "high": None}
    lines = TWO | {"site-c": absent("declined", "too few")}
    answer = is_better(record_of(round_of(1, 0.6, lines), comparison=comparison))
    assert (answer.verdict, answer.tone) == ("At 0 of 1 compared site", "warn")
    assert answer.sentences == [
        "site-a: Dice +0.200 against its own model (n=1).",
        "Fewer than 6 test patients at site-a: whatever the interval, the difference may be chance.",
        "Not compared at site-b and site-c: no test patients with a score, or no update that counted.",
    ]


def test_an_interval_of_two_patients_decides_nothing() -> None:
    """Every resample of two lies between the two: where both gain, by chance one time in four, it never holds 0."""
    comparison = compared()
    comparison["gains"]["site-a"]["patients"] = 2
    comparison["gains"]["site-b"] |= {"patients": 5, "value": -0.2, "low": -0.3, "high": -0.1}
    answer = is_better(record_of(comparison=comparison))
    assert (answer.verdict, answer.tone) == ("At 0 of 2 sites", "warn")
    assert "Fewer than 6 test patients at site-a and site-b" in answer.sentences[-1]


def test_unequal_samples_are_said() -> None:
    """Steps of dp_sgd take others than those of a reference."""
    comparison = compared()
    comparison["models"]["federated"]["samples"] = 128
    assert "The federation took 128 samples, that model 32." in is_better(record_of(comparison=comparison)).sentences


def test_less_that_is_better_is_said() -> None:
    answer = is_better(record_of(round_of(1, 0.6, TWO), comparison=compared() | {"lower_is_better": True}))
    assert answer.sentences[0] == "Of Dice, less is better." and answer.verdict == "At 0 of 2 sites"
    assert answer.sentences[3].startswith("Their Dice is 93.8 % (91.8 to 95.8) of that of a model")


def test_a_pooled_model_alone_is_no_model_of_a_hospital() -> None:
    answer = is_better(record_of(round_of(1, 0.6, TWO), comparison=compared() | {"gains": {}}))
    assert (answer.verdict, answer.tone) == ("Not measured", "open")
    assert answer.sentences[1] == "No model was trained on one site's data alone."


def test_a_site_that_loses_is_bad_news() -> None:
    comparison = compared()
    comparison["gains"]["site-b"] |= {"value": -0.1, "low": -0.2, "high": -0.05}
    answer = is_better(record_of(comparison=comparison))
    assert (answer.verdict, answer.tone) == ("At 1 of 2 sites", "bad")


def test_made_up_data_are_no_result_of_medicine() -> None:
    answer = is_shown(record_of(round_of(2, 0.6, TWO)))
    assert answer.verdict == "Not as a result of medicine"
    assert answer.sentences == [
        "The data are phantoms, which gliofed makes up: the figures say nothing about patients.",
        "The figures are of 80 validation patients. "
        "Whoever chose a round or a setting by them needs others: data.test=0.2.",
        "The training was not private: who has the model may find out who was in it.",
    ]


def test_a_page_with_own_scans_is_not_for_everybody() -> None:
    events = [round_of(2, 0.6, TWO), measured_at_the_end(0.6, {"site-a": 0.5, "site-b": 0.7}, 40)]
    record = replace(record_of(*events), slices={"note": "", "slices": []})
    record.description["simulation"] = {"data": {"source": "folder"}}
    answer = is_shown(record)
    assert (answer.verdict, answer.tone) == ("Only to those who may see these patients", "warn")
    assert "This page shows slices of these patients' scans." in answer.sentences
    assert is_shown(replace(record, slices=None)).verdict == "Yes"


def test_a_figure_of_an_older_model_is_not_of_the_last() -> None:
    answer = is_shown(record_of(round_of(1, 0.6, TWO), round_of(2, None, TWO), simulated=False))
    assert "They were measured after round 1; the last model is that of round 2." in answer.sentences
    unknown = round_of(1, 0.6, TWO) | {"global": {"loss": 0.5, "dice": None}}
    assert "Dice of the model is not known." in is_shown(record_of(unknown)).sentences


def test_a_best_model_is_said_to_be_selected_without_a_test_too() -> None:
    record = replace(record_of(round_of(1, 0.6, TWO)), best={"round": 1, "sha256": ""})
    said = "The best model is that of round 1, which was selected by its validation patients."
    assert said in is_shown(record).sentences


def test_a_private_run_tells_epsilon_of_its_budget() -> None:
    privacy = {"mechanism": "dp_sgd", "epsilon": 8.0, "test_seed": None}
    lines = {"site-a": counted(0.5, epsilon=1.5), "site-b": counted(0.6, epsilon=2.25)}
    events = [round_of(2, 0.55, lines), measured_at_the_end(0.6, {"site-a": 0.6, "site-b": 0.6})]
    answer = is_shown(record_of(*events, simulated=False, privacy=privacy))
    assert (answer.verdict, answer.tone) == ("With what is said here", "warn")
    assert answer.sentences == [
        "The data are the hospitals' own.",
        "The figures are of 20 test patients, who were in no training and no choice.",
        "With 20 patients, small differences may be chance.",
        "Differential privacy of a patient (dp_sgd): epsilon 2.25 of 8.",
    ]


def test_test_mode_is_said_to_be_not_private() -> None:
    privacy = {"mechanism": "dp_sgd", "epsilon": 8.0, "test_seed": 1}
    answer = is_shown(record_of(round_of(1, 0.6, TWO), simulated=False, privacy=privacy))
    assert answer.sentences[-1].startswith("NOT PRIVATE: privacy.test_seed is set")
    assert answer.tone == "warn"
