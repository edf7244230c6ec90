"""FeatureDashboard in a real JupyterLab: clicks, brushing, keys, what Python sets, the page without a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_index
from jupyterlab_session import NotebookPage, OfflinePage
from playwright.sync_api import Locator, expect

CELLS = [
    "import saewidgets as sw\nimport ipywidgets\nindex = sw.FeatureIndex.open({path!r})\n"
    "dashboard = sw.FeatureDashboard(index)\nfirst = dashboard.feature\ndashboard",
    "linked = sw.FeatureDashboard(index, feature=3, context='full')\n"
    "number = ipywidgets.IntText(3)\nipywidgets.jslink((number, 'value'), (linked, 'feature'))\n"
    "ipywidgets.VBox([number, linked])",
]


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook([cell.replace("{path!r}", repr(str(small_index.folder()))) for cell in CELLS])
    page.run_all()
    yield page


@pytest.fixture
def dashboard(notebook: NotebookPage) -> Locator:
    notebook.run_cell("dashboard.feature = first; dashboard.range = None")
    notebook.run_cell("dashboard.group = 'top'; dashboard.context = 'snippet'")
    shown = notebook.output(0).locator(".sw-root")
    expect(shown.locator(".sw-fd-example").first).to_be_visible(timeout=30_000)
    return shown


def test_a_group_and_a_width_chosen_are_read_in_python(notebook: NotebookPage, dashboard: Locator) -> None:
    dashboard.get_by_role("button", name="random", exact=True).click()
    notebook.wait_for("dashboard.group", "'random'")
    dashboard.get_by_role("button", name="sentence", exact=True).click()
    notebook.wait_for("dashboard.context", "'sentence'")
    expect(dashboard).to_contain_text("drawn at random from all")


def test_brushing_the_histogram_filters_the_examples(notebook: NotebookPage, dashboard: Locator) -> None:
    box = dashboard.get_by_role("slider").bounding_box()
    assert box is not None
    mouse, middle = notebook.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] * 0.2, middle)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.4, middle, steps=4)
    mouse.up()
    # the range is told while the mouse moves: what counts is where it was let go, at twice the strength
    notebook.wait_for("dashboard.range is not None and dashboard.range[1] > 1.9 * dashboard.range[0]", "True")
    low, high = eval(notebook.run_cell("dashboard.range"))
    expect(dashboard).to_contain_text(re.compile(r"\d examples? in the brushed range"))
    for text in dashboard.locator(".sw-fd-gutter .sw-number").all_inner_texts():
        assert low * 0.99 <= float(text.replace(",", "")) <= high * 1.01
    notebook.page.keyboard.press("Escape")
    notebook.wait_for("dashboard.range", "")
    notebook.page.keyboard.press("ArrowLeft")
    notebook.wait_for("dashboard.range is not None", "True")
    dashboard.get_by_title("let go of the range").click()
    notebook.wait_for("dashboard.range", "")


def test_a_token_pointed_at_stands_in_the_histogram(dashboard: Locator) -> None:
    line = dashboard.locator(".sw-fd-example").first
    line.locator(".sw-token-mark").hover()
    expect(dashboard.locator(".sw-marker")).to_have_count(1)
    expect(dashboard.locator(".sw-card")).to_contain_text("of its max")


def test_peaks_stand_under_each_other(dashboard: Locator) -> None:
    boxes = [mark.bounding_box() for mark in dashboard.locator(".sw-token-mark").all()[:6]]
    middles = [box["x"] + box["width"] / 2 for box in boxes if box is not None]
    assert len(middles) > 2 and max(middles) - min(middles) < 2


def test_an_example_opens(dashboard: Locator) -> None:
    line = dashboard.locator(".sw-fd-example").first
    before = line.locator(".sw-token").count()
    line.get_by_role("button").click()
    expect(line.get_by_role("button")).to_have_attribute("aria-expanded", "true")
    assert line.locator(".sw-token").count() > before


def test_j_walks_the_features_and_not_the_cells(notebook: NotebookPage, dashboard: Locator) -> None:
    first = int(notebook.run_cell("first"))
    dashboard.get_by_role("button", name=re.compile("snippet")).click()
    notebook.page.keyboard.press("j")
    notebook.wait_for("dashboard.feature", str(first + 1))
    expect(dashboard.locator(".sw-title")).to_have_text(f"#{first + 1}")
    expect(notebook.page.locator(".jp-Cell.jp-mod-selected")).to_have_count(1)
    active = "cells => cells.findIndex(cell => cell.classList.contains('jp-mod-active'))"
    assert notebook.page.locator(".jp-Notebook .jp-Cell").evaluate_all(active) == 0
    notebook.page.keyboard.press("k")
    notebook.wait_for("dashboard.feature", str(first))


def test_tokens_that_it_writes_are_not_cut_and_stay_whole(notebook: NotebookPage, dashboard: Locator) -> None:
    longest = "index.table().top_logits.str.split().map(lambda words: max(map(len, words))).idxmax()"
    notebook.run_cell(f"dashboard.feature = int({longest})")
    expect(dashboard.locator(".sw-title")).to_have_text(f"#{notebook.run_cell('dashboard.feature')}")
    expect(dashboard.locator(".sw-fd-effect").first).to_be_visible()
    cut = "tokens => tokens.filter((t) => t.scrollWidth > t.clientWidth + 1).map((t) => t.textContent)"
    # a line is 16 px high; the narrowest column of these widths has room for fifteen characters
    broken = (
        "tokens => tokens.filter((t) => t.textContent.length < 16 && t.clientHeight > 20).map((t) => t.textContent)"
    )
    for width in (1080, 800, 770, 700, 640, 560, 320):
        notebook.set_cell_width(width)
        notebook.page.wait_for_timeout(200)
        assert dashboard.locator(".sw-fd-effect").evaluate_all(cut) == []
        assert width < 400 or dashboard.locator(".sw-fd-effect").evaluate_all(broken) == []
        inside = "e => e.scrollWidth <= e.clientWidth + 1"
        assert dashboard.locator(".sw-fd-column").evaluate_all(f"columns => columns.every({inside})")
    notebook.set_cell_width(800)


def test_a_definition_near_the_edge_stays_inside(notebook: NotebookPage, dashboard: Locator) -> None:
    last = dashboard.locator(".sw-fd-measures .sw-term").last
    for width in (800, 560):
        notebook.set_cell_width(width)
        last.hover()
        tip, whole = last.locator(".sw-tip").bounding_box(), dashboard.bounding_box()
        assert tip is not None and whole is not None
        assert whole["x"] <= tip["x"] and tip["x"] + tip["width"] <= whole["x"] + whole["width"]
        notebook.page.mouse.move(0, 0)
    notebook.set_cell_width(800)


def test_what_python_sets_is_seen(notebook: NotebookPage, dashboard: Locator) -> None:
    notebook.run_cell("dashboard.feature = 17")
    expect(dashboard.locator(".sw-title")).to_have_text("#17")


def test_in_a_box_it_follows_a_link_and_refuses_what_does_not_exist(notebook: NotebookPage) -> None:
    linked = notebook.output(1).locator(".sw-root")
    notebook.run_cell("number.value = 17")
    expect(linked.locator(".sw-title")).to_have_text("#17")
    notebook.wait_for("linked.feature", "17")
    notebook.run_cell("number.value = 999999")
    expect(linked.get_by_role("alert").first).to_contain_text("There is no feature #999999")
    expect(linked.locator(".sw-title")).to_have_text("#17")
    assert notebook.run_cell("linked.feature") == "17"


def test_a_feature_that_does_not_exist_is_said_to_be_none(notebook: NotebookPage, dashboard: Locator) -> None:
    field = dashboard.get_by_label("Feature number")
    before = notebook.run_cell("dashboard.feature")
    place = field.bounding_box()
    field.fill("999999")
    field.press("Enter")
    expect(dashboard.get_by_role("alert")).to_contain_text("There is no feature #999999: this SAE has features 0 to")
    expect(field).to_have_value(before)
    assert field.bounding_box() == place  # the sentence moves nothing beside it
    assert notebook.run_cell("dashboard.feature") == before
    said = "try:\n    dashboard.feature = 999999\nexcept Exception as error:\n    print(type(error).__name__, error)"
    assert notebook.run_cell(said).startswith("TraitError There is no feature #999999")


def test_the_pictures(notebook: NotebookPage, dashboard: Locator) -> None:
    notebook.page.set_viewport_size({"width": 1000, "height": 1600})
    notebook.page.mouse.move(0, 0)
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        expect(dashboard).to_have_attribute("data-theme", theme)
        notebook.screenshot(f"feature_dashboard_{theme}", dashboard)


def test_nothing_was_said_or_asked_for(notebook: NotebookPage) -> None:
    assert notebook.console_errors == []
    assert notebook.foreign_requests == []


def test_the_page_needs_no_kernel(
    notebook: NotebookPage, tmp_path: Path, page_offline: Callable[..., OfflinePage]
) -> None:
    file = tmp_path / "feature.html"
    notebook.run_cell(f"dashboard.feature = first; dashboard.to_html({str(file)!r})")
    assert file.stat().st_size < 1_000_000
    page = page_offline(file)
    root = page.page.locator(".sw-root")
    root.locator(".sw-token-mark").first.hover()
    expect(root.locator(".sw-marker")).to_have_count(1)
    root.get_by_role("button", name="random", exact=True).click()
    expect(root).to_contain_text("drawn at random from all")
    slider = root.get_by_role("slider")
    slider.focus()
    slider.press("ArrowLeft")
    expect(root).to_contain_text("of those recorded with this page in the brushed range")
    assert page.console_errors == [] and page.requests == []
