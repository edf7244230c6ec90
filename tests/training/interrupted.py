"""Runs that are interrupted, and how they are held against those that were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
import torch

from saewidgets.training import TrainConfig, TrainingRun, train
from saewidgets.training.loop import Loop
from saewidgets.training.saved import tensors_of

from .toy import ToyStream, toy_sae

CLOCK = ["seconds", "vectors_per_second"]


class Hashed(ToyStream):
    """The toy stream, with what a stream says of itself."""

    def fingerprints(self) -> dict[str, str]:
        return {"texts": "f" * 64, "batch_size": str(self.batch_size), "seed": "0"}


def config(folder: Path | None, **options: Any) -> TrainConfig:
    """Everything on that has a state: AuxK soon, annealing, clipping."""
    own = {"n_tokens": 60_000, "dead_window": 1500, "n_logs": 23, "k_anneal_from": 12, "clip_norm": 0.5, **options}
    if folder is not None:
        own = {"checkpoint_dir": folder, "checkpoint_every": 7000, **own}
    return TrainConfig(**own)


def same(one: TrainingRun, other: TrainingRun) -> None:
    """Assert that two ended runs are equal but for the clock."""
    assert (one.step, one.tokens, one.state) == (other.step, other.tokens, other.state)
    assert one.sae.fingerprint() == other.sae.fingerprint() and one.sae.metadata == other.sae.metadata
    pd.testing.assert_frame_equal(one.metrics.drop(columns=CLOCK), other.metrics.drop(columns=CLOCK), check_exact=True)
    pd.testing.assert_frame_equal(one.events, other.events)
    ours, theirs = tensors_of(one._loop), tensors_of(other._loop)
    assert ours.keys() == theirs.keys() and any("exp_avg_sq" in name or "momentum" in name for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def whole(stream: Any = None, d_sae: int = 64, **options: Any) -> TrainingRun:
    """The run that nothing interrupts."""
    run = train(toy_sae(d_sae=d_sae), stream if stream is not None else Hashed(), config(None, **options))
    run.wait()
    return run


def interrupted(folder: Path, after: int = 100, stream: Any = None, d_sae: int = 64, **options: Any) -> None:
    """A run that is gone in the middle of step `after`, as a killed process is: it ends without a last checkpoint."""
    stream = stream if stream is not None else Hashed()
    killed, take = RuntimeError("killed"), Loop.take

    def killed_after(loop: Loop, batch: Any) -> None:
        if loop.step >= after:
            raise killed
        take(loop, batch)

    with patch.object(Loop, "take", killed_after), pytest.raises(RuntimeError, match="killed"):
        train(toy_sae(d_sae=d_sae), stream, config(folder, **options)).wait()
