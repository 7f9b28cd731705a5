"""One file and one case, as damaged and as odd as they come."""

import gzip
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliofed.client.doctor.findings import ERRORS, WARNINGS, Facts
from gliofed.client.doctor.inspection import inspect
from gliofed.client.doctor.judgement import CaseReport, judge
from gliofed.client.doctor.reading import read_file
from gliofed.shared.data.cases import Case
from gliofed.shared.data.volume import DataError, Scan, read_volume
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import TASKS
from gliofed.simulation.brain import TEMPLATE_FILE

RULES = CheckConfig()
ANATOMY = np.random.default_rng(0).integers(1, 100, (8, 9, 10)).astype(np.int16)
ANATOMY[:, :4] = 0  # as skull stripping leaves it
TEN_MM = np.diag([5.0, 5.0, 5.0, 1.0])


def content_of(array: np.ndarray, affine: np.ndarray = TEN_MM) -> bytes:
    return nib.Nifti1Image(array, affine).to_bytes()


def look(images: dict[str, Scan], mask: Scan | None = None, rules: CheckConfig = RULES) -> CaseReport:
    """Judge for segmentation where there is a mask, else for grading."""
    case = Case("p", "000", images, mask, "HGG", "brats2020")
    inspected = [inspect(case, rules)]
    return judge([case], inspected, rules, list(images), TASKS["segmentation" if mask else "grading"])[0]


def facts(images: dict[str, Scan]) -> Facts:
    return inspect(Case("p", "000", images, None, "HGG", "brats2020"), RULES).facts


def codes(report: CaseReport) -> list[str]:
    return [finding.code for finding in report.findings]


def code_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    state, fault = read_file(path)
    assert state is not None and state.size == len(content)
    assert isinstance(fault, DataError) and path.name in str(fault)
    return fault.code


def test_what_a_file_is_not(tmp_path: Path) -> None:
    whole = content_of(ANATOMY)
    assert code_of(tmp_path / "a.nii", gzip.compress(whole)) == "wrong_format"
    assert code_of(tmp_path / "a.nii", b"DICM" * 200) == "wrong_format"
    assert code_of(tmp_path / "a.nii", whole[:344] + b"ni1\0" + whole[348:]) == "wrong_format"  # the half of a pair
    assert code_of(tmp_path / "a.nii.gz", gzip.compress(b"a page of a web site")) == "wrong_format"
    page = read_file(tmp_path / "a.nii.gz")[1]
    assert "starts with" in str(page)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"<html>Sign in</html>"))
    assert "is a web page" in str(read_file(tmp_path / "a.nii.gz")[1])
    assert code_of(tmp_path / "a.nii.gz", gzip.compress(b"")) == "empty_file"
    assert code_of(tmp_path / "a.nii.gz", gzip.compress(whole) + b"more") == "unreadable"
    assert code_of(tmp_path / "a.nii.gz", gzip.compress(whole[:-10])) == "truncated"
    assert code_of(tmp_path / "a.nii", whole[:100]) == "truncated"
    assert read_file(tmp_path / "none.nii")[0] is None


