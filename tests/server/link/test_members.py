"""Whom the SuperLink lets in; tests/deploy ask a real one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_superlink import SuperLink
from telephone import admit_told

from gliofed.client.link.join import join
from gliofed.server.link.control import ControlError, SilentError, key_bytes
from gliofed.server.link.members import Member, sync_members
from gliofed.server.provisioning.admit import expel
from gliofed.shared.keys import new_key


@dataclass
class Sync:
    """What `start` does again and again, beside a SuperLink that once let in somebody whom nobody admitted."""

    folder: Path
    superlink: SuperLink
    members: dict[str, Member] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __call__(self) -> dict[str, int]:
        control: Any = self.superlink
        self.members, _, self.faults = sync_members(control, self.folder, self.members)
        return {site: member.node for site, member in self.members.items()}


@pytest.fixture
def sync(folder: Path) -> Sync:
    superlink = SuperLink()
    superlink.keys[99] = key_bytes(new_key().public_key())
    return Sync(folder, superlink)


def test_admitted_keys_are_let_in_and_no_others(root: Path, folder: Path, sync: Sync) -> None:
    assert sync() == {}
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    assert sync() == {"hospital-a": 1}
    assert list(sync.superlink.keys) == [1]
    admit_told(root / "hospital-b" / "hospital-b.request.json", folder, patients=40)
    assert sync() == sync() == {"hospital-a": 1, "hospital-b": 2}
    assert [member.patients for member in sync.members.values()] == [100, 40]
    admit_told(root / "hospital-b" / "hospital-b.request.json", folder, patients=50)
    sync()
    assert sync.members["hospital-b"].patients == 50
    expel("hospital-a", folder)
    assert sync() == {"hospital-b": 2}
    assert list(sync.superlink.keys) == [2]


def test_a_replaced_key_is_another_node(root: Path, folder: Path, sync: Sync) -> None:
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    sync()
    join(folder / "kits" / "hospital-a.zip", root / "again", patients=100)
    admit_told(root / "again" / "hospital-a.request.json", folder, replaces=True)
    assert sync() == {"hospital-a": 2}
    assert list(sync.superlink.keys) == [2]


@pytest.mark.parametrize("file", ["site.json", "key.pub"])
def test_a_damaged_record_shuts_nobody_out(root: Path, folder: Path, sync: Sync, file: str) -> None:
    """Until the operator mends it those who are in stay, and other sites enter: it may be the record of any node."""
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    before, record = sync(), folder / "sites" / "hospital-a" / file
    whole = record.read_text()
    record.write_text("{half")
    admit_told(root / "hospital-b" / "hospital-b.request.json", folder)
    sync()
    assert list(sync.superlink.keys) == [1, 2] and sync.members["hospital-b"].node == 2
    assert len(sync.faults) == 1 and str(record) in sync.faults[0]
    record.write_text(whole)
    assert sync() == before | {"hospital-b": 2}


def test_a_damaged_record_keeps_nobody_in_who_was_expelled(root: Path, folder: Path, sync: Sync) -> None:
    """Nor a key that was replaced: whoever found it must be out at once, whatever is wrong with another's record."""
    for site in ("hospital-a", "hospital-b"):
        admit_told(root / site / f"{site}.request.json", folder)
    sync()
    (folder / "sites/hospital-a/site.json").unlink()
    join(folder / "kits" / "hospital-b.zip", root / "again", patients=100)
    admit_told(root / "again" / "hospital-b.request.json", folder, replaces=True)
    sync()
    assert list(sync.superlink.keys) == [1, 3]
    expel("hospital-b", folder)
    assert sync() == {"hospital-a": 1}
    assert list(sync.superlink.keys) == [1]


@pytest.mark.parametrize("away", ["sites/hospital-a/site.json", "sites"])
def test_a_record_that_is_away_while_it_is_restored_shuts_nobody_out(
    root: Path, folder: Path, sync: Sync, away: str
) -> None:
    """Flower never takes a key again that it has shut out: two seconds without the file were for good."""
    for site in ("hospital-a", "hospital-b"):
        admit_told(root / site / f"{site}.request.json", folder)
    before = sync()
    (folder / away).rename(root / "bad")
    sync()
    (root / "bad").rename(folder / away)
    assert sync() == before


def test_whose_record_is_restored_stays_in_the_round(root: Path, folder: Path, sync: Sync) -> None:
    """Else its answer would be refused as that of a site that was expelled."""
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    before = sync()
    (folder / "sites/hospital-a/site.json").rename(root / "bad")
    assert sync() == before and sync.members["hospital-a"].patients == 100
    assert "site.json: missing; restore it from a copy" in sync.faults[0]
    expelled = json.loads((root / "bad").read_text()) | {"expelled": "2026-01-01T00:00:00+00:00"}
    (folder / "sites/hospital-a/site.json").write_text(json.dumps(expelled))
    assert sync() == {} and sync.superlink.keys == {}


def test_a_key_that_flower_does_not_take_keeps_no_other_site_out(
    root: Path, folder: Path, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that it has shut out before, say; that one refusal ended all that `start` looks after."""
    for site in ("hospital-a", "hospital-b"):
        admit_told(root / site / f"{site}.request.json", folder)
    taken = sync.superlink.register

    def register(public_key: bytes, name: str) -> int:
        if name == "hospital-a":
            raise ControlError("Public key already in use")
        return taken(public_key, name)

    monkeypatch.setattr(sync.superlink, "register", register)
    assert sync() == {"hospital-b": 1}
    (fault,) = sync.faults
    assert "hospital-a" in fault and "already in use" in fault and "remove link/state.db" in fault


def test_a_superlink_that_falls_silent_is_no_fault_of_a_site(root: Path, folder: Path, sync: Sync) -> None:
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)

    def register(public_key: bytes, name: str) -> int:
        raise SilentError("Connection refused")

    sync.superlink.register = register  # type: ignore[method-assign]
    with pytest.raises(SilentError):
        sync()
