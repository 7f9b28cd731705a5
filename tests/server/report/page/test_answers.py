"""The answers on a report's first screen, sentence by sentence: each figure with its n, and no verdict without data."""

import math

from reported_run import absent, counted, measured_at_the_end, record_of, round_of

from gliofed.server.report.page.answers import is_all_used, is_learning, is_weak

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


def test_a_run_that_evaluates_every_tenth_round_has_not_levelled_off_for_that() -> None:
    """The last third of the evaluations lay between two of them, and held but the last."""
    rounds = [round_of(10 * number, dice, TWO) for number, dice in enumerate((0.3, 0.5, 0.6, 0.7), start=1)]
    assert is_learning(record_of(*rounds)).sentences[-1] == "It still changes: by +0.100 since round 30."


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
