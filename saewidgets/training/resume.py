"""How a run, or a whole sweep, goes on from its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.training import checkpoints, sweep_checkpoints
from saewidgets.training.background import OnMetrics
from saewidgets.training.checkpoints import Checkpoint
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Vectors, held_out_score
from saewidgets.training.loop import Loop
from saewidgets.training.run import TrainingRun
from saewidgets.training.start import JOB_GOES_ON, as_callbacks
from saewidgets.training.sweep import SweepRun
from saewidgets.training.sweep_loop import SweepLoop


def resume_training(
    path: str | os.PathLike[str],
    acts: Any,
    n_tokens: int | None = None,
    held_out: Sequence[str] | None = None,
    on_metrics: OnMetrics | Sequence[OnMetrics] | None = None,
    device: str | torch.device | None = None,
    allow_unverified: bool = False,
) -> TrainingRun | SweepRun:
    """Go on with a run, or a sweep, from its newest whole checkpoint, in a thread; returns at once.

    `path`: the `checkpoint_dir` of a run (`run.sae` is its SAE), or one checkpoint in it; or that of a sweep, which
    then comes back as `sweep` gave it, with all its SAEs (`checkpoint_dir/sae-i` is one alone, which takes the
    place of the sweep's checkpoints: the sweep cannot go on afterwards, so copy the folder first). They go on from the
    last moment of which each has a checkpoint; one that had failed stays as it was left.

    `acts`: the stream that it began with, made again; it is sought, not read over. On the same machine it ends with the
    same bits as if it had never been interrupted: it takes as many threads as it had (on a GPU only with
    `torch.use_deterministic_algorithms(True)`). `n_tokens`: another length; the schedules are then those of a run of
    that length. `device`: another than the one that it ran on.

    A stream without `fingerprints()` (a plain iterable) cannot be compared with the one that it began with: it is
    refused unless `allow_unverified=True`, and what was trained on already is read over, as it cannot be sought.

    Raises FileNotFoundError if there is no checkpoint, ValueError if none is whole, if an SAE of the sweep is missing,
    if several processes wrote it together (`TrainJob` goes on from those), if the stream is another one (what differs
    is named), or if n_tokens is less than was trained already.
    """
    callbacks = as_callbacks(on_metrics)
    if checkpoints.of_processes(path) or (Path(path) / checkpoints.TOGETHER_WHOLE).is_file():
        raise ValueError(
            f"{os.fspath(path)} was written by several processes together. The job that wrote it goes on from it, on "
            f"any number of processes: {JOB_GOES_ON}."
        )
    if checkpoints.listed(path) or not sweep_checkpoints.folders(path):
        checkpoint, damaged = checkpoints.newest(path)
        (loop,) = _loops([checkpoint], acts, n_tokens, held_out, device, allow_unverified)
        loop.restore(checkpoint.state, checkpoint.tensors)
        _tell(loop, damaged)
        run: TrainingRun | SweepRun = TrainingRun(loop, callbacks, checkpoint.state["threads"])
    else:
        saved = sweep_checkpoints.newest(path)
        loops = _loops(saved.members, acts, n_tokens, held_out, device, allow_unverified)
        together = SweepLoop(loops)
        together.restore(saved)
        _tell(loops[0], saved.damaged)
        run = SweepRun(together, callbacks, saved.members[0].state["threads"])
    run.start()
    return run


def _loops(
    members: Sequence[Checkpoint],
    acts: Any,
    n_tokens: int | None,
    held_out: Sequence[str] | None,
    device: str | torch.device | None,
    allow_unverified: bool,
) -> list[Loop]:
    """A loop for each checkpoint, on one stream, before it is restored."""
    lead = max((member.state for member in members), key=lambda state: state["tokens"])
    if n_tokens is not None and n_tokens < lead["tokens"]:
        raise ValueError(
            f"n_tokens is {n_tokens:,}, but the run has trained on {lead['tokens']:,} vectors already. "
            "Pass more, or leave it out."
        )
    place = _device(device if device is not None else lead["device"])
    saes = [
        SAE(SAEConfig(**own["cfg"]), SAEMetadata.from_dict(own["metadata"]), place)
        for own in (member.state["sae"] for member in members)
    ]
    vectors = Vectors(acts, saes[0])
    _check_same(lead["stream"]["fingerprints"], vectors.fingerprints(), allow_unverified)
    score = held_out_score(acts, held_out)
    loops = []
    for sae, member in zip(saes, members, strict=True):
        stored = TrainConfig(**member.state["config"])
        home = str(member.folder.resolve().parent)  # where the other checkpoints are
        config = stored.replace(checkpoint_dir=home, n_tokens=n_tokens or stored.n_tokens)
        loops.append(Loop(sae, vectors, config, score))
    return loops


def _tell(loop: Loop, damaged: Sequence[str]) -> None:
    loop.checkpoint_errors += [f"{sentence} The run went on from an older one." for sentence in damaged]


def _device(device: str | torch.device) -> torch.device:
    """The device, if it is here; ValueError, as a sentence, if not."""
    wanted = torch.device(device)
    try:
        torch.zeros((), device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"The run was on {wanted}, which this machine does not have. Choose another: "
            "resume_training(..., device='cpu'). It then goes on from the same weights, but not bit for bit."
        ) from error
    return wanted


def _check_same(before: Mapping[str, str] | None, now: Mapping[str, str] | None, allow_unverified: bool) -> None:
    """Raise ValueError if a stream is not, or cannot be known to be, the one of the checkpoint."""
    if before is None or now is None:
        if not allow_unverified:
            raise ValueError(
                "These activations have no fingerprints(), so nobody can tell whether they are those that the run "
                "began with. If they are, say so: resume_training(..., allow_unverified=True). Or train on an "
                "ActivationStream or a tensor, which can be compared."
            )
        return
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differing:
        told = ", ".join(_difference(name, before.get(name), now.get(name)) for name in differing)
        raise ValueError(
            f"These activations are not those that the run began with. What differs: {told}. "
            "Make the stream as it was made then."
        )


def _difference(name: str, before: str | None, now: str | None) -> str:
    """`batch_size (2048 in the checkpoint, 1024 now)`; of a hash only its name."""
    if any(value is not None and len(value) > 48 for value in (before, now)):
        return name
    return f"{name} ({before or 'not there'} in the checkpoint, {now or 'not there'} now)"
