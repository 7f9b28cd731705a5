"""The split by patient."""

from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from gliofed.shared.data.cases import split

names = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=20, unique=True)
fractions = st.floats(0, 0.49)


@settings(deadline=None, max_examples=50)
@given(names, names, fractions, st.none() | fractions, st.integers(0, 9))
def test_patients_stay_on_their_side_when_others_come(some, more, validation, test, seed):
    """Else a validation patient of one round would train in the next. Only who trains for want of others may move."""
    parts, later = split(some, validation, seed, test=test), split(some + more, validation, seed, test=test)
    assert parts.training and sorted(chain(*parts)) == sorted(some)
    assert set(parts.validation) <= set(later.validation) and set(parts.test) <= set(later.test)
    if len(parts.training) > 1:
        assert set(parts.training) <= set(later.training)


@settings(deadline=None, max_examples=50)
@given(names, fractions, fractions, st.integers(0, 9))
def test_test_patients_come_out_of_those_who_would_train(some, validation, test, seed):
    """So a study that gives data.test later chooses by the same patients as before."""
    without, parts = split(some, validation, seed), split(some, validation, seed, test=test)
    if len(without.training) > 1:
        assert parts.validation == without.validation
    assert set(parts.test) <= set(without.training) and not without.test


def test_the_split_is_fixed_and_near_its_fractions():
    """Written out once: if these names move, every running study would mix its sides."""
    patients = [f"P{number:03d}" for number in range(1000)]
    parts = split(patients, 0.2, seed=0, test=0.1)
    assert parts.validation[:4] == ["P000", "P001", "P003", "P008"]
    assert parts.test[:4] == ["P028", "P032", "P034", "P065"]
    assert 160 < len(parts.validation) < 240 and 70 < len(parts.test) < 130
    assert split(patients[::-1] + patients, 0.2, seed=0, test=0.1) == parts
    assert split(patients, 0.2, seed=1).validation != parts.validation
    assert split(patients, 0.0, seed=0) == (patients, [], [])


@settings(deadline=None, max_examples=50)
@given(
    names,
    st.dictionaries(st.text(max_size=4), st.sampled_from(["training", "validation", "test"])),
    fractions,
    st.none() | fractions,
)
def test_a_declared_side_is_kept_and_moves_nobody_else(some, declared, validation, test):
    """The data set's own split is what others compare with; the hash must not mix it, nor the other way round."""
    parts = split(some, validation, 0, declared, test)
    assert sorted(chain(*parts)) == sorted(some)
    for name in set(some) & declared.keys():
        assert name in getattr(parts, declared[name])
    free = [name for name in some if name not in declared]
    assert parts.training or not free
    alone = split(free, validation, 0, test=test)
    if len(parts.training) > 1 and len(alone.training) > 1:
        assert set(parts.validation) - declared.keys() == set(alone.validation)
        assert set(parts.test) - declared.keys() == set(alone.test)
