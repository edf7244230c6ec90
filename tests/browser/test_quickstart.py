"""The quickstart in a real JupyterLab, as a reader would go through it, and its exported page without a network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyterlab_session import ROOT, NotebookPage, OfflinePage
from playwright.sync_api import Locator, expect

QUICKSTART = ROOT / "notebooks" / "01_quickstart.ipynb"
PATIENCE = 240


def cell_with(code: str) -> int:
    """The number of the cell that holds `code`."""
    cells = json.loads(QUICKSTART.read_text(encoding="utf-8"))["cells"]
    return next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code" and code in "".join(cell["source"]))


def show(notebook: NotebookPage, code: str) -> Locator:
    """The output of the cell that holds `code`, scrolled to: JupyterLab draws what is far away only when it is near."""
    output = notebook.page.locator(".jp-Notebook .jp-Cell").nth(cell_with(code))
    output.scroll_into_view_if_needed()
    return output.locator(".jp-OutputArea-output .sw-root").first


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook(QUICKSTART)
    page.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    yield page
    assert page.console_errors == []
    assert page.foreign_requests == []


def test_the_monitors_curve_moves_while_training_and_pause_pauses(notebook: NotebookPage) -> None:
    monitor = show(notebook, "run = sw.train(")
    expect(monitor).to_be_visible(timeout=PATIENCE * 1000)
    said = monitor.locator("[role=progressbar]")
    expect(said).to_be_visible()
    line = monitor.locator(".sw-line").first
    expect(line).to_have_attribute("d", re.compile("^M"), timeout=PATIENCE * 1000)  # the first row
    before = line.get_attribute("d") or ""
    expect(line).not_to_have_attribute("d", before, timeout=60_000)
    assert (line.get_attribute("d") or "").count("L") > before.count("L")
    monitor.get_by_role("button", name="pause").click()
    expect(monitor.get_by_role("button", name="go on")).to_be_visible()
    monitor.get_by_role("button", name="go on").click()


def test_everything_ran(notebook: NotebookPage) -> None:
    notebook.run_cell("run.wait()", patience=PATIENCE)
    notebook.wait_until_idle()
    assert notebook.run_cell("print(run.state, page.name)") == "finished features.html"


def test_a_token_is_clicked_and_its_feature_read_in_python(notebook: NotebookPage) -> None:
    heatmap = show(notebook, "sw.TokenHeatmap(")
    heatmap.locator(".sw-token", has_text=" bridge").click()
    heatmap.locator(".sw-id").first.click()
    shown = heatmap.locator(".sw-title").inner_text()
    # anywidget gives each widget a class of its own, so its type is no help
    found = "[w.feature for w in __import__('ipywidgets').Widget.widgets.values() if isinstance(w, sw.TokenHeatmap)]"
    notebook.wait_for(f"print({found})", f"[{shown.removeprefix('#')}]")


def test_the_feature_is_set_from_python_and_the_view_changes(notebook: NotebookPage) -> None:
    dashboard = show(notebook, "dashboard = sw.FeatureDashboard(")
    notebook.run_cell("dashboard.feature = 7")
    expect(dashboard.locator(".sw-title").first).to_contain_text("#7")
    notebook.run_cell("dashboard.feature = feature")


def test_a_slider_is_dragged_and_the_steered_text_changes(notebook: NotebookPage) -> None:
    panel = show(notebook, "panel = sw.SteeringPanel(")
    before = notebook.wait_for("print(panel.steered_text)", lambda text: text != "")
    slider = panel.locator("input[type=range]").first
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    notebook.page.mouse.move(box["x"] + box["width"] * 0.6, middle)
    notebook.page.mouse.down()
    notebook.page.mouse.move(box["x"] + 2, middle, steps=6)
    notebook.page.mouse.up()
    notebook.wait_for("print(panel.steered_text)", lambda text: text not in ("", before), patience=30)


def test_the_page_works_offline(page_offline: Callable[..., OfflinePage], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "saewidgets-html", str(QUICKSTART)]
    subprocess.run([*command, "--output-dir", str(tmp_path)], check=True, capture_output=True, timeout=400)
    page = page_offline(tmp_path / "01_quickstart.html")
    roots = page.page.locator(".sw-root")
    expect(roots).to_have_count(5)
    heatmap = roots.filter(has=page.page.locator("textarea[name=prompt]")).first
    heatmap.scroll_into_view_if_needed()
    heatmap.locator(".sw-token").nth(5).hover()
    expect(heatmap.locator(".sw-card")).to_be_visible()
    heatmap.locator(".sw-token").nth(5).click()
    expect(heatmap.locator(".sw-features tbody tr").first).to_be_visible()
    browser = roots.first
    ids = "table tbody tr td:first-child, [role=row] [role=cell]:first-child, [role=row] [role=gridcell]:first-child"
    first = browser.locator(ids).first.inner_text()
    browser.get_by_role("columnheader", name="density").first.click()
    expect(browser.locator(ids).first).not_to_have_text(first)
    expect(page.page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert page.requests == [] and page.console_errors == []
