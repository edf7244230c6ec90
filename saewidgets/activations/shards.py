"""The files of an activation cache: safetensors shards, and the page that says what they hold.

    folder/
      shard-00000.safetensors   "vectors" [n, d_in], and "targets" [n, d_out] where the cache holds pairs
      held_out.safetensors      "tokens" and "mask" [n, context_size] of the contexts that were held out
      meta.json                 written last: a folder without it is no cache
      unfinished.json           the same page of a cache that is being written: shards so far

Every file is written under another name and then moved to its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

META, UNFINISHED, HELD_OUT = "meta.json", "unfinished.json", "held_out.safetensors"
FORMAT = "saewidgets activation cache 1"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Shard:
    """One file of vectors."""

    file: str
    """Its name in the folder."""
    n_vectors: int
    """Vectors in it."""
    n_bytes: int
    """Its size."""
    sha256: str
    """Of its bytes."""


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.safetensors"


def write_shard(folder: Path, name: str, tensors: dict[str, Tensor]) -> Shard:
    """Write tensors as one shard, all of it or nothing."""
    part = folder / f"{name}.part"
    try:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part)
        written = Shard(name, len(next(iter(tensors.values()))), part.stat().st_size, sha256(part))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, folder / name)
    finally:
        part.unlink(missing_ok=True)
    return written


def write_page(path: Path, page: dict[str, Any]) -> None:
    """Write a JSON page, all of it or nothing."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(page, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_page(path: Path) -> dict[str, Any]:
    """Raises ValueError if the page is damaged or of another kind."""
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        page = None
    if not isinstance(page, dict) or page.get("format") != FORMAT:
        raise ValueError(
            f"{str(path)!r} is damaged, or no page of an activation cache that this version reads ({FORMAT!r}). "
            "Delete the folder and write the cache again."
        )
    return page


def read_small(path: Path) -> dict[str, Tensor]:
    """All tensors of a small safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The file {str(path)!r} is damaged or missing ({error}). Write the cache again.") from None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_shard(folder: Path, shard: Shard, verify: bool) -> None:
    """Raise ValueError, naming the shard, unless it has its size and, if `verify`, its hash."""
    path = folder / shard.file
    again = "all cache(path) on the same stream again: only this shard is written anew."
    advice = f"Delete that file and c{again}"
    if not path.is_file():
        raise ValueError(f"The shard {str(path)!r} is missing. C{again}")
    size = path.stat().st_size
    if size != shard.n_bytes:
        kind = "cut off" if size < shard.n_bytes else "damaged"
        raise ValueError(f"The shard {str(path)!r} is {kind}: {size:,} bytes where {shard.n_bytes:,} belong. {advice}")
    if verify and sha256(path) != shard.sha256:
        raise ValueError(f"The shard {str(path)!r} is damaged: its bytes have another hash than when written. {advice}")


class Rows:
    """Rows of one tensor of one shard, read from disk straight to where they belong.

    By position, not by memory map: as fast or faster (130 MB in pieces of 150 kB: 17 ms to 1.4 s, on a virtual machine
    where a page fault is dear), and a file that is cut off meanwhile gives a sentence and no bus error.
    """

    def __init__(self, folder: Path, shard: Shard, key: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self._path = folder / shard.file
        try:
            self._file = self._path.open("rb", buffering=0)
            n = int.from_bytes(self._file.read(8), "little")
            header = json.loads(self._file.read(n))[key] if n < shard.n_bytes else {}
        except (OSError, ValueError, KeyError):
            header = {}
        self.row_bytes = shape[1] * dtype.itemsize
        begin, end = header.get("data_offsets", (0, 0))
        if header.get("shape") != list(shape) or end - begin != shape[0] * self.row_bytes:
            raise ValueError(f"The shard {str(self._path)!r} is damaged: its header does not say {key} {list(shape)}.")
        self._at = 8 + n + begin

    def expect(self, first: int, n: int) -> None:
        """Let the operating system begin to read n rows from number `first` on; does not wait for them."""
        if hasattr(os, "posix_fadvise"):  # Linux; elsewhere they are read when they are asked for
            at = self._at + first * self.row_bytes
            os.posix_fadvise(self._file.fileno(), at, n * self.row_bytes, os.POSIX_FADV_WILLNEED)

    def read(self, first: int, into: Tensor) -> None:
        """Rows from number `first` on into the contiguous CPU tensor `into` [n, width]."""
        place = into.view(torch.uint8).numpy().data.cast("B")
        self._file.seek(self._at + first * self.row_bytes)
        done = 0
        while done < len(place):
            got = self._file.readinto(place[done:])
            if not got:
                raise ValueError(f"The shard {str(self._path)!r} is cut off: it ended while it was read.")
            done += got

    def close(self) -> None:
        self._file.close()
