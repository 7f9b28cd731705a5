"""A site that trained, from which a patient withdraws."""

import shutil
from pathlib import Path

import pytest
from asked_site import ask
from withdrawal import OTHERS, WHO, config, frozen

from gliofed.shared.files import write_json
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.mock import MockConfig, write_mock


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of three patients, and the work folder of a site that trained one round with all of them."""
    folder = tmp_path_factory.mktemp("begun")
    write_mock(MockConfig(patients=3, size=(16, 16, 16), radius_max=6), folder / "scans", 1)
    site = SiteConfig(name="a", root=str(folder / "scans"), labels="mock", work=str(folder / "work"), device="cpu")
    assert ask(site, config(), "train").patients == 3
    return folder


@pytest.fixture
def site(begun: Path, tmp_path: Path) -> SiteConfig:
    """The site, with traces of the patient that killed programs and people left."""
    shutil.copytree(begun / "work", tmp_path / "work")
    work = tmp_path / "work"
    assert {entry.case.patient for entry in frozen(work)} == {WHO, *OTHERS}
    with (work / "site.log").open("a") as log:
        log.write(f"2027-01-01 WARNING left out (truncated): /scans/{WHO}-000/{WHO}-000-t1n.nii.gz: and {WHO}9\n")
    shutil.copy(work / "site.log", work / "site.old.log")
    write_json(work / "cache" / ".half-x" / "entry.json", {"of": {"visits": [{"patient": WHO}]}})
    (work / "cohort" / ".manifest.json.0123.tmp").write_text(WHO)
    (work / "outbox" / ".r.safetensors.0123.tmp").write_bytes(b"half")
    (work / "outbox" / "r-0009-0123.safetensors").write_bytes(b"its JSON was not written")
    write_json(work / "reports" / "check.json", {"cases": [{"patient": WHO}]})
    (work / "reports" / "check.html").write_text(f"<h3>{WHO}</h3>")
    return SiteConfig(name="a", root=str(begun / "scans"), labels="mock", work=str(work), device="cpu")
