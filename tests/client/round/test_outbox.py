"""The same request gets the same bytes."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gliofed.client.round.outbox import Outbox
from gliofed.shared.messages import Reply


def found(outbox: Outbox, key: str, *withdrawn: str) -> Reply | None:
    stored = outbox.find(key, frozenset(withdrawn))
    return stored and stored.read()


REPLY = Reply(site="a", patients=3, steps=2, metrics={"loss": 1 / 3}, update=b"\x00\xff")


def test_a_stored_reply_comes_back_whole(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    assert found(outbox, "r-0001-abc") is None
    outbox.store("r-0001-abc", REPLY)
    assert found(outbox, "r-0001-abc") == REPLY
    assert found(outbox, "r-0001-other") is None


def test_a_loss_that_is_not_a_number_is_kept(tmp_path: Path) -> None:
    """A site whose training diverged says so; it must not fail for it."""
    outbox = Outbox(tmp_path)
    outbox.store("r", replace(REPLY, metrics={"loss": float("nan")}))
    reply = found(outbox, "r")
    assert reply is not None
    assert math.isnan(reply.metrics["loss"])


def test_a_reply_with_somebody_who_withdrew_is_none(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.store("r-1", REPLY, ["p1", "p2"])
    outbox.store("r-2", REPLY, ["p2"])
    assert [found(outbox, key) for key in ("r-1", "r-2")] == [REPLY, REPLY]
    assert [found(outbox, key, "p1", "p9") for key in ("r-1", "r-2")] == [None, REPLY]
    assert [path.name for path in outbox.with_patient("p1")] == ["r-1.safetensors", "r-1.json"]
    assert outbox.with_patient("p3") == []
    (tmp_path / "r-2.json").write_text("damaged")
    assert [path.name for path in outbox.with_patient("p3")] == ["r-2.safetensors", "r-2.json"]


@pytest.mark.parametrize("spoil", [".json", ".safetensors"])
def test_a_damaged_reply_is_as_if_it_was_not_stored(tmp_path: Path, spoil: str) -> None:
    """Else that request would fail for good: the site trains anew."""
    outbox = Outbox(tmp_path)
    outbox.store("r", REPLY)
    (tmp_path / f"r{spoil}").unlink() if spoil == ".safetensors" else (tmp_path / "r.json").write_text('{"site": "a')
    assert found(outbox, "r") is None


def test_two_replies_are_kept(tmp_path: Path) -> None:
    """A year of rounds of a large model would fill the disk."""
    outbox = Outbox(tmp_path)
    for number in range(4):
        outbox.store(f"r-{number}", REPLY)
    assert [found(outbox, f"r-{number}") is not None for number in range(4)] == [False, False, True, True]
    assert len(list(tmp_path.iterdir())) == 4


def test_the_newest_is_kept_whatever_the_clock_says(tmp_path: Path) -> None:
    """Time may be set back between two replies; one that is lost on its way would be trained, and charged, again."""
    outbox = Outbox(tmp_path)
    for number in range(2):
        outbox.store(f"r-{number}", REPLY)
        os.utime(tmp_path / f"r-{number}.json", (4e9 + number, 4e9 + number))
    outbox.store("r-2", REPLY)
    assert [found(outbox, f"r-{number}") is not None for number in range(3)] == [False, True, True]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Half an update, under its temporary name."""
    (tmp_path / ".r-0001.safetensors.0123.tmp").write_bytes(b"half")
    Outbox(tmp_path).store("r-0001", REPLY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r-0001.json", "r-0001.safetensors"]


@pytest.mark.parametrize("system", ["linux", "macos"])
def test_room_is_held_until_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """The system's own count of blocks is the oracle; what a file merely says of its length holds no room."""
    if system == "macos":  # which has no such call
        monkeypatch.delattr(os, "posix_fallocate")
    outbox = Outbox(tmp_path)
    for _ in range(2):  # a round is tried again with less memory
        outbox.make_room(2**20)
    (room,) = tmp_path.iterdir()
    assert room.stat().st_blocks * 512 >= 2**20
    outbox.store("r-0001", REPLY)
    assert not room.exists() and found(outbox, "r-0001") == REPLY
