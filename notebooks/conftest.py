"""Strict nbval compares every output but the two that are drawings: a widget's view and a plotly figure."""

from __future__ import annotations

import pytest

DRAWN = "application/vnd.plotly.v1+json"


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Committed notebooks keep text alone (tests/test_notebooks.py), so there is nothing to compare a figure with."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += (DRAWN,)
