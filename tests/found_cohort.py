"""A cohort of all cases that are found at a site."""

from gliofed.shared.config import DataConfig
from gliofed.shared.data.dataset import Cohort, Reading, open_cohort, site_inventory
from gliofed.shared.site_config import SiteConfig


def found_cohort(site: SiteConfig, data: DataConfig, reading: Reading) -> Cohort:
    return open_cohort(site, data, reading, site_inventory(site).cases)
