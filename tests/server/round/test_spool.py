"""The spool is the record of who answered, whatever happened in between."""

from pathlib import Path

import torch
from torch.testing import assert_close

from gliofed.server.round.spool import KEPT, Spool
from gliofed.shared.codec import encode
from gliofed.shared.messages import Reply


def reply(value: float, **known: float) -> Reply:
    update = encode({"w": torch.tensor([value])}, "fp32")
    return Reply(site="x", patients=3, steps=2, metrics=known, left_out={"data": 1}, update=update)


def test_replies_come_in_the_order_of_names(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1, "fp32")
    for site in ("c", "a-b", "a"):
        spool.add(site, reply(1), ceiling=4, node=1)
    assert [spooled.site for spooled in Spool(tmp_path, 1, "fp32").replies()] == ["a", "a-b", "c"]


def test_what_was_sent_is_read_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1, "fp32")
    spool.add("a", reply(2.5, loss=0.1, odd=float("nan")), ceiling=4, node=1)
    (spooled,) = spool.replies()
    assert (spooled.patients, spooled.ceiling, spooled.steps, spooled.left_out) == (3, 4, 2, {"data": 1})
    assert spooled.metrics["loss"] == 0.1
    assert spooled.metrics["odd"] != spooled.metrics["odd"]  # NaN
    assert_close(spooled.update().tensor("w"), torch.tensor([2.5]))


def test_an_update_without_its_head_has_not_arrived(tmp_path: Path) -> None:
    """Killed between the two files: the site is asked again."""
    spool = Spool(tmp_path, 1, "fp32")
    spool.add("a", reply(1), ceiling=4, node=1)
    (spool.folder / "a.json").unlink()
    assert spool.replies() == []


def test_a_damaged_head_has_not_arrived(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1, "fp32")
    spool.add("a", reply(1), ceiling=4, node=1)
    (spool.folder / "a.json").write_text('{"pat')
    assert spool.replies() == []


def test_refused_updates_are_kept_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1, "fp32")
    spool.add("a", reply(1), ceiling=4, node=1)
    spool.set_aside(spool.replies()[0], tmp_path / "refused")
    assert spool.replies() == []
    assert sorted(file.name for file in (tmp_path / "refused/round-0001").iterdir()) == ["a.json", "a.safetensors"]


def test_rounds_do_not_mix(tmp_path: Path) -> None:
    Spool(tmp_path, 1, "fp32").add("a", reply(1), ceiling=4, node=1)
    assert Spool(tmp_path, 2, "fp32").replies() == []


def test_a_site_that_is_refused_in_every_round_does_not_fill_the_disk(tmp_path: Path) -> None:
    for round in range(1, KEPT + 3):
        spool = Spool(tmp_path / "spool", round, "fp32")
        spool.add("a", reply(1), ceiling=4, node=1)
        spool.set_aside(spool.replies()[0], tmp_path / "refused")
    kept = sorted(folder.name for folder in (tmp_path / "refused").iterdir())
    assert kept == [f"round-{round:04d}" for round in range(3, KEPT + 3)]
