"""Run in a notebook's kernel at its end: the snapshots of the widgets that its outputs show.

A container becomes a layout of its children; a plain ipywidgets control cannot work without Python, so its text and the
reason stand in its place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import ipywidgets
from ipywidgets.widgets.widget import _instances

from saewidgets.widgets._base import SAEWidget, sentence
from saewidgets.widgets.export import Layout, in_text


def as_text(model_ids: Sequence[str]) -> str:
    """JSON of `layouts` (model id -> tree) and `snapshots` (model id -> snapshot, buffers in base64)."""
    snapshots: dict[str, Any] = {}
    layouts = {}
    for model_id in model_ids:
        widget = _instances.get(model_id)
        if widget is not None:  # a closed one, such as a progress bar, is gone
            layouts[model_id] = layout_of(widget, snapshots)
    return json.dumps({"layouts": layouts, "snapshots": snapshots})


def layout_of(widget: ipywidgets.Widget, snapshots: dict[str, Any]) -> Layout:
    """The tree of one widget; puts the snapshots that it finds into `snapshots`."""
    if isinstance(widget, SAEWidget):
        try:
            snapshot = in_text(widget.snapshot())
        except Exception as error:  # the page holds other widgets, and the reader learns what is missing
            return {"text": f"{type(widget).__name__} could not be recorded: {sentence(error)}"}
        snapshots[widget.model_id] = snapshot
        return {"snapshot": widget.model_id, "text": snapshot["text"]}
    if isinstance(widget, ipywidgets.Box):
        across = isinstance(widget, ipywidgets.HBox)
        return {"across": across, "children": [layout_of(child, snapshots) for child in widget.children]}
    value = getattr(widget, "value", None)
    said = f": {value}" if isinstance(value, (str, int, float, bool)) else ""
    return {"text": f"{type(widget).__name__}{said} (works in the notebook: this control needs Python)"}
