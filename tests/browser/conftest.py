"""Fixtures that drive a real JupyterLab in Chromium. Without a browser the tests fail; none is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import FLAGS, find_chromium
from jupyterlab_session import JupyterLab, NotebookPage, OfflinePage
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    executable = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """One JupyterLab server for all tests, with a home, settings and notebooks folder of its own."""
    server = JupyterLab(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def open_notebook(chromium: Browser, lab: JupyterLab) -> Iterator[Callable[..., NotebookPage]]:
    """`open_notebook(cells or path, scale=1)` opens a notebook in a tab; closed after the module's tests."""
    opened: list[NotebookPage] = []

    def open_one(cells: list[str] | Path, scale: float = 1) -> NotebookPage:
        opened.append(NotebookPage(chromium, lab, cells, scale))
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()


@pytest.fixture
def page_offline(chromium: Browser) -> Iterator[Callable[..., OfflinePage]]:
    """`page_offline(path, width=800, scale=1, dark=False)`: an HTML file, every request refused and recorded."""
    opened: list[OfflinePage] = []

    def open_one(file: Path, width: int = 800, scale: float = 1, dark: bool = False) -> OfflinePage:
        opened.append(OfflinePage(chromium, file, width, scale, dark))
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()
