"""Before a SuperNode is started: everything that can be looked at, and every fault at once, a sentence each."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import gliofed
from gliofed.client.doctor.consent import Consent, read_consent
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.approve import approved
from gliofed.client.link.reach import Findings, reach
from gliofed.client.link.site_file import own_key, read_site
from gliofed.shared.data.labels import LABELS
from gliofed.shared.data.leftovers import counted
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import make_writable
from gliofed.shared.keys import certificate_sha256, public_line, read_authority, read_public
from gliofed.shared.kit import Kit, parse_kit
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import no_proxy_here
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.terminal import UserError, command_line
from gliofed.shared.yaml_file import load_yaml

LEAST_FREE = 10**9
"""Bytes that the work folder's disk must have."""
CASE = 10**8
"""Bytes in the cache for a case: four modalities of 240 x 240 x 155 voxels in fp16, and its mask, are 0.9e8."""
LOADS = """
import sys
from gliofed.shared.flower import other_version
if reason := other_version("approval of code is known to hold"):
    sys.exit(reason)
import gliofed.client.link.supernode
from gliofed.client.round.training import pick_device
from gliofed.shared.models import MODELS
device, *models = sys.argv[1:]
for name in models:
    if name not in MODELS:
        print(f"fault: policy.models={name}: unknown model; known are {', '.join(MODELS)}")
try:
    pick_device(device)
except ValueError as error:
    print(f"fault: {error}")
"""
"""Each line `fault: ` that it prints is one of site.yaml; the words are its device and the models that are allowed."""
T = TypeVar("T")
PATIENCE = 120.0
"""Seconds that loading all of it may take, from a slow disk for the first time."""


def preflight(folder: Path) -> Findings:
    """Look at a hospital's folder, its data, this machine and the server."""
    found = Findings()
    path = HospitalFolder(folder).settings
    kit = tried(lambda: read_own_kit(folder), found)
    tried(lambda: _look_at_key(folder), found)
    tried(lambda: _look_at_approval(folder), found)
    unpacked = HospitalFolder(folder).temporary  # where Flower unpacks code before each request
    tried(lambda: make_writable(unpacked, str(unpacked)), found)
    tried(lambda: _look_at_labels(path), found)
    if site := tried(lambda: read_site(folder), found):
        if kit and site.name != kit.site:
            found.faults.append(f"{path}: name={site.name}: this hospital joined as {kit.site}; write that")
        consent = tried(lambda: _look_at_consent(site, path, found), found)
        tried(lambda: _look_at_data(site, path, consent, found), found)
        tried(lambda: _look_at_work(site, found), found)
        tried(lambda: _look_at_environment(site, path, found), found)
    if kit:
        there = reach(kit.address, HospitalFolder(folder).authority)
        found.faults += there.faults
        found.passing += there.passing
        found.warnings += there.warnings
    return found


def read_own_kit(folder: Path) -> Kit:
    """Read the kit that this hospital joined with, or raise ConfigError where its parts do not fit."""
    path, ca = HospitalFolder(folder).kit, HospitalFolder(folder).authority
    kit, cure = parse_kit(path.read_bytes(), str(path)), "take it from the kit, or restore it from a copy"
    if not ca.is_file():
        raise ConfigError(f"{ca}: missing; {cure}")
    if certificate_sha256(read_authority(ca.read_bytes(), str(ca))) != kit.ca_sha256:
        raise ConfigError(f"{ca}: not the certificate that kit.json names; {cure}")
    return kit


def tried(look: Callable[[], T], found: Findings) -> T | None:
    """What is found, or None and a fault."""
    try:
        return look()
    except UserError as error:
        found.faults.append(str(error))
    except OSError as error:
        about = f"{error.filename}: {error.strerror}; look at the file and its rights"
        found.faults.append(about if error.filename else str(error))
    return None


def _look_at_key(folder: Path) -> None:
    """The private key must be there, be nobody else's to read, and belong to the public one that was admitted."""
    path, public = HospitalFolder(folder).key, HospitalFolder(folder).public_key
    lost = "restore it from a copy, or join again into another folder and tell the aggregator"
    if not path.exists():
        raise ConfigError(f"{path}: missing; {lost}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path}: mode {mode:o}, so others may read it; chmod 600 it if nobody did, or join again")
    key = own_key(folder, lost)
    if not public.is_file():
        raise ConfigError(f"{public}: missing; {lost}")
    line = public.read_text(errors="replace")
    if public_line(read_public(line, str(public))) != public_line(key.public_key()):
        raise ConfigError(f"{path}: does not belong to {public.name}; {lost}")


