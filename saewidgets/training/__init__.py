"""The run: steps, schedules, live changes, checkpoints, pause and resume; and many of them at once."""

from __future__ import annotations

from saewidgets.training.config import TrainConfig
from saewidgets.training.data import TensorStream
from saewidgets.training.run import TrainingRun
from saewidgets.training.start import resume_training, train
from saewidgets.training.sweep import SweepRun, sweep

__all__ = ["SweepRun", "TensorStream", "TrainConfig", "TrainingRun", "resume_training", "sweep", "train"]
