"""When so many cases stay out that start and status say so."""

from dataclasses import replace

from frozen_site import frozen_anew, scan

from gliofed.client.doctor.left_out import left_out_warnings
from gliofed.shared.site_config import PolicyConfig, SiteConfig


def test_nothing_is_said_of_a_sound_cohort_or_none(site: SiteConfig) -> None:
    assert left_out_warnings(site) == []
    assert left_out_warnings(frozen_anew(site)) == []


def test_a_wrong_label_scheme_is_counted_without_names(site: SiteConfig) -> None:
    """The site trains with whoever is left, and nobody knew."""
    (warning,) = left_out_warnings(frozen_anew(replace(site, labels="brats2023")))
    assert warning.startswith(f"{site.work}: 3 of 3 cases are left out of segmentation (3 label_values)")
    assert scan(site, 0).parent.name not in warning


def test_what_only_a_prediction_needs_is_not_counted(site: SiteConfig) -> None:
    """A site is asked to train; a case without an image is missed there alone."""
    scan(site, 0).unlink()
    (warning,) = left_out_warnings(frozen_anew(site))
    assert "1 of 3 cases is left out of segmentation (1 missing_modality)" in warning


def test_only_what_the_site_may_be_asked_for_is_missed(site: SiteConfig) -> None:
    """A site without masks grades, and one without T1 has no runs that need it."""
    for _ in range(2):
        scan(site, 0, "_seg.nii.gz").unlink()
    (warning,) = left_out_warnings(frozen_anew(site))
    assert "2 of 3 cases are left out of segmentation (2 missing_mask)" in warning
    assert left_out_warnings(replace(site, policy=PolicyConfig(tasks=("grading",)))) == []
    scan(site, 0, "_seg.nii.gz").unlink()
    for _ in range(3):
        scan(site, 0).unlink()
    assert left_out_warnings(frozen_anew(site)) == []
