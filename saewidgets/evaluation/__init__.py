"""How good an SAE is: its report, and a control to hold it against."""

from __future__ import annotations

from saewidgets.evaluation.report import Evaluation, evaluate, random_decoder

__all__ = ["Evaluation", "evaluate", "random_decoder"]
