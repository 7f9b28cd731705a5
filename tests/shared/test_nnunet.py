"""nnU-Net's raw folder: a file a channel, named by number, in both versions of its dataset.json."""

import json

import pytest

from gliofed.shared.data.layouts import take_inventory
from gliofed.shared.data.volume import DataError, Scan

CHANNELS = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}
V2 = {"channel_names": CHANNELS, "labels": {"background": 0, "edema": 1}, "numTraining": 2, "file_ending": ".nii.gz"}


def raw_folder(root, listing, names=("BRATS_001", "BRATS_002"), ending=".nii.gz"):
    """Two cases with four channels, and the first one's mask; a case without one for testing."""
    files = [f"imagesTr/{name}_{channel:04d}{ending}" for name in names for channel in range(4)]
    for name in (
        *files,
        f"labelsTr/{names[0]}{ending}",
        f"imagesTs/BRATS_009_0000{ending}",
        f"labelsTs/BRATS_009{ending}",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


def v1():
    entry = {"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}
    return {"modality": CHANNELS, "training": [entry], "test": ["./imagesTs/BRATS_009.nii.gz"]}


@pytest.mark.parametrize(("listing", "cases"), [(v1(), 1), (V2, 2)])
def test_channels_are_read_by_their_names(tmp_path, listing, cases):
    inventory = take_inventory(raw_folder(tmp_path, listing), "msd")
    first = inventory.cases[0]
    assert len(inventory.cases) == cases and (first.patient, first.visit, first.side) == ("BRATS_001", "000", None)
    assert first.images == {
        name: Scan(tmp_path / f"imagesTr/BRATS_001_000{channel}.nii.gz")
        for channel, name in enumerate(("t1", "t1ce", "t2", "flair"))
    }
    assert first.mask == Scan(tmp_path / "labelsTr/BRATS_001.nii.gz")
    assert inventory.not_used == {"imagesTs/BRATS_*_*.nii.gz": 1, "labelsTs/BRATS_*.nii.gz": 1}
    # v1 lists its cases: files of another are in none.
    assert sum(len(stray.files) for stray in inventory.not_understood) == (4 if cases == 1 else 0)


def test_a_list_of_tests_hides_no_folder(tmp_path):
    """An empty path there is the root itself, and would make all of it known."""
    root = raw_folder(tmp_path, v1() | {"test": ["", {"image": "imagesTr", "label": 7}]})
    [stray] = take_inventory(root, "msd").not_understood
    assert len(stray.files) == 4


def test_a_channel_or_a_mask_that_is_missing_is_missing_in_the_case(tmp_path):
    root = raw_folder(tmp_path, V2)
    (root / "imagesTr/BRATS_002_0001.nii.gz").unlink()
    case = take_inventory(root, "msd").cases[1]
    assert set(case.images) == {"t1", "t2", "flair"} and case.mask is None


def test_a_channel_that_has_no_name_is_not_understood(tmp_path):
    root = raw_folder(tmp_path, V2)
    (root / "imagesTr/BRATS_001_0004.nii.gz").touch()
    [stray] = take_inventory(root, "msd").not_understood
    assert "BRATS_001_0004.nii.gz" in str(stray) and "dataset.json" in str(stray)


def test_visits_of_brats_stay_with_their_patient(tmp_path):
    root = raw_folder(tmp_path, V2, names=("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"))
    cases = take_inventory(root, "msd").cases
    assert [(case.patient, case.visit) for case in cases] == [("BraTS-GLI-00005", "100"), ("BraTS-GLI-00005", "101")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_ending": ".nrrd"}, "file_ending=.nrrd: is not read; convert"),
        ({"channel_names": {}}, "which modalities?"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, change, words):
    listing = V2 | change
    with pytest.raises(DataError) as caught:
        take_inventory(raw_folder(tmp_path, listing, ending=listing["file_ending"]), "msd")
    assert "dataset.json" in str(caught.value) and words in str(caught.value)
