"""FeatureBrowser in a real JupyterLab: the table drives the dashboard and Python, and Python both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_index
from jupyterlab_session import NotebookPage, OfflinePage
from playwright.sync_api import Locator, expect

CELLS = [
    "import saewidgets as sw\nindex = sw.FeatureIndex.open({path!r})\nbrowser = sw.FeatureBrowser(index)\nbrowser",
    "index",
]


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook([cell.replace("{path!r}", repr(str(small_index.folder()))) for cell in CELLS])
    page.run_all()
    yield page


@pytest.fixture
def browser(notebook: NotebookPage) -> Locator:
    notebook.run_cell("browser.query = ''; browser.sort = 'match'; browser.descending = False")
    shown = notebook.output(0).locator(".sw-root")
    expect(shown.locator(".sw-fb-scroll .sw-fb-row").first).to_be_visible(timeout=30_000)
    return shown


def rows(browser: Locator) -> Locator:
    return browser.locator(".sw-fb-scroll .sw-fb-row")


def number(row: Locator) -> str:
    return row.locator(".sw-fb-id").inner_text().removeprefix("#")


def test_a_click_on_a_row_is_read_in_python_and_shown(notebook: NotebookPage, browser: Locator) -> None:
    row = rows(browser).nth(10)
    wanted = number(row)
    row.click()
    notebook.wait_for("browser.feature", wanted)
    expect(browser.locator(".sw-fd .sw-title")).to_have_text(f"#{wanted}")
    expect(browser.locator(".sw-fb-selected .sw-fb-id")).to_have_text(f"#{wanted}")


def test_what_python_selects_is_scrolled_into_view(notebook: NotebookPage, browser: Locator) -> None:
    last = notebook.run_cell("int(index.table().query('count > 0').feature.iloc[-1])")
    notebook.run_cell(f"browser.feature = {last}")
    expect(browser.locator(".sw-fb-selected .sw-fb-id")).to_have_text(f"#{last}")
    expect(browser.locator(".sw-fb-selected")).to_be_in_viewport()
    expect(browser.locator(".sw-fd .sw-title")).to_have_text(f"#{last}")


def test_headers_sort(notebook: NotebookPage, browser: Locator) -> None:
    browser.get_by_role("button", name="sort by density").click()
    notebook.wait_for("browser.sort, browser.descending", "('density', True)")
    expect(rows(browser).first).to_be_in_viewport()  # the first rows, wherever the selected one went
    assert browser.locator(".sw-fb-scroll").evaluate("e => e.scrollTop") == 0
    browser.locator(".sw-fb-scroll").focus()
    notebook.page.keyboard.press("Home")
    order = "sort_values(['density', 'feature'], ascending=[False, True])"
    best = notebook.run_cell(f"int(index.table().{order}.feature.iloc[0])")
    notebook.wait_for("browser.feature", best)
    expect(browser.get_by_role("columnheader").nth(2)).to_have_attribute("aria-sort", "descending")
    browser.get_by_role("button", name="sort by density").click()
    notebook.wait_for("browser.descending", "False")


def test_a_header_is_defined_where_the_pointer_or_the_focus_is(notebook: NotebookPage, browser: Locator) -> None:
    header = browser.get_by_role("button", name="sort by density")
    tip = browser.locator(".sw-fb-head .sw-tip").first
    notebook.page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    header.hover()
    expect(tip).to_contain_text("The share of scanned tokens")
    expect(tip).to_be_visible()
    notebook.page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    browser.locator("[role=grid]").focus()
    notebook.page.keyboard.press("Tab")  # "#"
    notebook.page.keyboard.press("Tab")
    expect(header).to_be_focused()
    expect(tip).to_be_visible()
    notebook.screenshot("feature_browser_tip")
    header.blur()


def test_a_search_finds_what_the_index_finds(notebook: NotebookPage, browser: Locator) -> None:
    browser.locator(".sw-fb-scroll").focus()
    notebook.page.keyboard.press("/")
    field = browser.get_by_role("searchbox")
    expect(field).to_be_focused()
    field.fill(" Lily")
    notebook.wait_for("browser.query", "' Lily'")
    best = notebook.run_cell("int(index.search(' Lily').iloc[0].feature)")
    expect(rows(browser).first.locator(".sw-fb-id")).to_have_text(f"#{best}")
    field.press("Escape")
    notebook.wait_for("browser.query", "''")


def test_j_and_k_walk_the_rows(notebook: NotebookPage, browser: Locator) -> None:
    rows(browser).nth(9).click()
    place = int(browser.locator(".sw-fb-selected").get_attribute("aria-rowindex") or 0)
    following = number(browser.locator(f".sw-fb-row[aria-rowindex='{place + 1}']"))
    notebook.page.keyboard.press("j")
    notebook.wait_for("browser.feature", following)


def test_the_dashboard_fits_the_width(notebook: NotebookPage, browser: Locator) -> None:
    left, right = browser.locator(".sw-fb-left"), browser.locator(".sw-fb-right")

    def places() -> tuple[dict, dict]:
        a, b = left.bounding_box(), right.bounding_box()
        assert a is not None and b is not None
        return a, b

    for width, beside in ((1200, True), (800, False), (560, False)):
        notebook.set_cell_width(width)
        notebook.page.wait_for_timeout(200)
        a, b = places()
        assert (b["x"] >= a["x"] + a["width"]) is beside
        assert browser.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    notebook.set_cell_width(800)


def test_an_index_shows_itself(notebook: NotebookPage) -> None:
    expect(notebook.output(1).locator(".sw-fb")).to_be_visible(timeout=30_000)


def test_the_pictures(notebook: NotebookPage, browser: Locator) -> None:
    notebook.page.set_viewport_size({"width": 1300, "height": 1600})
    notebook.set_cell_width(1100)
    notebook.page.mouse.move(0, 0)
    notebook.run_cell("browser.feature = sw.FeatureBrowser(index).feature")
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        expect(browser).to_have_attribute("data-theme", theme)
        expect(browser.locator(".sw-fd-example").first).to_be_visible()
        notebook.screenshot(f"feature_browser_{theme}", browser)
    notebook.set_cell_width(800)


def test_nothing_was_said_or_asked_for(notebook: NotebookPage) -> None:
    assert notebook.console_errors == []
    assert notebook.foreign_requests == []


def test_the_page_needs_no_kernel(
    notebook: NotebookPage, tmp_path: Path, page_offline: Callable[..., OfflinePage]
) -> None:
    file = tmp_path / "features.html"
    notebook.run_cell(f"browser.to_html({str(file)!r})")
    assert file.stat().st_size < 3_500_000
    page = page_offline(file, width=1100)
    root = page.page.locator(".sw-root")
    expect(root).to_contain_text("of 3,072 features can be opened")
    root.get_by_role("button", name="sort by max").click()
    expect(root.locator("[aria-sort=descending]")).to_contain_text("max")
    root.get_by_label("only recorded").check()
    other = rows(root).nth(1)
    wanted = number(other)
    other.click()
    expect(root.locator(".sw-fd .sw-title")).to_have_text(f"#{wanted}")
    root.locator(".sw-token-mark").first.hover()
    expect(root.locator(".sw-marker")).to_have_count(1)
    root.get_by_label("only recorded").uncheck()
    for query in (" Lily", "bridge", "he"):
        found = notebook.run_cell(f"index.search({query!r}, n=16).feature.tolist()")
        expected = [f"#{feature}" for feature in json.loads(found)]
        root.get_by_role("searchbox").fill(query)
        expect(root).to_contain_text(f"active on a token that says “{query}”, of each token the best")
        if (by_match := root.get_by_role("button", name="best match first")).count():
            by_match.click()  # it was sorted by max
        expect(rows(root).first.locator(".sw-fb-id")).to_have_text(expected[0])
        shown = rows(root).locator(".sw-fb-id").all_inner_texts()
        assert shown[: len(expected)] == expected
    root.get_by_role("searchbox").press("Escape")
    off = root.locator(".sw-fb-off").first
    off.click()
    expect(root.locator(".sw-fd [role=status]")).to_contain_text("is not among them")
    field = root.get_by_label("Feature number", exact=True)
    field.fill("3072")
    field.press("Enter")
    expect(root.get_by_role("alert")).to_have_text("There is no feature #3072: this SAE has features 0 to 3071.")
    expect(field).to_have_value(number(off))
    assert page.console_errors == [] and page.requests == []
