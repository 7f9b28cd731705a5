"""Checkpoints are whole or absent."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import gliofed.shared.checkpoint
from gliofed.shared.checkpoint import check_checkpoint, load_checkpoint, save_checkpoint
from gliofed.shared.parse import ConfigError


def save(root: Path, number: int) -> None:
    save_checkpoint(root, number, {"model": {"w": torch.tensor([float(number)])}, "optimizer": {}}, {"round": number})


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 10_000):
        save(tmp_path, number)
    found = load_checkpoint(tmp_path)
    assert found is not None
    tensors, state = found
    assert state == {"round": 10_000}
    assert_close(tensors["model"]["w"], torch.tensor([10_000.0]))
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["round-0010", "round-10000"]


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


def test_a_write_that_fails_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk."""
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(gliofed.shared.checkpoint, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, 2)
    assert [folder.name for folder in tmp_path.iterdir()] == ["round-0001"]


def test_what_a_killed_process_left_is_not_read(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".round-0002.abc.tmp").mkdir()
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == {"round": 1}
    save(tmp_path, 2)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["round-0001", "round-0002"]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Sites would decline them one by one, and say nothing of versions."""
    check_checkpoint(tmp_path, {"w": torch.empty(2)})
    save(tmp_path, 1)
    check_checkpoint(tmp_path, {"w": torch.empty(1)})
    for model in ({"w": torch.empty(2)}, {"v": torch.empty(1)}, {}):
        with pytest.raises(ConfigError, match=r"round-0001: weights of another model .*with the version"):
            check_checkpoint(tmp_path, model)
