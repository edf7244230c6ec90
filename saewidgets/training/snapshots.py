"""Snapshots: the weights at a few moments of a run, in half precision, to look back at."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig, SAEMetadata

MEMORY = 512 * 2**20
"""Bytes that the snapshots of a run, or a sweep, without a folder may take."""

FOLDER = "snapshots"


@dataclass(frozen=True)
class _Kept:
    cfg: dict[str, Any]
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


class Snapshots:
    """Some of a run's states by their step: in `folder`/snapshots, or in memory where `folder` is None.

    Matrices are in float16, everything else as it is; weights are those of the scaled input, whose size is about 1
    whatever the model's.
    """

    def __init__(self, sae: SAE, n: int, n_logs: int, folder: str | os.PathLike[str] | None) -> None:
        if folder is None:
            n = min(n, fitting([sae]))
        self.folder = None if folder is None else Path(folder) / FOLDER
        self.rows = {round(n_logs * (i + 1) / n) for i in range(n)}
        self._kept: dict[int, _Kept | None] = {}  # None: it is in the folder

    @property
    def steps(self) -> list[int]:
        """The steps of which the weights are kept, in order."""
        return sorted(self._kept)

    def keep(self, sae: SAE, cfg: SAEConfig, step: int) -> None:
        """Add the weights as they are now; `cfg` says with which k. OSError if the folder cannot be written."""
        tensors = {name: _half(tensor.detach()).cpu().clone() for name, tensor in sae.state_dict().items()}
        kept = _Kept(cfg.to_dict(), sae.metadata.to_dict(), tensors)
        if self.folder is None:
            self._kept[step] = kept
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".writing-{uuid.uuid4().hex}"
        try:
            about = {"cfg": json.dumps(kept.cfg), "metadata": json.dumps(kept.metadata)}
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch, about)
            os.replace(scratch, self._file(step))
        except SafetensorError as error:
            raise OSError(str(error)) from error
        finally:
            scratch.unlink(missing_ok=True)
        self._kept[step] = None

    def take_over(self, steps: Iterable[int]) -> None:
        """Count those of these steps that are in the folder as kept: of the run that goes on now."""
        if self.folder is not None:
            self._kept.update({step: None for step in steps if self._file(step).is_file()})

    def sae_at(self, step: int) -> SAE:
        """The SAE as it was after `step` steps: a frozen copy, folded, on the CPU; `metadata.extra["step"]` says when.

        Raises ValueError for a step that no snapshot was taken at (those that there are, are named), or a damaged file.
        """
        if step not in self._kept:
            there = ", ".join(map(str, self.steps)) or "none yet"
            raise ValueError(f"There is no snapshot of step {step}. There are snapshots of steps: {there}.")
        kept = self._kept[step] or self._read(step)
        sae = SAE(SAEConfig(**kept.cfg), SAEMetadata.from_dict(kept.metadata))
        state = sae.state_dict()
        with torch.no_grad():
            for name, tensor in kept.tensors.items():
                state[name].copy_(tensor)
        return sae.requires_grad_(False).eval().fold_()

    def _read(self, step: int) -> _Kept:
        try:
            with safe_open(self._file(step), "pt") as file:
                about: Mapping[str, str] = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            return _Kept(json.loads(about["cfg"]), json.loads(about["metadata"]), tensors)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"The snapshot {self._file(step)} is damaged: {error}.") from error

    def _file(self, step: int) -> Path:
        return (self.folder or Path()) / f"step-{step}.safetensors"


def fitting(saes: Sequence[SAE]) -> int:
    """How many snapshots of all of these SAEs may be kept in memory."""
    tensors = (tensor for sae in saes for tensor in sae.state_dict().values())
    return MEMORY // sum(_half(tensor).nbytes for tensor in tensors)


def _half(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float16) if tensor.ndim >= 2 and tensor.is_floating_point() else tensor
