"""What a report's first screen says its figures are worth: against each hospital's own, and where they are shown."""

from dataclasses import replace

from reported_run import absent, compared, counted, measured_at_the_end, record_of, round_of

from gliofed.server.report.page.standing import is_better, is_shown

TWO = {"site-a": counted(0.5), "site-b": counted(0.7)}


def test_what_was_not_compared_is_not_called_better() -> None:
    answer = is_better(record_of(round_of(1, 0.6, TWO)))
    assert answer.verdict == "Not measured" and "baselines=[pooled,local]" in answer.sentences[0]
    assert "with gliofed-client compare" in is_better(record_of(simulated=False)).sentences[0]


def test_what_was_asked_for_is_no_advice_while_the_run_goes_on() -> None:
    """The page is drawn after every round, long before the test and the references."""
    record = record_of(round_of(1, 0.6, TWO), data={"test": 0.2})
    assert any("those of test patients, whom no site has measured" in said for said in is_shown(record).sentences)
    record.description["simulation"] = {"data": {"source": "phantom"}, "baselines": ["local"]}
    [said] = is_better(record).sentences
    assert said == "The models of baselines= are trained and compared when the run has ended."


def test_given_weights_may_know_the_test_patients() -> None:
    """A run before may have had another data.test, or none: its training patients are the test patients of this one."""
    test = measured_at_the_end(0.6, {"site-a": 0.5, "site-b": 0.7}, 40)
    answer = is_shown(record_of(round_of(2, 0.6, TWO), test, simulated=False, init="ab" * 32))
    assert answer.tone == "warn" and any("may have been trained on these patients" in said for said in answer.sentences)


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


def test_models_that_began_with_given_weights_are_nobodys_alone() -> None:
    answer = is_better(record_of(comparison=compared() | {"given_weights": True}))
    assert "Every model began with the given weights, so none is of one site's data alone." in answer.sentences


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
    assert answer.verdict == "Not as a medical result"
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
        "The figures are of 20 test patients, who were in no training and no choice of this run.",
        "With 20 patients, small differences may be chance.",
        "Differential privacy of a patient (dp_sgd): epsilon 2.25 of 8.",
    ]


def test_test_mode_is_said_to_be_not_private() -> None:
    privacy = {"mechanism": "dp_sgd", "epsilon": 8.0, "test_seed": 1}
    answer = is_shown(record_of(round_of(1, 0.6, TWO), simulated=False, privacy=privacy))
    assert answer.sentences[-1].startswith("NOT PRIVATE: privacy.test_seed is set")
    assert answer.tone == "warn"
