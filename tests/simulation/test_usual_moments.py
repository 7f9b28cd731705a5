"""What sites do with moments where nothing is said: averaged and coded, or fresh where that cannot be."""

import pytest
from small_run import USUAL, composed

from gliofed.server.settings import notes_of
from gliofed.shared.algorithms.optimizers import ADAMW
from gliofed.simulation.settings import parse_settings

FRESH = ("privacy=dp_sgd", "privacy=local_update", "privacy=central", "fold=median", "fold=krum")
FRESH += ("optimizer.momentum=0",)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_moments_are_averaged_where_nothing_is_said(optimizer: str) -> None:
    values = composed(*USUAL, f"optimizer={optimizer}")
    assert parse_settings(values)[0].optimizer.moments == "averaged" and not notes_of(values)


@pytest.mark.parametrize("word", FRESH)
def test_fresh_moments_are_named_where_they_cannot_be_averaged(word: str) -> None:
    """Noise is made for the update alone, and an order of values says nothing of first moments beside second ones."""
    values = composed("sites=4", *USUAL, word)
    assert parse_settings(values)[0].optimizer.moments == "fresh"
    assert notes_of(values) == [f"optimizer.moments=fresh: they are not averaged with {word}"]


def test_sgd_has_no_moments_unless_asked_for_them() -> None:
    """That averaging pays was measured with AdamW; and SGD's file says fresh, so there is nothing to note."""
    values = composed("optimizer=sgd")
    assert parse_settings(values)[0].optimizer.moments == "fresh" and not notes_of(values)


def test_a_run_of_before_there_was_a_choice_goes_on_as_it_was() -> None:
    """And whoever deletes the group is told what that means."""
    values = composed(*USUAL)
    del values["optimizer"]["moments"]
    assert parse_settings(values)[0].optimizer.moments == "fresh" and not notes_of(values)
    del values["optimizer"]
    assert parse_settings(values)[0].optimizer == ADAMW
    assert notes_of(values) == ["optimizer=adamw optimizer.moments=fresh: the settings name none"]
