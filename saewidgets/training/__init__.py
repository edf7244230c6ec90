"""The run: steps, schedules, live changes, checkpoints, pause and resume."""

from __future__ import annotations

from saewidgets.training.config import TrainConfig
from saewidgets.training.data import TensorStream
from saewidgets.training.plan import Plan, plan
from saewidgets.training.run import TrainingRun
from saewidgets.training.start import resume_training, train

__all__ = ["Plan", "TensorStream", "TrainConfig", "TrainingRun", "plan", "resume_training", "train"]
