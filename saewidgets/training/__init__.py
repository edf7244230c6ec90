"""The run: steps, schedules, live changes, checkpoints, pause and resume; and many of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saewidgets.training.config import TrainConfig
from saewidgets.training.data import TensorStream
from saewidgets.training.plan import Plan, plan
from saewidgets.training.resume import resume_training
from saewidgets.training.run import TrainingRun
from saewidgets.training.start import train
from saewidgets.training.sweep import SweepRun, sweep

if TYPE_CHECKING:
    from saewidgets.training.job import TrainJob

__all__ = [
    "Plan",
    "SweepRun",
    "TensorStream",
    "TrainConfig",
    "TrainJob",
    "TrainingRun",
    "plan",
    "resume_training",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    if name != "TrainJob":  # it imports torch's distributed tensors, which takes a while
        raise AttributeError(f"saewidgets.training has no {name!r}.")
    from saewidgets.training.job import TrainJob

    return TrainJob
