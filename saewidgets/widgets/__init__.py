"""What people see. One Python file a widget, one folder in js/src of the same name.

Each is imported when it is first asked for, so that one widget does not pay for the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saewidgets.widgets.feature_browser import FeatureBrowser
    from saewidgets.widgets.feature_dashboard import FeatureDashboard
    from saewidgets.widgets.steering_panel import SteeringPanel
    from saewidgets.widgets.sweep_monitor import SweepMonitor
    from saewidgets.widgets.token_heatmap import TokenHeatmap
    from saewidgets.widgets.training_monitor import TrainingMonitor

__all__ = ["FeatureBrowser", "FeatureDashboard", "SteeringPanel", "SweepMonitor", "TokenHeatmap", "TrainingMonitor"]

_HOME = {
    "FeatureBrowser": "feature_browser",
    "FeatureDashboard": "feature_dashboard",
    "SteeringPanel": "steering_panel",
    "SweepMonitor": "sweep_monitor",
    "TokenHeatmap": "token_heatmap",
    "TrainingMonitor": "training_monitor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"saewidgets.widgets has no {name!r}. It has: {', '.join(__all__)}.")
    return getattr(import_module(f"saewidgets.widgets.{_HOME[name]}"), name)
