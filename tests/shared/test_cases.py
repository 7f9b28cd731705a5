"""The split by patient."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gliofed.shared.data.cases import split

names = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=20, unique=True)


@settings(deadline=None, max_examples=50)
@given(names, names, st.floats(0, 0.99), st.integers(0, 9))
def test_patients_stay_on_their_side_when_others_come(some, more, validation, seed):
    """Else a validation patient of one round would train in the next. Only who trains for want of others may move."""
    train, kept = split(some, validation, seed)
    later_train, later_kept = split(some + more, validation, seed)
    assert train and sorted(train + kept) == sorted(some)
    assert set(kept) <= set(later_kept)
    if len(train) > 1:
        assert set(train) <= set(later_train)


def test_the_split_is_fixed_and_near_its_fraction():
    """Written out once: if these names move, every running study would mix its sides."""
    patients = [f"P{number:03d}" for number in range(1000)]
    train, kept = split(patients, 0.2, seed=0)
    assert kept[:4] == ["P000", "P001", "P003", "P008"]
    assert 160 < len(kept) < 240
    assert split(patients[::-1] + patients, 0.2, seed=0) == (train, kept)
    assert split(patients, 0.2, seed=1)[1] != kept
    assert split(patients, 0.0, seed=0) == (patients, [])


@settings(deadline=None, max_examples=50)
@given(names, st.dictionaries(st.text(max_size=4), st.sampled_from(["training", "validation"])), st.floats(0, 0.99))
def test_a_declared_side_is_kept_and_moves_nobody_else(some, declared, validation):
    """The data set's own split is what others compare with; the hash must not mix it, nor the other way round."""
    train, kept = split(some, validation, 0, declared)
    assert sorted(train + kept) == sorted(some)
    for name in set(some) & declared.keys():
        assert name in (train if declared[name] == "training" else kept)
    free = [name for name in some if name not in declared]
    assert train or not free
    if len(train) > 1:
        assert set(kept) - declared.keys() == set(split(free, validation, 0)[1]) or not split(free, validation, 0)[1]
