"""Pseudonyms, and the lock of a work folder."""

import json
import threading
from pathlib import Path

import pytest
from waiting import until

from gliofed.client.doctor.consent import add_withdrawn, hold_patients, read_consent
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import hold_chain
from gliofed.shared.data.volume import DataError


def test_a_pseudonym_is_a_sites_own(tmp_path: Path) -> None:
    """Two sites, or a reader of the log with a list of names, must not find out that they have the same patient."""
    first, again, other = (read_consent(tmp_path / name) for name in ("a", "a", "b"))
    assert first == again and first.key != other.key
    assert first.pseudonym("P1") == again.pseudonym("P1")
    assert len({first.pseudonym("P1"), first.pseudonym("P2"), other.pseudonym("P1")}) == 3


def test_who_withdrew_is_kept_without_a_name(tmp_path: Path) -> None:
    for name in ("Erika Mustermann", "P\udcff2"):
        assert read_consent(tmp_path).given(name)
        add_withdrawn(tmp_path, name)
        assert not read_consent(tmp_path).given(name)
    assert read_consent(tmp_path).given("Erika") and b"Erika" not in (tmp_path / "consent.json").read_bytes()
    assert len(json.loads((tmp_path / "consent.json").read_text())["withdrawn"]) == 2


def test_a_name_is_one_however_it_is_spelt(tmp_path: Path) -> None:
    """A Mac's disk has the dots of Müller as a letter of their own, and a keyboard has not."""
    composed, apart = "M\u00fcller", "Mu\u0308ller"
    add_withdrawn(tmp_path, composed)
    assert not read_consent(tmp_path).given(apart) and read_consent(tmp_path).given("Muller")


def log(work: Path, *events: dict[str, str]) -> None:
    with hold_chain(audit_file(work)) as chain:
        chain.append(*events)


def test_a_file_that_is_lost_or_old_brings_nobody_back(tmp_path: Path) -> None:
    """Also before the first training: the audit log knows who withdrew."""
    path = tmp_path / "consent.json"
    old = (read_consent(tmp_path), path.read_text())[1]
    pseudonym = read_consent(tmp_path).pseudonym("P1")
    log(tmp_path, {"event": "request", "run_id": "withdrawn"})
    for act, given in (("withdrawn", False), ("readmitted", True), ("withdrawn", False)):
        log(tmp_path, {"event": act, "patient": pseudonym})
        path.write_text(old)
        assert read_consent(tmp_path).given("P1") is given and read_consent(tmp_path).given("P2")
        path.unlink()
        if not given:
            with pytest.raises(DataError, match="is gone, so it is not known who withdrew; restore a copy"):
                read_consent(tmp_path)
            assert not path.exists()
    path.write_text(old)
    audit_file(tmp_path).write_text('{"withdrawn"\n')
    with pytest.raises(DataError, match=r"audit\.jsonl: a line is damaged"):
        read_consent(tmp_path)


def test_many_who_are_first_agree_on_a_key(tmp_path: Path) -> None:
    start, keys = threading.Barrier(8), set[str]()

    def read() -> None:
        start.wait()
        keys.add(read_consent(tmp_path).key)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1


def test_requests_are_side_by_side_and_a_withdrawal_is_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def alone() -> None:
        with hold_patients(tmp_path, alone=True):
            seen.append("alone")

    waiting = threading.Thread(target=alone)
    with hold_patients(tmp_path), hold_patients(tmp_path):
        waiting.start()
        until(lambda: "waiting until it ends" in capsys.readouterr().err, "it waits")
        seen.append("requests")
    waiting.join()
    assert seen == ["requests", "alone"]
