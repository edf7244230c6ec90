"""The run: steps, schedules, pause and resume."""

from __future__ import annotations

from saewidgets.training.config import TrainConfig
from saewidgets.training.plan import Plan, plan
from saewidgets.training.run import TrainingRun, train

__all__ = ["Plan", "TrainConfig", "TrainingRun", "plan", "train"]
