"""Pages without a kernel: one HTML file, nothing fetched, the widgets still answer.

A page carries each bundle once and the snapshots as JSON inside inert <script> elements; `js/src/export_host` mounts
them. No `<` survives in that JSON, so no token, label or bundle can end its element.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from saewidgets.widgets._base import as_json, bundle

Snapshot = dict[str, Any]
Layout = dict[str, Any]

STYLE = """
body { margin: 0 auto; max-width: 1000px; padding: 16px; font: 14px/1.5 system-ui, sans-serif; }
body { color: #1c2024; background: #fff; }
@media (prefers-color-scheme: dark) { body { color: #e6e8ea; background: #111418; } }
.sw-embed { margin: 16px 0; } .sw-embed pre { white-space: pre-wrap; }
"""


def page(snapshots: Sequence[Snapshot], title: str) -> str:
    """A whole HTML page of widgets, one under the other.

    Args:
        snapshots: What `SAEWidget.snapshot()` returned.
        title: The page's title.
    """
    places = "\n".join(place(str(number), snapshot["text"]) for number, snapshot in enumerate(snapshots))
    carried = scripts({str(number): in_text(snapshot) for number, snapshot in enumerate(snapshots)})
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{places}\n{carried}\n</body>\n</html>\n"
    )


def place(key: str, text: str) -> str:
    """Where one widget is mounted; until then, and without JavaScript, its line of text stands there."""
    return f'<div class="sw-embed" data-sw-snapshot="{escape(key)}"><pre>{escape(text)}</pre></div>'


def html_of_layout(layout: Layout) -> str:
    """The place of a widget, of a box of them, or the text of a control that needs Python (see `handover`)."""
    if "snapshot" in layout:
        return place(layout["snapshot"], layout["text"])
    if "children" in layout:
        direction = "row" if layout["across"] else "column"
        inside = "".join(f'<div style="flex: 1">{html_of_layout(child)}</div>' for child in layout["children"])
        return f'<div style="display: flex; flex-flow: {direction} wrap; gap: 8px">{inside}</div>'
    return f"<p>{escape(layout['text'])}</p>"


def plotly_figure(figure: dict[str, Any], number: int) -> str:
    """A plotly figure drawn by the copy of plotly.js that the page carries (`plotly_script`)."""
    return (
        f'<div id="sw-plotly-{number}"></div>'
        f'<script type="application/json" class="sw-plotly" data-into="sw-plotly-{number}">{as_json(figure)}</script>'
    )


def plotly_script() -> str:
    """plotly.js itself, from the installed package, and the few lines that draw the page's figures with it."""
    from plotly.offline import get_plotlyjs

    draw = (
        'for (const el of document.querySelectorAll(".sw-plotly")) { '
        "const { data, layout } = JSON.parse(el.textContent); "
        "Plotly.newPlot(el.dataset.into, data, layout, { responsive: true, displaylogo: false }); }"
    )
    return f"<script>{in_script(get_plotlyjs())}</script><script>{draw}</script>"


def in_text(snapshot: Snapshot) -> Snapshot:
    """A snapshot that JSON can carry: its buffers in base64."""
    answers = [
        {**answer, "buffers": [base64.b64encode(data).decode("ascii") for data in answer.get("buffers", ())]}
        for answer in snapshot["answers"]
    ]
    return {**snapshot, "answers": answers}


def in_script(source: str) -> str:
    """JavaScript that may stand inside a <script> element."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def scripts(snapshots: dict[str, Snapshot]) -> str:
    """The elements that carry bundles and snapshots and start them. Empty without a snapshot."""
    if not snapshots:
        return ""
    bundles = {name: bundle(name) for name in sorted({snapshot["bundle"] for snapshot in snapshots.values()})}
    carried = {
        key: {name: snapshot[name] for name in ("bundle", "state", "answers")} for key, snapshot in snapshots.items()
    }
    host = in_script(bundle("export_host"))
    return (
        f'<script type="application/json" id="sw-bundles">{as_json(bundles)}</script>\n'
        f'<script type="application/json" id="sw-snapshots">{as_json(carried)}</script>\n'
        f'<script type="module">{host}</script>'
    )
