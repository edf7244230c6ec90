"""The work of a run on several processes: a `Loop` whose checkpoints are written by all of them together.

A checkpoint is a folder in torch's distributed format (`torch.distributed.checkpoint`): every process writes its part,
and any number of processes can go on from it. What is no tensor is in run.json beside it.
"""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, Losses
from saewidgets.training.checkpoints import TOGETHER, of_processes
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Vectors
from saewidgets.training.distributed import Ranks
from saewidgets.training.gradients import Gradients, out_of_memory
from saewidgets.training.loop import Loop, Score
from saewidgets.training.saved import state_of, tensors_of
from saewidgets.training.sharded import ShardedSteps, ShardedTopK, as_part, features_at, whole_cfg
from saewidgets.training.step import Steps

_STATE = "run.json"

# one process may go on from what several wrote, and that is what it wants
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


class TogetherGradients(Gradients):
    """`Gradients` of a step that all processes take together: one alone cannot halve it, the others would wait.

    `shared`: the processes that each have a part of the batch; their gradients are averaged, one parameter after the
    other in everyone's same order (autograd's differs with the form of a code). None where the features are spread.
    """

    def __init__(self, sae: SAE, parameters: Sequence[Tensor], precision: str, shared: Ranks | None) -> None:
        super().__init__(sae, parameters, precision)
        self._shared = shared

    def of(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> tuple[Losses, list[Tensor]]:
        try:
            losses, gradients = self._of_part(x, target, knobs, dead)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(
                f"{str(self.sae.device)!r} has no memory for its part of a batch of {len(x)} vectors. Take a smaller "
                "batch_size or more processes, or split='features'. The run can go on from its last checkpoint."
            ) from error
        shared = self._shared
        if shared is None:
            return losses, gradients
        alike = [as_in_memory(gradient, own) for gradient, own in zip(gradients, self.parameters, strict=True)]
        return losses, [shared.sum(gradient) / shared.size for gradient in alike]


def as_in_memory(gradient: Tensor, parameter: Tensor) -> Tensor:
    """A gradient that lies in memory as its parameter does: what processes add must lie alike in all of them."""
    return gradient.contiguous() if parameter.is_contiguous() else gradient.t().contiguous().t()


class RankLoop(Loop):
    """`Loop` for the SAEs of `data_parallel` and `feature_sharded`."""

    def __init__(self, sae: SAE, vectors: Vectors, config: TrainConfig, score: Score | None, ranks: Ranks) -> None:
        super().__init__(sae, vectors, config, score)
        self.ranks = ranks
        if ranks.size > 1 and config.compile:
            raise ValueError("compile=True is for one process. Leave it out: what processes say is not compiled.")
        if self.sharded and config.clip_norm is not None:
            raise ValueError("clip_norm needs the gradient in one piece. Take split='data', or leave it out.")

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of the features."""
        return isinstance(self.sae.architecture, ShardedTopK)

    def get_ready(self, centre: Tensor) -> Steps:
        steps = self._steps_from(centre)
        if self.ranks.size > 1:
            shared = None if self.sharded else self.ranks
            steps.gradients = TogetherGradients(self.sae, steps.parameters, self.config.precision, shared)
        return steps

    def _steps_from(self, centre: Tensor) -> Steps:
        architecture = self.sae.architecture
        if not isinstance(architecture, ShardedTopK):
            return super().get_ready(centre)
        if self.settings.lr is None:
            self.settings.lr = self.config.peak_lr(architecture.whole.d_sae, self.planned)
        self.steps = ShardedSteps(self.sae, self.config, self.planned, centre)
        return self.steps

    def save(self) -> None:
        folder = self.config.checkpoint_dir
        if folder is None or self.steps is None or self.saved_at == self.tokens:
            return
        self.saved_at = self.tokens
        path = Path(folder) / f"{TOGETHER}{self.step:09d}"
        try:
            # torch lets an error of one process be raised in all
            save(self._parts(self._ready(path)), checkpoint_id=path, no_dist=self.ranks.size == 1)
        except (Exception, CheckpointException) as error:  # whatever it is, it is not worth the run
            self._excuse("checkpoint", _said(error))
            shutil.rmtree(path, ignore_errors=True)  # in all: no one still writes, and the disk may be full
            return
        self.saved = True
        if self.ranks.rank == 0:
            for old in of_processes(folder)[: -self.config.keep_last]:
                shutil.rmtree(old, ignore_errors=True)

    def rescue(self) -> None:
        """Nothing where others train too: they do not know that this process's stream failed, and it would wait."""
        if self.ranks.size == 1:
            self.save()

    def _ready(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a checkpoint, once its folder is there, with what is no tensor. Raises in all, or in none."""
        error, tensors = None, {}
        try:
            tensors = tensors_of(self)
            if self.ranks.rank == 0:
                path.mkdir(parents=True, exist_ok=True)
                (path / _STATE).write_text(json.dumps(self._state()), encoding="utf-8")
        except Exception as failed:
            error = failed
        # no one writes before the folder is there, and no one waits for another that has given up
        without = self.ranks.gather(torch.tensor(error is not None, device=self.sae.device)).nonzero()
        if len(without):
            raise error or OSError(f"process {int(without[0])} cannot, and its checkpoint_errors say why")
        return tensors

    def _state(self) -> dict[str, Any]:
        """What is no tensor, of the whole SAE and not of this process's part."""
        state = state_of(self)
        state["sae"]["cfg"] = self.cfg.to_dict()
        return state

    def go_on_from(self, path: Path, state: Mapping[str, Any]) -> None:
        """Take up the run where a checkpoint was written, by however many processes; `state` is its `state_in`.

        Raises ValueError for other activations, Damaged if a part cannot be read.
        """
        ours, theirs = self.vectors.fingerprints(), state["stream"]["fingerprints"]
        if ours != theirs:
            differing = [name for name in theirs or {} if (ours or {}).get(name) != theirs[name]]
            raise ValueError(
                f"The checkpoint {str(path)!r} was trained on other activations: {', '.join(differing) or 'all'} "
                "differ. Give the same ones, or another checkpoint_dir."
            )
        try:
            known = FileSystemReader(path).read_metadata().state_dict_metadata
            tensors = self._parts(
                {name: self._room(name, entry) for name, entry in known.items() if hasattr(entry, "size")}
            )
            load(tensors, checkpoint_id=path, no_dist=self.ranks.size == 1)
        except (OSError, EOFError, pickle.UnpicklingError, CheckpointException) as error:
            raise Damaged(f"The checkpoint {path} is damaged: {_said(error)}.") from error
        own = {name: t.to_local() if isinstance(t, DTensor) else t for name, t in tensors.items()}
        self.restore(state, own)

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().restore(state, tensors)
        steps = self.begun()
        dead = steps.was_dead.nonzero().squeeze(1)
        any_dead = self.ranks.sum(torch.tensor(len(dead), device=dead.device)) if self.sharded else len(dead)
        steps.dead = dead if int(any_dead) else None

    @property
    def cfg(self) -> SAEConfig:
        return whole_cfg(self.sae)

    @property
    def goes_on(self) -> str:
        return f"The same job goes on from its last checkpoint in {self.config.checkpoint_dir!r}."

    def _room(self, name: str, entry: Any) -> Tensor:
        """Memory for this process's part of a tensor of the checkpoint."""
        shape, at = list(entry.size), self._features_at(name)
        if at is not None:
            shape[at] //= self.ranks.size
        return torch.empty(shape, dtype=entry.properties.dtype, device=self.sae.device)

    def _parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # which features are dead follows from was_dead, and is another number of them in each process
        kept = {name: tensor.detach() for name, tensor in tensors.items() if name != "steps.dead"}
        if not self.sharded or self.ranks.size == 1:
            return kept
        return {name: as_part(tensor, self._features_at(name)) for name, tensor in kept.items()}

    def _features_at(self, name: str) -> int | None:
        return features_at(name, [n for n, _ in self.sae.named_parameters()]) if self.sharded else None


class Damaged(ValueError):
    """A checkpoint that cannot be read, as a sentence."""


def state_in(path: Path) -> dict[str, Any]:
    """What is no tensor in a checkpoint. Damaged if it cannot be read."""
    try:
        state: dict[str, Any] = json.loads((path / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Damaged(f"The checkpoint {path} is damaged: {error}.") from error
    return state


def _said(error: BaseException) -> Exception:
    """The error, or in its place what each process met with; torch's own says it with all tracebacks."""
    if not isinstance(error, CheckpointException):
        return cast(Exception, error)
    met = {rank: failure for rank, (failure, _) in error.failures.items()}
    return OSError("; ".join(f"process {rank} met with {str(e) or type(e).__name__}" for rank, e in met.items()))