def _look_at_approval(folder: Path) -> None:
    if not approved(folder):
        approve = command_line("gliofed-client", "approve", folder)
        raise ConfigError(f"{folder}: no code is approved; read and approve it: {approve}")


def _look_at_labels(path: Path) -> None:
    """By themselves: as long as another setting is wrong, there is no SiteConfig."""
    labels: object = None
    with suppress(ConfigError):  # said where all of it is read
        labels = load_yaml(path).get("labels")
    if isinstance(labels, str) and labels not in (*LABELS, "???"):
        raise ConfigError(f"{path}: labels={labels}: unknown scheme; known are {', '.join(LABELS)}")


def _look_at_consent(site: SiteConfig, path: Path, found: Findings) -> Consent:
    """The work folder must be writable, and tell who withdrew."""
    make_writable(Path(site.work), f"{path}: work={site.work}")
    consent = read_consent(Path(site.work))
    if consent.withdrawn:
        found.warnings.append(f"{site.work}: patients who withdrew consent, and stay out: {len(consent.withdrawn)}")
    return consent


def _look_at_data(site: SiteConfig, path: Path, consent: Consent | None, found: Findings) -> None:
    """Find the cohort's cases by their names; gliofed-client check reads them."""
    from gliofed.client.doctor.manifest import consenting_inventory

    if site.labels not in LABELS and Path(site.root).is_dir():
        return  # which is said already
    try:
        inventory = consenting_inventory(site, consent or Consent("", frozenset()))  # what is wrong with it was said
    except DataError as error:
        raise ConfigError(f"{path}: {error}") from None
    patients, least = len({case.patient for case in inventory.cases}), site.policy.min_patients
    if strays := inventory.not_understood:
        sentence = f"not understood: {counted(strays)}, in no case; gliofed-client check names them"
        found.warnings.append(f"{path}: root={site.root}: {sentence}")
    if patients < least:
        sentence = f"{site.root} has {patients}, so every request will be declined"
        found.warnings.append(f"{path}: policy.min_patients={least}: {sentence}")


def _look_at_work(site: SiteConfig, found: Findings) -> None:
    """The work folder must fit site.yaml, and hold what the cohort's cache still needs."""
    work = Path(site.work)
    from gliofed.client.doctor.left_out import left_out_warnings
    from gliofed.client.doctor.manifest import freeze_command, misfit, read_manifest

    manifest = read_manifest(work)
    if manifest is None:
        found.warnings.append(
            f"{work}: no cohort is frozen, so the first request checks all scans, on one core; "
            f"before that: {freeze_command(site)}"
        )
    elif sentence := misfit(site, manifest):
        raise ConfigError(sentence)
    found.warnings += left_out_warnings(site)
    prepared = sum(1 for entry in work.glob("cache/*") if not entry.name.startswith("."))
    needed = max(LEAST_FREE, CASE * ((len(manifest.entries) if manifest else 0) - prepared))
    if (free := shutil.disk_usage(work).free) < needed:
        raise ConfigError(f"{work}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; make room or move work")


def lacking_room(folder: Path, site: SiteConfig) -> str | None:
    """Say where too little room is left for a request; None where there is enough."""
    for place in (folder, Path(site.work)):
        with suppress(OSError):  # it is not there, which is said elsewhere
            if shutil.disk_usage(place).free < LEAST_FREE:
                return f"{place}: less than {LEAST_FREE / 1e9:g} GB is free; make room, since requests may fail"
    return None


def _look_at_environment(site: SiteConfig, path: Path, found: Findings) -> None:
    """Load PyTorch and Flower, know the models, take the device: in a process that a broken library may end."""
    programs = Path(sys.executable).parent
    try:
        command = [sys.executable, "-P", "-c", LOADS, site.device, *(site.policy.models or ())]
        done = subprocess.run(command, capture_output=True, env=environment(), timeout=PATIENCE)  # noqa: S603  # ours
    except subprocess.TimeoutExpired:
        late = f"did not load within {PATIENCE:g} s; look at the disk"
        raise ConfigError(f"{programs}: PyTorch or Flower {late}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"status {done.returncode}"
        raise ConfigError(f"{programs}: PyTorch or Flower cannot be loaded ({why}); install gliofed anew")
    printed = done.stdout.decode(errors="replace").splitlines()
    found.faults += [f"{path}: {line.removeprefix('fault: ')}" for line in printed if line.startswith("fault: ")]


def environment() -> dict[str, str]:
    """What the programs of this hospital are started with: this very code, and no proxy on the way to each other."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return {**own, **no_proxy_here(), "PYTHONPATH": str(Path(gliofed.__file__).parents[1])}
