"""The sentences of docs/results.md about privacy say what the figures say: by hand, on made-up rows."""

from dataclasses import replace

from tests.benchmarks.private_results import Setting, Study, judgement, learning, sentences

SETTINGS = (Setting(), Setting(8.0), Setting(None, patients=64), Setting(8.0, patients=64))
STUDY = Study("dice", 0.0, 0.85, (), (), (), SETTINGS)
NONE, EIGHT, MORE, EIGHT_OF_MORE = (setting.name for setting in SETTINGS)


def test_what_is_kept_is_a_ratio_by_seed_of_the_same_federation() -> None:
    """A mean of ratios, of the seeds that both rows have; of an AUC, what is above chance."""
    scores = {NONE: {0: 0.8, 1: 0.5}, EIGHT: {0: 0.6, 1: 0.5, 2: 0.1}}
    head = "- epsilon 8 with 8 sites of 32 patients:"
    assert sentences(STUDY, scores)[0] == f"{head} 0.875 of the dice without privacy (0.750, 1.000)."
    grading = Study("auc", 0.5, None, (), (), (), SETTINGS)
    scores = {NONE: {0: 0.9}, EIGHT: {0: 0.6}}
    assert sentences(grading, scores)[0] == f"{head} 0.250 of the auc above 0.5 without privacy (0.250)."


def test_the_judgement_is_computed() -> None:
    """Kept on average, though not at each seed; not kept, with the row that does; and nothing without runs."""
    scores = {NONE: {0: 0.8, 1: 0.5}, EIGHT: {0: 0.6, 1: 0.5}}
    assert judgement(STUDY, scores).endswith(
        "at least the 0.85 that we set out to keep, on average, and at 1 of 2 seeds."
    )
    scores = {NONE: {0: 0.8}, EIGHT: {0: 0.4}, MORE: {0: 0.8}, EIGHT_OF_MORE: {0: 0.72}}
    assert "keeps 0.500 of the dice: **less than" in judgement(STUDY, scores)
    assert judgement(STUDY, scores).endswith("Rows that keep it: epsilon 8 with 8 sites of 64 patients.")
    assert "not known" in judgement(STUDY, {})


def test_a_row_below_chance_at_one_seed_has_not_learned() -> None:
    """Three seeds are few: a mean above chance alone would be luck."""
    study = replace(STUDY, chance=0.5)
    says = learning(study, {EIGHT: {0: 0.8, 1: 0.49}, EIGHT_OF_MORE: {0: 0.6, 1: 0.7}})
    assert says.startswith("Above chance at every seed: epsilon 8 with 8 sites of 64")
    assert says.endswith("at every seed: epsilon 8 with 8 sites of 32 patients.")
