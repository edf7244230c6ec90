"""`jupyter nbconvert --to saewidgets-html notebook.ipynb`: execute, take snapshots, write one offline page.

Stock exports lose widgets (their state is not in the notebook, their scripts come from CDNs). This one runs a last cell
of its own while the kernel still lives, which hands over the snapshot of every widget the notebook shows.
"""

from __future__ import annotations

import json
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from traitlets import default
from traitlets.config import Config

from saewidgets.widgets.export import html_of_layout, plotly_figure, plotly_script, scripts

VIEW = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
HANDED_OVER = "application/vnd.saewidgets.snapshots+json"

TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block extra_css -%}<style>.sw-embed pre { white-space: pre-wrap; }</style>{%- endblock -%}
{%- block footer_js -%}{{ resources.saewidgets_scripts }}{%- endblock -%}
"""


class SnapshotExecutePreprocessor(ExecutePreprocessor):
    """Executes the notebook and, before its kernel goes, asks it for the snapshots of the widgets that are shown."""

    @default("enabled")
    def _enabled_default(self) -> bool:
        return True

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        """Execute `nb`; leaves `layouts` and `snapshots` in the resources. Raises what an executed cell raises."""
        last = new_code_cell()
        nb.cells.append(last)
        nb, resources = super().preprocess(nb, resources, km)
        nb.cells.pop()
        given: dict[str, Any] = {"layouts": {}, "snapshots": {}}
        for output in last.outputs:
            given = json.loads(output.get("data", {}).get(HANDED_OVER, "null")) or given
        resources["saewidgets"] = given
        return nb, resources

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Execute one cell; the last, ours, is written when all the widgets before it are known."""
        if index == len(self.nb.cells) - 1:
            cell.source = (
                "from saewidgets.widgets import handover as _handover\n"
                f"display({{{HANDED_OVER!r}: _handover.as_text({shown(self.nb)!r})}}, raw=True)"
            )
        return super().preprocess_cell(cell, resources, index)


def shown(nb: NotebookNode) -> list[str]:
    """The ids of the widget models that a notebook's outputs show, in order, each once."""
    ids = [
        output["data"][VIEW]["model_id"]
        for cell in nb.cells
        for output in cell.get("outputs", ())
        if VIEW in output.get("data", {})
    ]
    return list(dict.fromkeys(ids))


class SaewidgetsHTMLExporter(HTMLExporter):
    """One HTML page of an executed notebook: nothing fetched, the widgets still hover, sort and slide."""

    export_from_notebook = "HTML with saewidgets that work offline"

    @default("raw_template")
    def _raw_template_default(self) -> str:
        return TEMPLATE

    @property
    def default_config(self) -> Config:
        """Ours instead of the stock execution (with `--execute` it would run twice)."""
        config = Config({"SaewidgetsHTMLExporter": {"preprocessors": [SnapshotExecutePreprocessor]}})
        config.merge(super().default_config)
        return config

    @default("default_preprocessors")
    def _default_preprocessors_default(self) -> list[Any]:
        stock = HTMLExporter.default_preprocessors.default()
        return [name for name in stock if not str(name).endswith("ExecutePreprocessor")]

    def _init_resources(self, resources: Any) -> Any:
        """Called after the preprocessors of `from_notebook_node` have not run yet: the key must exist."""
        resources = super()._init_resources(resources)
        resources.setdefault("saewidgets_scripts", "")
        return resources

    def _preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        nb, resources = super()._preprocess(nb, resources)
        given = resources.get("saewidgets", {"layouts": {}, "snapshots": {}})
        figures = 0
        for cell in nb.cells:
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                if VIEW in data:
                    layout = given["layouts"].get(data.pop(VIEW)["model_id"])
                    data["text/html"] = html_of_layout(layout) if layout else ""
                elif PLOTLY in data:
                    data["text/html"] = plotly_figure(data.pop(PLOTLY), figures)
                    figures += 1
        resources["saewidgets_scripts"] = (plotly_script() if figures else "") + scripts(given["snapshots"])
        return nb, resources
