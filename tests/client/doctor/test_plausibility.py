"""Swapped images, misplaced masks and wrong schemes show in the contrasts, whatever the units."""

from itertools import combinations

import numpy as np
import pytest
from planted_in_real import FOUR, Images, in_scheme, look

from gliofed.client.doctor.contrast import Labels, rank
from gliofed.client.doctor.plausibility import unchecked
from gliofed.shared.data.labels import LABELS
from gliofed.shared.data.volume import Volume
from gliofed.simulation.phantom import PhantomConfig, make_case

MM = 4.0
Phantom = tuple[Images, np.ndarray]


def phantom(patient: int) -> Phantom:
    """Images and mask (X, Y, Z) in labels of BraTS 2023, of a high grade."""
    arrays, mask = make_case(PhantomConfig(patients=9, resolution=MM, high_grade=1.0), 0, patient)
    spacing, affine = (MM, MM, MM), np.diag([MM, MM, MM, 1.0])
    return {name: Volume(array.astype(np.float32), spacing, affine) for name, array in arrays.items()}, mask


@pytest.fixture(scope="module")
def case() -> Phantom:
    return phantom(1)


def told(images: Images, mask: np.ndarray, scheme: str = "brats2023") -> dict[str, str]:
    """Code -> sentence."""
    return {code: what for code, _, what, _ in look(images, mask, scheme)[0]}


def in_units(images: Images, scale: float, offset: float) -> Images:
    return {
        name: Volume(np.where(image.array != 0, image.array * scale + offset, 0), image.spacing, image.affine)
        for name, image in images.items()
    }


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (25, 0), (0.01, 0), (0.01, -5.03)])
def test_a_right_case_is_right_in_any_units(case: Phantom, scale: float, offset: float) -> None:
    """Also z-scored, with half of the brain below zero: a share of the brain's median would be nonsense."""
    images, mask = case
    assert told(in_units(images, scale, offset), mask) == {}
    assert set(told(in_units(images, scale, offset), mask[::-1])) == {"mask_misplaced"}


@pytest.mark.parametrize(("one", "other"), list(combinations(FOUR, 2)))
def test_two_images_that_are_swapped_are_named(case: Phantom, one: str, other: str) -> None:
    images, mask = case
    found = told({**images, one: images[other], other: images[one]}, mask)
    assert set(found) == {"modalities_swapped"}
    assert one in found["modalities_swapped"] and other in found["modalities_swapped"]


def test_a_mask_of_another_place_is_found(case: Phantom) -> None:
    """Before, only a mask that left the brain was."""
    images, mask = case
    assert "mirrored" in told(images, mask[::-1])["mask_misplaced"]
    assert "of this patient" in told(images, np.roll(mask, 9, axis=1))["mask_misplaced"]
    assert set(told(images, phantom(2)[1])) == {"mask_misplaced"}


def test_a_mirrored_mask_that_half_covers_a_tumour_is_found() -> None:
    """At the midline most of a mirrored mask lies on the tumour: only what is marked on one side alone tells."""
    array = np.zeros((40, 40, 40), np.float32)
    array[4:36, 4:36, 4:36] = np.random.default_rng(0).uniform(50, 100, (32, 32, 32))
    mask = np.zeros(array.shape, np.uint8)
    mask[16:28, 10:20, 10:20] = 2  # to 12 beyond the midline, and 4 before it
    array[mask != 0] += 60
    flair = {"flair": Volume(array, (2.0, 2.0, 2.0), np.eye(4))}
    assert told(flair, mask) == {}
    assert "mirrored" in told(flair, mask[::-1])["mask_misplaced"]


@pytest.mark.parametrize(
    ("written", "declared"),
    [("brats2023", "msd"), ("brats2023", "lumiere"), ("msd", "brats2023"), ("lumiere", "msd"), ("hd_glio", "brats2021"),
     ("brats2021", "brats2024")],
)  # fmt: skip
def test_another_scheme_whose_values_fit_is_found_and_the_right_one_named(
    case: Phantom, written: str, declared: str
) -> None:
    """{1, 2, 3} is right in three schemes: enhancing tumour must be bright in T1ce, and core lie inside edema."""
    images, mask = case
    changed = in_scheme(mask, LABELS["brats2023"], LABELS[written])
    assert told(images, changed, written) == {}
    found = told(images, changed, declared)
    assert set(found) == {"label_scheme"} and written in found["label_scheme"]


def test_a_mask_of_one_label_tells_no_regions_apart(case: Phantom) -> None:
    """It was taken for a core without edema."""
    images, mask = case
    binary = (mask != 0).astype(np.uint8)
    assert "reads as TC" in told(images, binary)["binary_mask"]
    assert "binary_mask" not in told(images, binary, "hd_glio")  # a tumour that does not enhance


def test_odd_voxels_are_no_obstacle(case: Phantom) -> None:
    """The largest floats, and a mask with nothing but what scaling left of zero."""
    assert rank(np.float32([3e38, 3e38]), np.float32([1e38, 3.2e38])) == 0.5
    images, mask = case
    nothing = Volume(np.full(mask.shape, 0.0005, np.float32), images["t1"].spacing, images["t1"].affine)
    assert Labels.of(nothing) is None


def test_what_could_not_be_compared_is_named(case: Phantom) -> None:
    images, mask = case

    def left(*names: str, mask: np.ndarray = mask, scheme: str = "brats2023") -> dict[str, str]:
        return unchecked(look({name: images[name] for name in names}, mask, scheme)[1])

    assert left(*FOUR) == {}
    assert left("t1", "t1ce", "t2") == {
        "modalities_swapped": "no flair on the case's grid",
        "mask_misplaced": "no flair on the mask's grid",
    }
    assert set(left("flair", "t2")) == {"modalities_swapped", "label_scheme"}
    assert set(left(*FOUR, mask=np.zeros_like(mask))) == {"modalities_swapped"}
    assert left("t1", scheme="mock") == {}  # no head
    head = {name: Volume(image.array + 1, image.spacing, image.affine) for name, image in images.items()}
    assert set(unchecked(look(head, mask, "brats2023")[1])) == {"mask_misplaced", "label_scheme"}
