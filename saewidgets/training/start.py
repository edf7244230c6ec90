"""How a run begins."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training import checkpoints, sweep_checkpoints
from saewidgets.training.background import OnMetrics
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Vectors, held_out_score
from saewidgets.training.loop import Loop
from saewidgets.training.run import TrainingRun

JOB_GOES_ON = "python -m saewidgets.training train.toml, or sw.TrainJob.from_toml('train.toml').start()"
"""On one process; what several processes wrote, any number of them can go on from."""

EXAMPLE = "sw.train(sae, acts, sw.TrainConfig(n_tokens=1_000_000))"


def train(
    sae: SAE,
    acts: Any,
    config: TrainConfig | None = None,
    held_out: Sequence[str] | None = None,
    on_metrics: OnMetrics | Sequence[OnMetrics] | None = None,
    **unknown: Any,
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

    Raises TypeError for an option that it does not have, ValueError if the vectors do not fit the SAE or the folder
    for checkpoints holds another run's, RuntimeError if the SAE is being trained already. What goes wrong in the
    thread is kept in `.error` and raised by `.wait()`.
    """
    if not isinstance(sae, SAE):
        hint = ": wrap it, sw.SAE(cfg)" if isinstance(sae, SAEConfig) else ""
        raise TypeError(f"train needs an SAE first, got {type(sae).__name__}{hint}.")
    refuse(train, unknown)
    if config is None:
        raise TypeError(f"train needs to know how long: {EXAMPLE}.")
    if not isinstance(config, TrainConfig):
        raise TypeError(f"train needs a TrainConfig, got {type(config).__name__}: {EXAMPLE}.")
    check_free(config.checkpoint_dir)
    loop = Loop(sae, Vectors(acts, sae), config, held_out_score(acts, held_out))
    run = TrainingRun(loop, as_callbacks(on_metrics), torch.get_num_threads())
    run.start()
    return run


def refuse(function: Callable[..., Any], unknown: Mapping[str, Any]) -> None:
    """TypeError, as a sentence, if a function was given options that it does not have."""
    if not unknown:
        return
    said, name = function.__name__, next(iter(unknown))
    own = [option for option in inspect.signature(function).parameters if option != "unknown"]
    of_config = {field.name for field in dataclasses.fields(TrainConfig)}
    near = next(iter(difflib.get_close_matches(name, own, n=1)), None)
    if name in of_config:
        options = ", ".join(f"{option}={reprlib.repr(unknown[option])}" for option in unknown if option in of_config)
        hint = f"How to train is said in a config: sw.TrainConfig({options})."
    else:
        hint = f"Did you mean {near!r}?" if near else f"It has {', '.join(own)}; how to train is said in a TrainConfig."
    raise TypeError(f"{said} has no option {name!r}. {hint}")


def check_free(folder: str | os.PathLike[str] | None) -> None:
    """ValueError if the folder for checkpoints holds those of another run, or of a sweep."""
    if folder is None:
        return
    if checkpoints.of_processes(folder):
        raise ValueError(
            f"The folder {os.fspath(folder)} holds checkpoints of several processes already. The job that wrote them "
            f"goes on from them: {JOB_GOES_ON}. Or choose another checkpoint_dir."
        )
    of_sweep = sweep_checkpoints.folders(folder)
    held, what = (next(iter(of_sweep.values())), "sweep") if of_sweep else (folder, "run")
    if of_sweep or checkpoints.listed(folder):
        raise ValueError(
            f"The folder {os.fspath(held)} holds checkpoints of a {what} already. Go on with that {what}: "
            f"sw.resume_training({os.fspath(folder)!r}, acts). Or choose another checkpoint_dir."
        )


def as_callbacks(on_metrics: OnMetrics | Sequence[OnMetrics] | None) -> list[OnMetrics]:
    """One function, several or none as a list; TypeError for what is no function."""
    callbacks = [on_metrics] if callable(on_metrics) else list(on_metrics or ())
    wrong = next((callback for callback in callbacks if not callable(callback)), None)
    if wrong is not None:
        raise TypeError(f"on_metrics takes functions of a row (a dict), got {type(wrong).__name__}.")
    return callbacks
