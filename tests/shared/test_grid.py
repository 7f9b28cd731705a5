"""Scans of a case are on one grid, or are named: the rule that check, training and prediction share."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gliofed.shared.data.prepare import APART, same_grid
from gliofed.shared.data.volume import DataError, Scan, Volume

FIRST, OTHER = Scan(Path("P_t1.nii.gz")), Scan(Path("P_t2.nii.gz"))


def volume(edge, affine=None, shape=None):
    """A brain's field of view of 240 x 240 x 155 mm; it takes no memory."""
    shape = shape or tuple(int(mm / edge) for mm in (240, 240, 155))
    affine = np.diag([edge, edge, edge, 1.0]) if affine is None else affine
    return Volume(np.broadcast_to(np.float32(0), shape), (edge, edge, edge), affine)


def refusal(expected, other):
    with pytest.raises(DataError) as caught:
        same_grid((FIRST, expected), OTHER, other)
    return caught.value


def turned(degrees, edge):
    """An affine whose axes are turned about the foot-head axis, at voxel 0."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ np.diag([edge] * 3 + [1])


@pytest.mark.parametrize(("edge", "degrees"), [(1.0, 29.0), (2.0, 14.0), (8.0, 2.0), (1.0, 0.2)])
def test_a_scan_that_is_turned_about_its_first_voxel_is_elsewhere(edge, degrees):
    """No entry of its affine differs by 0.5, yet its far side is up to 170 mm away."""
    expected, other = volume(edge), volume(edge, turned(degrees, edge))
    error = refusal(expected, other)
    outer = [
        [-0.5 + n * far for n, far in zip(other.array.shape, ends, strict=True)] for ends in product((0, 1), repeat=3)
    ]
    moved = max(np.linalg.norm((other.affine - expected.affine) @ [*corner, 1]) for corner in outer)
    assert error.code == "affine_mismatch" and "P_t2.nii.gz" in str(error) and f"{moved:.3g} mm" in str(error)


def test_an_edge_that_differs_by_less_than_a_percent_adds_up():
    """0.9% of 1 mm are 2 mm at the far side of 240 voxels."""
    assert refusal(volume(1.0), volume(1.0, np.diag([1.009, 1, 1, 1]))).code == "affine_mismatch"


def test_rounding_in_a_header_is_no_other_place():
    """Quaternions in float32 and coordinates with three decimals move a corner by hundredths of a mm."""
    affine = np.round(turned(12.3, 1.0), 4)
    affine[:3, 3] += APART / 2
    same_grid((FIRST, volume(1.0, turned(12.3, 1.0))), OTHER, volume(1.0, affine))


def test_another_shape_on_the_same_field_of_view_is_named_with_both_sizes():
    error = refusal(volume(1.0), volume(2.0))
    assert error.code == "shape_mismatch" and "120x120x77 voxels of 2x2x2 mm" in str(error)
