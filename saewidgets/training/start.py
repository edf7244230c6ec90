"""How a run begins: `train` from the start, `resume_training` from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.training import checkpoints
from saewidgets.training.background import OnMetrics
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Vectors, held_out_score
from saewidgets.training.loop import Loop
from saewidgets.training.run import TrainingRun


def train(
    sae: SAE,
    acts: Any,
    config: TrainConfig,
    held_out: Sequence[str] | None = None,
    on_metrics: OnMetrics | Sequence[OnMetrics] | None = None,
) -> TrainingRun:
    """Start to train `sae` on activation vectors, in place, in a thread of its own; returns at once.

    `acts`: an `ActivationStream`, a tensor or numpy array [n, d_in], or anything that iterates over tensors
    [batch, d_in] (an epoch each time it is iterated) and has a `d_in`; for a transcoder, over pairs of [batch, d_in]
    and [batch, d_out]. `batches(epoch, start)`, `batch_size`, `n_vectors`, `metadata`, `fingerprints()` and
    `ce_loss_recovered(sae)`, or a `scorer()` of that (whose `release()` is called when the run is over), are used where
    it has them. `held_out`: texts that CE loss recovered is measured on, instead of the stream's own held-out share.
    `on_metrics`: a function, or several, called from the training thread with each new row of the metrics;
    `saewidgets.training.tracking` has some.

    The first batches give the scale and the mean of the input (`input_scale`, b_dec); the scale is folded into
    the weights when the run ends. Same seeds, same stream, same number of threads: the same SAE, bit for bit.

    Raises ValueError if the vectors do not fit the SAE or the folder for checkpoints holds another run's,
    RuntimeError if the SAE is being trained already. What goes wrong in the thread is kept in `.error` and raised by
    `.wait()`.
    """
    if not isinstance(sae, SAE):
        raise TypeError(f"train needs an SAE first, got {type(sae).__name__}.")
    if not isinstance(config, TrainConfig):
        raise TypeError(f"train needs a TrainConfig, got {type(config).__name__}: TrainConfig(n_tokens=1_000_000).")
    check_free(config)
    loop = Loop(sae, Vectors(acts, sae), config, held_out_score(acts, held_out))
    return _started(loop, on_metrics, torch.get_num_threads())


def check_free(config: TrainConfig) -> None:
    """ValueError if the folder for checkpoints holds another run's."""
    if config.checkpoint_dir is not None and checkpoints.listed(config.checkpoint_dir):
        raise ValueError(
            f"The folder {config.checkpoint_dir} holds checkpoints of a run already. Go on with that run: "
            f"sw.resume_training({str(config.checkpoint_dir)!r}, acts). Or choose another checkpoint_dir."
        )


def resume_training(
    path: str | os.PathLike[str],
    acts: Any,
    n_tokens: int | None = None,
    held_out: Sequence[str] | None = None,
    on_metrics: OnMetrics | Sequence[OnMetrics] | None = None,
    device: str | torch.device | None = None,
    allow_unverified: bool = False,
) -> TrainingRun:
    """Go on with a run from its newest whole checkpoint, in a thread; returns at once. `run.sae` is the SAE.

    `path`: the run's `checkpoint_dir`, or one checkpoint in it. `acts`: the stream that the run began with, made
    again; it is sought, not read over. On the same machine the run ends with the same bits as if it had never been
    interrupted: it takes as many threads as it had (on a GPU only with `torch.use_deterministic_algorithms(True)`).
    `n_tokens`: another length; the schedules are then those of a run of that length. `device`: another than the one
    that it ran on.

    A stream without `fingerprints()` (a plain iterable) cannot be compared with the one that the run began with: it is
    refused unless `allow_unverified=True`, and what was trained on already is read over, as it cannot be sought.

    Raises FileNotFoundError if there is no checkpoint, ValueError if none is whole, if the stream is another one (what
    differs is named), or if n_tokens is less than was trained already.
    """
    checkpoint, damaged = checkpoints.newest(path)
    state = checkpoint.state
    stored = TrainConfig(**state["config"])
    if n_tokens is not None and n_tokens < state["tokens"]:
        raise ValueError(
            f"n_tokens is {n_tokens:,}, but the run has trained on {state['tokens']:,} vectors already. "
            "Pass more, or leave it out."
        )
    config = stored.replace(checkpoint_dir=_home(checkpoint.folder), n_tokens=n_tokens or stored.n_tokens)
    sae = SAE(
        SAEConfig(**state["sae"]["cfg"]),
        SAEMetadata.from_dict(state["sae"]["metadata"]),
        _device(device if device is not None else state["device"]),
    )
    vectors = Vectors(acts, sae)
    _check_same(state["stream"]["fingerprints"], vectors.fingerprints(), allow_unverified)
    loop = Loop(sae, vectors, config, held_out_score(acts, held_out))
    loop.restore(state, checkpoint.tensors)
    loop.checkpoint_errors += [f"{sentence} The run went on from an older one." for sentence in damaged]
    return _started(loop, on_metrics, state["threads"])


def as_callbacks(on_metrics: OnMetrics | Sequence[OnMetrics] | None) -> list[OnMetrics]:
    """One function, several or none as a list; TypeError for what is no function."""
    callbacks = [on_metrics] if callable(on_metrics) else list(on_metrics or ())
    wrong = next((callback for callback in callbacks if not callable(callback)), None)
    if wrong is not None:
        raise TypeError(f"on_metrics takes functions of a row (a dict), got {type(wrong).__name__}.")
    return callbacks


def _started(loop: Loop, on_metrics: OnMetrics | Sequence[OnMetrics] | None, threads: int) -> TrainingRun:
    run = TrainingRun(loop, as_callbacks(on_metrics), threads)
    run.start()
    return run


def _home(folder: Path) -> str:
    """Where the run's other checkpoints are."""
    return str(folder.resolve().parent)


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
