"""How a running IPython shows our objects. Types and widgets are named, not imported."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from saewidgets import progress

SHOWN_BY = {
    ("saewidgets.training.run", "TrainingRun"): "training_run",
    ("saewidgets.training.sweep", "SweepRun"): "sweep_run",
    ("saewidgets.features.index", "FeatureIndex"): "feature_index",
    ("saewidgets.sae.sae", "SAE"): "sae",
}
"""A type's home and name -> the function of `widgets.display` that shows it."""


def register() -> None:
    """Register the rich displays and the progress bar with the IPython of this process, if one runs."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    formatter = shell.display_formatter.mimebundle_formatter
    for (module, name), function in SHOWN_BY.items():
        formatter.for_type_by_name(module, name, _display(function))
    progress.listen("saewidgets.widgets.progress:bar")


def _display(function: str) -> Callable[..., Any]:
    def show(shown: object, include: Any = None, exclude: Any = None) -> Any:
        return getattr(import_module("saewidgets.widgets.display"), function)(shown)

    return show
