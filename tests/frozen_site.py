"""A site whose cohort is frozen, and what is done to it."""

from pathlib import Path

import pytest

from gliofed.client.doctor.examine import examine
from gliofed.client.doctor.manifest import admit, freeze
from gliofed.shared.config import DataConfig
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import DataError
from gliofed.shared.site_config import SiteConfig

DATA = DataConfig(
    modalities=("flair", "t1", "t1ce", "t2"),
    regions=("et", "tc", "wt"),
    window=1,
    spacing=None,
    patch=(16, 16, 16),
    validation=0.3,
    split_seed=0,
)


def scan(site: SiteConfig, place: int, end: str = "_t1.nii.gz") -> Path:
    return sorted(Path(site.root).glob(f"*/*{end}"))[place]


def changed(site: SiteConfig) -> str:
    with pytest.raises(DataError) as caught:
        admit(site, DATA, "segmentation")
    assert caught.value.code == "changed_file"
    return str(caught.value)


def frozen_anew(site: SiteConfig) -> SiteConfig:
    """Do what the hospital's command does."""
    cases = find_cases(Path(site.root), site.labels)
    freeze(site, cases, examine(cases, site.check, 1, draw=False))
    return site
