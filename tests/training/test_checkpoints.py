"""The files of a checkpoint: whole or not there, and every damage is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from saewidgets.training import checkpoints

STATE = {"step": 7, "rows": [{"loss": 0.1, "ce": float("nan")}], "lr": 1 / 3}
TENSORS = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(3, dtype=torch.int64), "c": torch.zeros(0)}


def write(folder: Path, step: int = 7) -> Path:
    return checkpoints.write(folder, step, STATE, TENSORS)


def test_what_was_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    folder = write(tmp_path / "run")
    assert folder.name == "checkpoint-0001-step-7"
    read = checkpoints.read(folder)
    assert str(read.state["rows"]) == str(STATE["rows"]) and read.state["lr"] == 1 / 3
    assert read.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert read.tensors["b"].dtype == torch.int64
    assert [path.name for path in (tmp_path / "run").iterdir()] == [folder.name]


def test_the_newest_come_last_and_the_oldest_go(tmp_path: Path) -> None:
    names = [write(tmp_path, step).name for step in (5, 10, 10)]
    assert [path.name for path in checkpoints.listed(tmp_path)] == names
    checkpoints.prune(tmp_path, 2)
    assert [path.name for path in checkpoints.listed(tmp_path)] == names[1:]
    assert checkpoints.newest(tmp_path)[0].folder.name == names[2]
    assert write(tmp_path, 1).name == "checkpoint-0004-step-1"


@pytest.mark.parametrize("file", [checkpoints.TENSORS, checkpoints.STATE])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(tmp_path: Path, file: str, damage: str) -> None:
    whole, broken = write(tmp_path, 5), write(tmp_path, 10)
    raw = bytearray((broken / file).read_bytes())
    if damage == "gone":
        (broken / file).unlink()
    else:
        raw[len(raw) // 2] ^= 1
        (broken / file).write_bytes(raw if damage == "flip" else raw[: len(raw) // 2])
    with pytest.raises(ValueError, match="checkpoint-0002-step-10 is damaged"):
        checkpoints.read(broken)
    found, wrong = checkpoints.newest(tmp_path)
    assert found.folder == whole and len(wrong) == 1 and "checkpoint-0002-step-10 is damaged" in wrong[0]
    with pytest.raises(ValueError, match="None of the 1 checkpoints"):
        checkpoints.newest(broken)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", 99)
    folder = write(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="it has format 99, and this version of saewidgets reads 1"):
        checkpoints.read(folder)


def test_no_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="There is no checkpoint in"):
            checkpoints.newest(path)


def test_a_write_that_fails_leaves_nothing_and_a_killed_one_is_swept_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0001-step-5"]
    monkeypatch.undo()
    (tmp_path / f"{checkpoints.SCRATCH}1").mkdir()
    write(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0001-step-5", "checkpoint-0002-step-10"]
