"""A server asks for the same data in many ways: what is frozen stays frozen, and few ways are answered."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from asked_site import ask, events_of

from gliofed.client.round.policy import data_reading
from gliofed.shared.config import RunConfig
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.mock import MockConfig, write_mock

Config = Callable[..., RunConfig]
SERIES = ("model=clstm_unet3d", "data.window=2")


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    """Three patients of two visits each."""
    write_mock(MockConfig(patients=3, visits=2, size=(16, 16, 16), radius_max=6), tmp_path / "scans", 1)
    root, work = str(tmp_path / "scans"), str(tmp_path / "work")
    return SiteConfig(name="a", root=root, labels="mock", work=work, device="cpu")


READINGS = {
    "the same": (),
    "split": ("data.split_seed=7",),
    "test": ("data.test=0",),
    "task": ("task=grading", "model=cnn_lstm"),
    "modalities": ("data.modalities=[t2]",),
    "missing": ("data.missing=mask",),
    "regions": ("data.regions=[et]",),
    "spacing": ("data.spacing=[2,1,1]",),
    "block": ("task=grading", "model=cnn_lstm", "data.patch=[16,16,16]"),
    "window": ("model=clstm_unet3d", "data.window=9"),
}


def test_a_scan_that_changed_stops_the_site_however_it_is_asked(site: SiteConfig, run_config: Config) -> None:
    site = replace(site, policy=PolicyConfig(max_readings=len(READINGS)))
    assert ask(site, run_config()).code == "ok"
    scan = next(Path(site.root).rglob("*t1*.nii*"))
    scan.write_bytes(scan.read_bytes()[:-50])
    log = Path(site.work) / "site.log"
    for overrides in READINGS.values():
        before = len(log.read_text()) if log.exists() else 0
        reply = ask(site, run_config(*overrides))
        assert (reply.status, reply.code, reply.patients, reply.left_out) == ("declined", "changed_file", 0, {})
        assert f"{scan}: changed since the cohort was frozen" in log.read_text()[before:]


def test_so_many_readings_and_no_more(site: SiteConfig, run_config: Config) -> None:
    """Also of those that were answered by what the data lacks: a server learns from these as well."""
    series = [run_config("model=clstm_unet3d", f"data.window={window}") for window in (2, 9, 3)]
    assert [ask(site, run).code for run in (run_config(), *series)] == ["ok", "ok", "no_series", "readings"]
    others = [run_config("data.split_seed=1"), run_config("data.modalities=[t2]"), series[2]]
    assert [(reply.code, reply.patients, reply.left_out) for reply in (ask(site, run) for run in others)] == [
        ("readings", 0, {})
    ] * 3  # whatever the data would have said
    assert [ask(site, run, kind).code for run in (run_config(), series[1]) for kind in ("query", "evaluate")] == [
        "ok", "ok", "no_series", "no_series",
    ]  # fmt: skip
    assert [event["reading"]["window"] for event in events_of(site) if "reading" in event] == [None, 2, 9]
    assert "3 readings of the data were answered: policy.max_readings=3" in (Path(site.work) / "site.log").read_text()
    more = replace(site, policy=PolicyConfig(max_readings=4))
    assert ask(more, series[2]).code == "no_series"


def test_what_is_no_other_reading(run_config: Config) -> None:
    """Models, steps and augmentation change nothing of who can be used; nor does a window where visits are read."""
    same = data_reading(run_config("data.regions=[et,wt]", "data.window=1"))
    for overrides in (("data.regions=[wt,et]",), ("model=lstm_unet",), ("train.steps=9",), ("data.window=5",)):
        assert data_reading(run_config("data.regions=[et,wt]", *overrides)) == same
    different = [data_reading(run_config(*overrides)) for overrides in READINGS.values()]
    assert all(different.count(each) == 1 for each in different)


@pytest.mark.parametrize(("mechanism", "code"), [("none", "too_fine"), ("dp_sgd", "undisclosed")])
def test_a_spacing_too_fine_for_the_hospital(
    site: SiteConfig, run_config: Config, mechanism: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one voxel, found in the frozen grids: no scan is read, and nothing enters the cache."""
    run = run_config("data.spacing=[0.5,1,1]", f"privacy={mechanism}")
    as_large = replace(site, policy=PolicyConfig(max_scan_voxels=32 * 16 * 16))
    assert ask(as_large, run_config("data.spacing=2")).code == "ok"
    cached = set((Path(site.work) / "cache").rglob("*"))
    with monkeypatch.context() as unread:
        unread.setattr("gliofed.shared.data.prepare.read_volume", lambda _: pytest.fail("a scan was read"))
        assert ask(replace(site, policy=PolicyConfig(max_scan_voxels=32 * 16 * 16 - 1)), run).code == code
    assert set((Path(site.work) / "cache").rglob("*")) == cached
    log = (Path(site.work) / "site.log").read_text()
    assert "data.spacing=(0.5, 1.0, 1.0): " in log and "32x16x16 voxels, policy.max_scan_voxels allows 8191" in log
    assert ask(as_large, run).code == "ok"


def test_a_policy_that_declines_costs_no_reading(site: SiteConfig, run_config: Config) -> None:
    strict = replace(site, policy=PolicyConfig(models=("clstm_unet3d",)))
    for seed in range(5):
        assert ask(strict, run_config(f"data.split_seed={seed}")).code == "policy"
    assert ask(strict, run_config(*SERIES)).code == "ok"
