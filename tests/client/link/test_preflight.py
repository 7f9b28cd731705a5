"""Before a SuperNode is started: each fault is a sentence with its cure, and all of them come at once."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat
from small_federation import rewrite

import gliofed.client.link.preflight
import gliofed.client.link.reach
from gliofed.client.doctor.consent import add_withdrawn
from gliofed.client.doctor.findings import Facts, Fault
from gliofed.client.doctor.manifest import VERSION, Entry, Manifest, write_manifest
from gliofed.client.link.preflight import preflight
from gliofed.client.link.site_file import own_folder
from gliofed.server.provisioning.certificates import make_authority
from gliofed.server.provisioning.kit_texts import site_yaml
from gliofed.shared.data.cases import Case
from gliofed.shared.data.layouts import Inventory, take_inventory
from gliofed.shared.data.volume import Scan
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.keys import certificate_sha256, new_key, private_bytes, public_line, write_secret
from gliofed.shared.kit import Kit
from gliofed.shared.parse import ConfigError

NOW = datetime.now(UTC)
CODE = "a" * 64
EMPTY = "gliofed-client check data.root="


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hospital's folder without a fault; PyTorch is not loaded, and the server is not there."""
    authority = make_authority(tmp_path / "made", "study", NOW)
    place = tmp_path / "a"
    place.mkdir()
    sha256 = certificate_sha256(authority.certificate)
    kit = Kit(federation="study", site="a", address="127.0.0.1:1", ca_sha256=sha256, code_sha256=CODE, made="now")
    write_json(place / "kit.json", kit.__dict__)
    write_bytes(place / "ca.crt", (tmp_path / "made/ca/ca.crt").read_bytes())
    key = new_key()
    write_secret(place / "site.key", private_bytes(key, PrivateFormat.OpenSSH))
    (place / "site.key.pub").write_text(public_line(key.public_key()) + " a@study\n")
    write_json(place / "approved.json", [{"sha256": CODE, "time": "now", "files": 1}])
    (place / "site.yaml").write_text(
        site_yaml("a").replace("root: ???", "root: scans").replace("labels: ???", "labels: mock")
    )
    case = place / "scans/patient-001/visit-1"
    cases = [SimpleNamespace(patient=f"p{number}") for number in range(5)]
    monkeypatch.setattr(
        "gliofed.shared.data.dataset.take_inventory", lambda root, labels: Inventory(cases, [], False, Counter())
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, b"", b""))
    case.mkdir(parents=True)
    return place


def test_a_hospital_without_fault(folder: Path) -> None:
    """It says what comes later than it should: the check of all scans, with its command."""
    found = preflight(folder)
    assert found.faults == [] and [EMPTY in each for each in found.warnings] == [True, False]
    assert "nothing answers" in found.warnings[1]


def test_fewer_patients_than_the_policy_asks_for(folder: Path) -> None:
    """Else the hospital would find it out from the first request."""
    settings("min_patients: 5", "min_patients: 6")(folder)
    found = preflight(folder)
    assert found.faults == []
    assert found.warnings[0].startswith(f"{folder}/site.yaml: policy.min_patients=6: {folder}/scans has 5, so every")


def test_who_withdrew_is_counted(folder: Path) -> None:
    """In numbers, without a name; who stays may be fewer than the policy asks for."""
    add_withdrawn(folder / "work", "p3")
    settings("min_patients: 5", "min_patients: 4")(folder)
    found = preflight(folder)
    assert found.faults == [] and found.warnings[0] == f"{folder}/work: patients who withdrew consent, and stay out: 1"
    settings("min_patients: 4", "min_patients: 5")(folder)
    assert f"policy.min_patients=5: {folder}/scans has 4, so every" in preflight(folder).warnings[1]
    assert not [each for each in preflight(folder).warnings if "p3" in each]


def other_key(folder: Path) -> None:
    (folder / "site.key.pub").write_text(public_line(new_key().public_key()) + "\n")


def other_authority(folder: Path) -> None:
    make_authority(folder / "other", "study", NOW)
    (folder / "ca.crt").write_bytes((folder / "other/ca/ca.crt").read_bytes())


def settings(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "site.yaml").write_text((folder / "site.yaml").read_text().replace(old, new))