@pytest.mark.parametrize("name", ["t1.nii", "t1.nii.gz"])
@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/MD5E-s9--0.nii.gz\n", "git annex get"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'{"error": "401"}', "JSON"),
        (b"PK\x03\x04rest", "unpack"),
        (b"NRRD0005\n", "convert it to NIfTI"),
    ],
)
def test_what_lies_in_a_scans_place_is_named(tmp_path: Path, name: str, content: bytes, cure: str) -> None:
    """To gzip it, or to copy it again, would not help. The check and training say the same."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as read:
        read_volume(Scan(path))
    for error in (read.value, read_file(path)[1]):
        assert error.code == "wrong_format" and cure in str(error) and name in str(error)


def test_a_header_that_claims_terabytes_takes_no_memory(tmp_path: Path) -> None:
    header = bytearray(content_of(ANATOMY))
    header[42:48] = np.array([30000] * 3, "<i2").tobytes()  # dim[1] to dim[3]
    path = tmp_path / "huge.nii.gz"
    path.write_bytes(gzip.compress(header))
    assert codes(look({"t1": Scan(path)})) == ["truncated"]


def test_a_digest_is_of_the_voxels(tmp_path: Path) -> None:
    """Type, byte order, compression, axes and the sign of zero are not what tells two scans apart."""
    flipped = TEN_MM @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 5 * 7
    zeros = np.where(ANATOMY == 0, -0.0, ANATOMY).astype(np.float32)
    forms = {
        "a.nii": content_of(ANATOMY),
        "b.nii": content_of(zeros),
        "c.nii.gz": gzip.compress(nib.Nifti2Image(ANATOMY.astype(">f8"), TEN_MM).to_bytes()),
        "d.nii": content_of(ANATOMY[::-1], flipped),
    }
    digests = set()
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        digests.add(facts({"t1": Scan(tmp_path / name)}).images["t1"].digest)
    assert len(digests) == 1
    (tmp_path / "e.nii").write_bytes(content_of(ANATOMY + np.int16(1)))
    assert facts({"t1": Scan(tmp_path / "e.nii")}).images["t1"].digest not in digests


def test_facts_are_numbers_whatever_the_voxels(tmp_path: Path) -> None:
    """They are kept as JSON: one image must not keep its site from freezing the cohort."""
    array = np.where(ANATOMY % 2, np.float32(3e38), np.float32(-3e38))
    array[:, :4] = 0
    (tmp_path / "a.nii").write_bytes(content_of(array))
    found = facts({"t1": Scan(tmp_path / "a.nii")}).images["t1"]
    assert np.isfinite([found.spread, found.brain, found.zeros]).all()


def test_the_scan_that_lies_apart_from_most_is_named(tmp_path: Path) -> None:
    """Also where it is the first, which the others could be measured by."""
    moved = TEN_MM.copy()
    moved[0, 3] = 40
    for name, affine in (("flair", moved), ("t1", TEN_MM), ("t1ce", TEN_MM)):
        (tmp_path / f"{name}.nii").write_bytes(content_of(ANATOMY * np.int16(len(name)), affine))
    found = look({name: Scan(tmp_path / f"{name}.nii") for name in ("flair", "t1", "t1ce")}).findings
    assert [(each.code, each.file) for each in found if each.code == "affine_mismatch"] == [
        ("affine_mismatch", str(tmp_path / "flair.nii"))
    ]


def test_a_4d_file_is_read_once_and_its_channels_are_looked_at(tmp_path: Path) -> None:
    """As MSD keeps the modalities of a case."""
    path = tmp_path / "BRATS_001.nii.gz"
    path.write_bytes(gzip.compress(content_of(np.stack([ANATOMY, ANATOMY * np.int16(2), ANATOMY], axis=3))))
    images = {"flair": Scan(path, 0), "t1": Scan(path, 1), "t2": Scan(path, 2), "t1ce": Scan(path, 3)}
    found = look(images)
    assert len(facts(images).files) == 1
    assert codes(found) == ["not_3d", "same_image_twice"]
    assert "channel 3" in found.findings[0].message and "channel 2" in found.findings[1].message


REAL = {
    "anatomical.nii": {"not_skull_stripped"},
    "functional.nii": {"not_3d"},
    "example4d.nii.gz": {"not_3d"},
    "resampled_anat_moved.nii": {"size"},  # 3 slices
}


@pytest.mark.parametrize("name", REAL)
def test_real_images_of_nibabel(name: str) -> None:
    path = Path(nib.__file__).parent / "tests" / "data" / name
    assert set(codes(look({"t1": Scan(path)}))) == REAL[name]


def test_a_real_image_with_nan_where_few_slices_are_allowed() -> None:
    path = Path(nib.__file__).parent / "tests" / "data" / "resampled_anat_moved.nii"
    (found,) = look({"t1": Scan(path)}, rules=CheckConfig(size=(1, 1024))).findings
    assert found.code == "non_finite" and found.picture


def test_the_mni_template() -> None:
    """T1, grey and white matter of half a head, skull-stripped, as the phantoms keep it: 1 mm, a 4D file."""
    scans = {name: Scan(TEMPLATE_FILE, channel) for channel, name in enumerate(("t1", "t1ce", "t2"))}
    assert codes(look(scans)) == []
    assert facts(scans).images["t1"].brain == pytest.approx(950, rel=0.1)  # the whole has about 1900 cm3


def nonsense(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    changes = st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=12)
    kinds = st.tuples(st.booleans(), st.booleans(), st.booleans())

    def both(test: Callable[..., None]) -> Callable[..., None]:
        fast = settings(max_examples=examples, deadline=None, derandomize=True, database=None)
        return fast(given(changes, kinds)(test))

    return both


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz")
    (path / "good.nii").write_bytes(content_of(ANATOMY))
    return path


def survive(folder: Path, changes: list[tuple[int, int]], kinds: tuple[bool, bool, bool]) -> None:
    """A header with some bytes changed, in an image or a mask: nothing comes out but findings."""
    zipped, two, as_mask = kinds
    image = (nib.Nifti2Image if two else nib.Nifti1Image)(ANATOMY, TEN_MM)
    content = bytearray(image.to_bytes() + bytes(20_000))  # so that larger types have bytes to be read from
    for place, value in changes:
        content[place] = value
    path = folder / ("fuzz.nii.gz" if zipped else "fuzz.nii")
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    good = Scan(folder / "good.nii")
    found = look({"t1": good}, Scan(path)) if as_mask else look({"t1": Scan(path)})
    json.dumps(asdict(facts({"t1": Scan(path)})), allow_nan=False, default=str)
    assert set(codes(found)) <= {*ERRORS, *WARNINGS}


@pytest.mark.slow
@nonsense(100)
def test_a_damaged_header_gives_findings(
    folder: Path, changes: list[tuple[int, int]], kinds: tuple[bool, bool, bool]
) -> None:
    survive(folder, changes, kinds)


@pytest.mark.slow
@nonsense(2500)
def test_thousands_of_damaged_headers_give_findings(
    folder: Path, changes: list[tuple[int, int]], kinds: tuple[bool, bool, bool]
) -> None:
    survive(folder, changes, kinds)
