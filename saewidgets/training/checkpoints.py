"""Checkpoints as files: a folder each, whole or not there at all.

    my-run/
        checkpoint-0007-step-1200/
            tensors.safetensors      weights, optimizer, generators, counts
            state.json               everything else, the sha256 of the tensors, and a checksum of itself

A folder is written under a scratch name, flushed to the disk, and renamed. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, STATE = "tensors.safetensors", "state.json"
NAME = re.compile(r"checkpoint-(\d+)-step-(\d+)")
SCRATCH = ".writing-"
TOGETHER, TOGETHER_WHOLE = "distributed-", ".metadata"
"""What a folder that several processes wrote is called, and the file that torch writes into it last."""

FORMAT = 1
"""Of state.json; another number is refused."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read from a checkpoint's folder, on the CPU."""

    folder: Path
    state: dict[str, Any]
    tensors: dict[str, Tensor]


def listed(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, whole or not, oldest first."""
    found = [(NAME.fullmatch(path.name), path) for path in Path(folder).glob("checkpoint-*")]
    return [path for match, path in sorted((int(m[1]), path) for m, path in found if m)]


def of_processes(folder: str | os.PathLike[str]) -> list[Path]:
    """The whole checkpoints in a folder that several processes wrote together (see `rank_loop`), oldest first."""
    return sorted(path for path in Path(folder).glob(f"{TOGETHER}*") if (path / TOGETHER_WHOLE).is_file())


def write(folder: str | os.PathLike[str], step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Add a checkpoint to a folder, and give back its path. OSError if it cannot be written; nothing is left then."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    for left_over in home.glob(f"{SCRATCH}*"):  # of a process that was killed while it wrote
        shutil.rmtree(left_over, ignore_errors=True)
    scratch = home / f"{SCRATCH}{uuid.uuid4().hex}"
    before = listed(home)
    number = 1 + int(NAME.fullmatch(before[-1].name)[1]) if before else 1  # type: ignore[index]
    target = home / f"checkpoint-{number:04d}-step-{step}"
    try:
        scratch.mkdir()
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, scratch / TENSORS)
        body = {"format": FORMAT, **state, "tensors_sha256": _sha256(scratch / TENSORS)}
        (scratch / STATE).write_text(json.dumps({**body, "checksum": _checksum(body)}, indent=1), encoding="utf-8")
        for part in (scratch / TENSORS, scratch / STATE, scratch):
            _flush(part)
        os.rename(scratch, target)
        _flush(home)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def prune(folder: str | os.PathLike[str], keep_last: int) -> None:
    """Delete all but the newest `keep_last` checkpoints."""
    for old in listed(folder)[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)


def read(folder: str | os.PathLike[str]) -> Checkpoint:
    """Read one checkpoint and check all of it. ValueError, as a sentence, if anything is missing or damaged."""
    home, state = Path(folder), read_state(folder)
    try:
        if _sha256(home / TENSORS) != state["tensors_sha256"]:
            raise ValueError(f"{TENSORS} is not what was written")
        return Checkpoint(home, state, load_file(home / TENSORS))
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(home, error) from error


def read_state(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What is no tensor in a checkpoint. ValueError, as a sentence, if that is missing or damaged."""
    home = Path(folder)
    try:
        body = json.loads((home / STATE).read_text(encoding="utf-8"))
        checksum = body.pop("checksum", None) if isinstance(body, dict) else None
        if checksum is None or checksum != _checksum(body):
            raise ValueError(f"{STATE} is not what was written")
        if body["format"] != FORMAT:
            raise ValueError(f"it has format {body['format']}, and this version of saewidgets reads {FORMAT}")
    except (OSError, ValueError) as error:
        raise _damaged(home, error) from error
    state: dict[str, Any] = body
    return state


def _damaged(home: Path, error: Exception) -> ValueError:
    return ValueError(f"The checkpoint {home} is damaged: {error}.")


def newest(path: str | os.PathLike[str]) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint in a folder, or the one that `path` itself is; and what was wrong with newer ones.

    Raises FileNotFoundError if there is none, ValueError if none is whole.
    """
    home = Path(path)
    candidates = [home] if (home / STATE).is_file() or NAME.fullmatch(home.name) else listed(home)[::-1]
    if not home.exists() or not candidates:
        raise FileNotFoundError(
            f"There is no checkpoint in {home}. Pass the folder that was given as TrainConfig(checkpoint_dir=...)."
        )
    wrong: list[str] = []
    for candidate in candidates:
        try:
            return read(candidate), wrong
        except ValueError as error:
            wrong.append(str(error))
    raise ValueError(f"None of the {len(candidates)} checkpoints in {home} is whole. {wrong[0]}")


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
