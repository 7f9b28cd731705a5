"""Regions that a model predicts -> labels of a scheme."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from gliofed.shared.data.labels import LABELS, labels_of, regions_of
from gliofed.shared.data.volume import DataError


@st.composite
def asked(draw):
    """A scheme, some of its regions in any order, and a mask of its labels."""
    scheme = draw(st.sampled_from(sorted(LABELS)))
    names = draw(st.lists(st.sampled_from(list(LABELS[scheme])), min_size=1, unique=True))
    known = sorted(frozenset().union(*LABELS[scheme].values()))
    return scheme, names, draw(arrays(np.uint8, (2, 3, 2), elements=st.sampled_from([0, *known])))


@given(asked())
def test_regions_come_back(drawn):
    """Whatever regions a study trains on, a mask that is written and read again has the same ones."""
    scheme, names, mask = drawn
    regions = regions_of(mask, scheme, names)
    assert_array_equal(regions_of(labels_of(regions, scheme, names), scheme, names), regions)


@pytest.mark.parametrize("scheme", ["brats2020", "brats2023", "brats2024", "msd", "lumiere"])
def test_labels_come_back(scheme):
    """With all of a scheme's regions nothing of its masks is lost."""
    known = sorted(frozenset().union(*LABELS[scheme].values()))
    mask, names = np.array([[[0, *known]]], np.uint8), list(LABELS[scheme])
    assert_array_equal(labels_of(regions_of(mask, scheme, names), scheme, names), mask)


@given(asked(), st.data())
def test_what_contradicts_itself_has_an_end_too(drawn, data):
    """Sigmoids may put ET outside WT: the result is of the scheme, and the innermost region is kept."""
    scheme, names, mask = drawn
    regions = data.draw(arrays(np.uint8, (len(names), *mask.shape), elements=st.integers(0, 1)))
    again = regions_of(labels_of(regions, scheme, names), scheme, names)
    smallest = min(
        range(len(names)), key=lambda at: (len(LABELS[scheme][names[at]]), list(LABELS[scheme]).index(names[at]))
    )
    assert (again[smallest] >= regions[smallest]).all()
    assert_array_equal(again.any(axis=0), regions.any(axis=0))


def test_enhancing_tumour_outside_the_others_is_enhancing_tumour():
    assert labels_of(np.array([1, 0, 0]).reshape(3, 1, 1, 1), "brats2020", ["et", "tc", "wt"]).item() == 4


def test_a_region_alone_gets_the_label_that_is_most_its_own():
    """WT alone is written as edema, not as necrosis or ET, which nobody predicted."""
    wt = np.ones((1, 1, 1, 1))
    assert [labels_of(wt, scheme, ["wt"]).item() for scheme in ("brats2020", "msd", "lumiere")] == [2, 1, 3]


def test_a_scheme_without_the_region():
    with pytest.raises(DataError, match=r"data\.regions=et: not in label scheme mock, which has object; name"):
        labels_of(np.ones((1, 1, 1, 1)), "mock", ["et"])