FAULTS: dict[str, Callable[[Path], object]] = {
    "ca.crt: not the certificate that kit.json names": other_authority,
    "ca.crt: missing; take it from the kit": lambda folder: (folder / "ca.crt").unlink(),
    "kit.json: federation: missing": lambda folder: (folder / "kit.json").write_text("{}"),
    "site.key: missing; restore it": lambda folder: (folder / "site.key").unlink(),
    "site.key: mode 644, so others may read it": lambda folder: (folder / "site.key").chmod(0o644),
    "site.key: no private key": lambda folder: (folder / "site.key").write_text("x"),
    "site.key: does not belong to site.key.pub": other_key,
    "site.key.pub: missing": lambda folder: (folder / "site.key.pub").unlink(),
    "no code is approved; read and approve it": lambda folder: (folder / "approved.json").unlink(),
    "approved.json: ": lambda folder: (folder / "approved.json").write_text("[1]"),
    "site.yaml: root: still ???": settings("root: scans", "root: ???"),
    "name=b: this hospital joined as a": settings('name: "a"', 'name: "b"'),
    "labels=brats: unknown scheme": settings("labels: mock", "labels: brats"),
    "consent.json: cannot be read, so it is not known who withdrew": lambda folder: write_bytes(
        folder / "work/consent.json", b"{"
    ),
    "work=": lambda folder: (folder / "work").write_text("a file"),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_each_fault(folder: Path, sentence: str) -> None:
    FAULTS[sentence](folder)
    found = preflight(folder)
    assert [sentence in fault for fault in found.faults] == [True], found.faults


def test_all_at_once(folder: Path) -> None:
    """A person who mends one fault a day gives up."""
    sentences = [
        "kit.json: federation: missing",
        "site.key: mode 644, so others may read it",
        "no code is approved; read and approve it",
        "labels=brats: unknown scheme",
        "work=",
    ]
    for sentence in sentences:
        FAULTS[sentence](folder)
    assert all(any(sentence in fault for fault in preflight(folder).faults) for sentence in sentences)


def test_a_setting_hides_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of site.yaml too, with the whole path; a wrong scheme of masks must not hide that the folder is not there."""
    done = subprocess.CompletedProcess([], 0, b"noise\nfault: device=cuda:9: none\n", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr("gliofed.shared.data.dataset.take_inventory", take_inventory)
    FAULTS["labels=brats: unknown scheme"](folder)
    (folder / "approved.json").unlink()
    (folder / "scans").rename(folder / "elsewhere")
    path = folder / "site.yaml"
    starts = [f"{folder}: no code", f"{path}: labels=brats", f"{path}: root={folder}/scans: no such", f"{path}: device"]
    for faults in (starts, [starts[0], starts[1], f"{path}: root: still ???"]):
        found = preflight(folder).faults
        assert [fault.startswith(start) for fault, start in zip(found, faults, strict=True)] == [True] * len(faults)
        settings("root: scans", "root: ???")(folder)


def test_what_only_pytorch_and_the_models_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt model would decline every run without a word."""
    monkeypatch.setattr(sys, "argv", ["-c", "cuda:99", "unet", "unett"])
    exec(gliofed.client.link.preflight.LOADS, {})
    model, device = capsys.readouterr().out.splitlines()
    assert model.startswith("fault: policy.models=unett: unknown model; known are unet, lstm_unet")
    assert device.startswith("fault: device=cuda:99: this machine has")
    monkeypatch.setattr("gliofed.shared.flower.TESTED", "1.0.0")
    monkeypatch.setitem(sys.modules, "gliofed.client.link.supernode", None)  # another Flower may lack what it imports
    with pytest.raises(SystemExit, match=r"approval of code is known to hold with 1\.0\.0"):
        exec(gliofed.client.link.preflight.LOADS, {})


def test_the_models_that_are_allowed_are_asked_about(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **given: asked.append(command) or run(command, **given))
    settings("models: null", "models: [unet, unett]")(folder)
    assert preflight(folder).faults == [] and asked[0][-3:] == ["auto", "unet", "unett"]


@pytest.mark.parametrize(("key", "known"), [("tasks", "grading"), ("codecs", "int8"), ("mechanisms", "dp_sgd")])
def test_other_names_of_a_policy(folder: Path, key: str, known: str) -> None:
    settings(f"{key}: null", f"{key}: [nonsense]")(folder)
    (fault,) = preflight(folder).faults
    assert fault.startswith(f"{folder / 'site.yaml'}: policy.{key}.0=nonsense: ") and known in fault


def test_no_cases(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliofed.shared.data.dataset.take_inventory", take_inventory)
    assert len(preflight(folder).faults) == 1 and "scans" in preflight(folder).faults[0]


def test_folders_that_are_in_no_case_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their patients are not trained on; no name is shown where the federation's own log may be read."""
    monkeypatch.setattr("gliofed.shared.data.dataset.take_inventory", take_inventory)
    for name in ("B_1/B_1_t1.nii.gz", "renamed/B_2_t1.nii.gz"):
        (folder / "scans" / name).parent.mkdir(parents=True)
        (folder / "scans" / name).touch()
    shutil.rmtree(folder / "scans/patient-001")
    [warning] = [each for each in preflight(folder).warnings if "not understood" in each]
    assert "1 folder with 1 image file," in warning and "gliofed-client check" in warning and "renamed" not in warning


def freeze_cases(work: Path, count: int, facts: Facts | None = None, spacing: float = 0.2) -> None:
    settings = {"root": f"{work.parent}/scans", "labels": "mock", "spacing": [spacing, 10.0], "size": [8, 1024]}
    mask = Scan(work / "mask.nii.gz") if facts else None
    cases = [Entry(Case(f"P{number}", "000", {}, mask, None, "mock"), facts or Facts()) for number in range(count)]
    write_manifest(work, Manifest(version=VERSION, settings=settings, everybody=True, tables=[], entries=cases))


def test_many_cases_that_are_left_out_are_a_warning(folder: Path) -> None:
    """Before anything runs: the site would train with the few that are left."""
    freeze_cases(folder / "work", 6, Facts(faults=[Fault(("mask",), "label_values", "P0: value 4", None)]))
    warning = next(each for each in preflight(folder).warnings if "left out" in each)
    assert "6 of 6 cases are left out of segmentation (6 label_values)" in warning and "P0" not in warning


def test_a_cohort_of_an_earlier_version_is_a_fault(folder: Path) -> None:
    """No request would be answered."""
    write_json(folder / "work/cohort/0123.json", {"version": 1, "tables": {}, "cases": []})
    assert [
        fault for fault in preflight(folder).faults if "earlier version" in fault and "gliofed-client check" in fault
    ]
    freeze_cases(folder / "work", 2)
    assert not [fault for fault in preflight(folder).faults if "earlier version" in fault]


def test_a_cohort_that_does_not_fit_is_a_fault(folder: Path) -> None:
    """Every request would be declined; the command is said."""
    freeze_cases(folder / "work", 5, spacing=0.3)
    (fault,) = preflight(folder).faults
    assert "site.yaml has spacing=[0.2, 10.0], and [0.3, 10.0] was frozen" in fault and f"{EMPTY}{folder}" in fault


def test_the_room_that_a_cohort_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is prepared already needs none, and a disk that is nearly full is a fault before any cohort."""
    freeze_cases(folder / "work", 50)
    for free, prepared, faults in ((4.9e9, 0, 1), (5.1e9, 0, 0), (2e9, 30, 0), (0.9e9, 50, 1)):
        for number in range(prepared):
            (folder / f"work/cache/{number}").mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(
            gliofed.client.link.preflight.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free)
        )
        found = preflight(folder)
        assert len(found.faults) == faults and not any(EMPTY in each for each in found.warnings)
    assert "0.9 GB free, 1.0 GB needed" in found.faults[0]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("Traceback\nOSError: libcudart.so: cannot open", "cannot be loaded (OSError: libcudart.so"),
        ("", "cannot be loaded (status -11)"),
    ],
)
def test_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch, error: str, sentence: str) -> None:
    done = subprocess.CompletedProcess([], -11, b"", error.encode())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    (fault,) = preflight(folder).faults
    assert sentence in fault


def test_where_code_is_unpacked(folder: Path) -> None:
    (folder / "flower").write_text("in the way")
    assert [fault for fault in preflight(folder).faults if "flower/tmp: " in fault]


def test_no_hospital(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no hospital's folder"):
        own_folder(tmp_path)
    rewrite(folder / "kit.json", address="nowhere")
    assert "address=nowhere" in preflight(folder).faults[0]
    assert json.loads((folder / "kit.json").read_text())["site"] == "a"
