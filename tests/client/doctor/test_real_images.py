"""Real heads from public packages go through the check; .ci/run fetches them, for they are not ours to carry.

GLIOFED_REAL_IMAGES names a folder with the contents of nilearn's wheel and of Debian's mricron-data.
"""

import os
import shutil
from pathlib import Path

import pytest

from gliofed.client.doctor.examine import examine
from gliofed.client.doctor.findings import Finding
from gliofed.client.doctor.judgement import judge
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import TASKS

REAL = os.environ.get("GLIOFED_REAL_IMAGES")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REAL is None, reason="GLIOFED_REAL_IMAGES is not set: no real heads"),
]

EXPECTED = {
    "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz": set(),  # 79% of its voxels are zero
    "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz": set(),
    "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz": set(),
    "ch2.nii.gz": {"not_skull_stripped"},
    "ch2bet.nii.gz": set(),
}
"""File -> what a grading site should be told of it."""


def found_in(root: Path, task: str) -> list[Finding]:
    cases, rules = find_cases(root, "brats2020"), CheckConfig()
    (report,) = judge(cases, examine(cases, rules, 1), rules, ("t1",), TASKS[task])
    return report.findings


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_head(name: str, tmp_path: Path) -> None:
    (path,) = Path(str(REAL)).rglob(name)
    shutil.copy(path, tmp_path / "scan.nii.gz")
    (tmp_path / "cases.csv").write_text("patient,t1,grade\nA,scan.nii.gz,HGG\n")
    assert {finding.code for finding in found_in(tmp_path, "grading")} == EXPECTED[name]


def test_an_atlas_is_no_mask(tmp_path: Path) -> None:
    """117 labels, of which the scheme knows three."""
    for name, found in (("scan", "ch2bet.nii.gz"), ("mask", "aal.nii.gz")):
        (path,) = Path(str(REAL)).rglob(found)
        shutil.copy(path, tmp_path / f"{name}.nii.gz")
    (tmp_path / "cases.csv").write_text("patient,t1,mask\nA,scan.nii.gz,mask.nii.gz\n")
    assert "label_values" in {finding.code for finding in found_in(tmp_path, "segmentation")}
