"""The ground the browser tests stand on: a widget of this file's own, in the host, driven from both ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyterlab_session import CELL_WIDTH, NotebookPage, OfflinePage, is_foreign
from playwright.sync_api import expect

COUNTER = '''
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = """
    export default {
      render({ model, el }) {
        const button = document.createElement("button");
        button.className = "counter";
        const draw = () => { button.textContent = `count ${model.get("value")}`; };
        button.onclick = () => { model.set("value", model.get("value") + 1); model.save_changes(); };
        model.on("change:value", draw);
        draw();
        el.append(button);
      },
    };
    """
    value = traitlets.Int(0).tag(sync=True)

counter = Counter(value=3)
counter
'''


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook([COUNTER, "print('second')"])
    page.run_all()
    yield page


def test_a_click_is_read_in_python(notebook: NotebookPage) -> None:
    button = notebook.output(0).locator(".counter")
    expect(button).to_have_text("count 3")
    button.click()
    assert notebook.wait_for("counter.value", "4") == "4"


def test_what_python_sets_is_seen(notebook: NotebookPage) -> None:
    notebook.run_cell("counter.value = 40")
    expect(notebook.output(0).locator(".counter")).to_have_text("count 40")
    expect(notebook.output(1)).to_have_text("second")


def test_an_output_is_as_wide_as_asked(notebook: NotebookPage) -> None:
    measured = notebook.output(0).locator(".jp-OutputArea-output").first.bounding_box()
    assert measured is not None and abs(measured["width"] - CELL_WIDTH) <= 12


def test_both_themes_and_a_picture(notebook: NotebookPage) -> None:
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        assert notebook.screenshot(f"host_{theme}").stat().st_size > 1000


def test_nothing_was_said_or_asked_for(notebook: NotebookPage) -> None:
    assert notebook.console_errors == []
    assert notebook.foreign_requests == []


def test_the_recorders_record(open_notebook: Callable[..., NotebookPage]) -> None:
    page = open_notebook(["1 / 0"])
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        page.run_all()
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        page.run_cell("1 / 0")
    page.page.evaluate("() => { fetch('https://elsewhere.invalid/x').catch(() => null); }")
    page.page.evaluate("() => { console.error('said'); }")
    page.page.wait_for_timeout(300)
    assert page.foreign_requests == ["https://elsewhere.invalid/x"]
    assert any("said" in text for text in page.console_errors)
    page.run_cell("kept = 1")
    page.restart_kernel()
    with pytest.raises(AssertionError, match="NameError"):
        page.run_cell("kept")


def test_an_offline_page_records_what_it_asks_for(tmp_path: Path, page_offline: Callable[..., OfflinePage]) -> None:
    file = tmp_path / "page.html"
    script = "import('https://elsewhere.invalid/a.js').catch(() => {})"
    file.write_text(f"<body><p>hello</p><script>{script}</script></body>")
    page = page_offline(file)
    expect(page.page.locator("p")).to_have_text("hello")
    page.page.wait_for_timeout(300)
    assert page.requests == ["https://elsewhere.invalid/a.js"]


def test_what_is_foreign() -> None:
    assert is_foreign("https://elsewhere.invalid/x") and is_foreign("wss://elsewhere.invalid/x")
    assert not is_foreign("http://127.0.0.1:8888/lab") and not is_foreign("blob:http://127.0.0.1:1/x")
