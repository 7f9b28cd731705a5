"""Whom the SuperLink lets in; tests/deploy ask a real one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_superlink import SuperLink
from telephone import admit_told

from client.link.join import join
from server.link.control import key_bytes
from server.link.members import tend_members
from server.provisioning.admit import expel
from shared.keys import new_key, read_public
from shared.parse import ConfigError


@pytest.fixture
def tend(folder: Path) -> Callable[[], dict[str, int]]:
    superlink = SuperLink()
    superlink.keys[99] = key_bytes(new_key().public_key())  # of somebody whom nobody admitted

    def once() -> dict[str, int]:
        members, _ = tend_members(superlink, folder)  # type: ignore[arg-type]
        assert superlink.keys.keys() == {member.node for member in members.values()}
        return {site: member.node for site, member in members.items()}

    return once


def test_admitted_keys_are_let_in_and_no_others(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    assert tend() == {}
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    assert tend() == {"hospital-a": 1}
    admit_told(root / "hospital-b" / "hospital-b.request.json", folder)
    assert tend() == tend() == {"hospital-a": 1, "hospital-b": 2}
    expel("hospital-a", folder)
    assert tend() == {"hospital-b": 2}


def test_a_replaced_key_is_another_node(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    tend()
    join(folder / "kits" / "hospital-a.zip", root / "again")
    admit_told(root / "again" / "hospital-a.request.json", folder, replaces=True)
    assert tend() == {"hospital-a": 2}


def test_a_damaged_record_shuts_nobody_out(root: Path, folder: Path, tend: Callable[[], dict[str, int]]) -> None:
    """The operator mends it; until then those who are in stay, and nobody else enters."""
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    before = tend()
    other = read_public((root / "hospital-b" / "site.key.pub").read_text(), "b")
    record = folder / "sites" / "hospital-a" / "key.pub"
    kept = record.read_text()
    record.write_text((root / "hospital-b" / "site.key.pub").read_text())
    with pytest.raises(ConfigError, match=r"key\.pub"):
        tend()
    record.write_text(kept)
    assert tend() == before
    assert key_bytes(other)
