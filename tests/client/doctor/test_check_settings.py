"""gliofed-client check: what it refuses in one sentence, where it writes, and what a work folder gets."""

import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from checked_folder import check
from frozen_site import DATA
from omegaconf import OmegaConf

import gliofed.configs
import gliofed.shared.data.prepare
from gliofed.client.doctor import check_command, manifest
from gliofed.client.doctor.examine import do_each
from gliofed.shared.data.dataset import open_cohort
from gliofed.shared.progress import Bar
from gliofed.shared.site_config import CheckConfig, SiteConfig

AS_COMPOSED = replace(DATA, window=5, patch=(96, 96, 96), validation=0.2)
"""What the command takes where nobody says otherwise."""

WRONG = [
    ("data.root=.", "data.labels=brats2020", "data.masks=some"),
    ("data.root=none", "data.labels=brats2020"),
    ("data.root=.",),
    ("data.rot=x",),
    ("data.root=.", "data.labels=zzz"),
    ("data.root=.", "data.labels=brats2020", "data.modalities=5"),
    ("data.root=.", "data.labels=brats2020", "data=5"),
    ("data.root=.", "data.labels=brats2020", "check=5"),
    ("data.root=.", "data.labels=brats2020", "check.size=[9,3]"),
    ("data.root=.", "data.labels=brats2020", "task=guessing"),
    ("data.root=.", "data.labels=brats2020", "workers=0"),
]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_mistyped_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra would have the user append it, which ends in the next error."""
    assert check(monkeypatch, "data.rot=x") == 2
    assert "data.rot: no such setting (did you mean data.root?); see" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_refused_before_the_work(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = (f"data.root={cases}", "data.labels=brats2020", f"out={tmp_path / 'file'}")
    assert check(monkeypatch, *words) == 2
    assert "out=" in capsys.readouterr().err


def test_the_yaml_says_the_defaults_of_the_code() -> None:
    """A site's own configuration leaves `check` out and gets what the command checks by."""
    written = OmegaConf.load(Path(gliofed.configs.__path__[0]) / "check.yaml").check
    assert CheckConfig(**{**written, "spacing": tuple(written.spacing), "size": tuple(written.size)}) == CheckConfig()
    assert set(written) == set(asdict(CheckConfig()))


def test_a_work_folder_gets_the_frozen_cohort_and_its_cache(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that the first round does not wait for it: the site's own process finds both there."""
    root, work = tmp_path / "scans", tmp_path / "work"
    shutil.copytree(cases, root)
    next(root.glob("*/*_seg.nii.gz")).write_bytes(b"")

    def as_sent(work: Any, *rest: Any) -> Any:
        return do_each(pickle.loads(pickle.dumps(work)), *rest)

    monkeypatch.setattr(check_command, "do_each", as_sent)  # with more workers it goes to other processes
    words = [f"data.root={root}", "data.labels=brats2020", "data.spacing=null", f"work={work}", f"out={tmp_path / 'o'}"]
    assert check(monkeypatch, *words) == 1
    assert "frozen and prepared: 1 patient to train" in capsys.readouterr().out
    monkeypatch.delattr(manifest, "examine")
    monkeypatch.setattr(gliofed.shared.data.prepare, "read_volume", None)
    site = SiteConfig(name="a", root=str(root), labels="brats2020", work=str(work))
    admitted = manifest.admit(site, AS_COMPOSED, "segmentation")
    assert admitted.left_out == {"empty_file": 1}
    assert len(open_cohort(site, AS_COMPOSED, "visits", admitted.cases).train) == 1


def test_a_stopped_check_gives_its_lock_back_last(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A withdrawal waits for it, and must not find that a process still writes."""
    order = []

    @contextmanager
    def hold_patients(_: Path, **__: object) -> Iterator[None]:
        try:
            yield
        finally:
            order.append("the lock is given back")

    def do_each(*_: object) -> Iterator[tuple[int, None]]:
        try:
            yield 0, None
            yield 1, None
        finally:
            order.append("the processes have ended")

    def interrupt(bar: Bar, *_: object) -> None:
        if bar._what == "preparing":
            raise KeyboardInterrupt

    monkeypatch.setattr(check_command, "hold_patients", hold_patients)
    monkeypatch.setattr(check_command, "do_each", do_each)
    monkeypatch.setattr(Bar, "report", interrupt)
    words = (f"data.root={cases}", "data.labels=brats2020", "data.spacing=null", f"work={tmp_path / 'work'}")
    assert check(monkeypatch, *words, f"out={tmp_path / 'o'}") == 130
    assert order[-2:] == ["the processes have ended", "the lock is given back"]


def test_folders_may_have_signs_that_hydra_knows(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "at home, x=1 ü([#'"
    shutil.copytree(cases, root)
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={tmp_path / 'a,b=c'}") == 0


def test_a_work_folder_that_is_a_file_is_refused_before_the_work(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = (f"data.root={cases}", "data.labels=brats2020", f"work={tmp_path / 'file'}", f"out={tmp_path / 'o'}")
    assert check(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith("gliofed-client: work=")
