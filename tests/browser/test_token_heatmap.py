"""TokenHeatmap in a real JupyterLab, from both ends, and as an exported page without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyterlab_session import NotebookPage, OfflinePage
from playwright.sync_api import expect

SETUP = """
import saewidgets as sw
model = sw.load_model()
sae = sw.load_sae()
heatmap = sw.TokenHeatmap(sae, model, "Once upon a time there was a bridge over the river. Lily saw it and ran.")
"""

# The answer by another way than the widget's: the SAE on the whole forward's cache.
STRONGEST = """
def strongest_on_token():
    _, cache = model.run_with_cache(heatmap.prompt)
    return int(sae.encode(cache[sae.metadata.hook_name][0, heatmap.token]).argmax())
"""


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    boxed = "import ipywidgets\nipywidgets.VBox([heatmap, ipywidgets.Label('below')])"
    page = open_notebook([SETUP + STRONGEST + "heatmap", boxed])
    page.run_all()
    expect(page.output(0).locator(".sw-token").first).to_be_visible()
    yield page
    assert page.console_errors == []
    assert page.foreign_requests == []


def test_tokens_stand_as_the_model_sees_them(notebook: NotebookPage) -> None:
    shown = notebook.output(0).locator(".sw-tokens").first.evaluate("el => el.textContent")
    assert shown == "<|endoftext|>" + notebook.run_cell("print(heatmap.prompt)")


def test_a_click_on_a_token_and_on_a_feature_is_read_in_python(notebook: NotebookPage) -> None:
    view = notebook.output(0)
    view.locator(".sw-token", has_text=" bridge").click()
    notebook.wait_for("heatmap.token", lambda text: text != "")
    expect(view.locator(".sw-features tbody tr")).not_to_have_count(0)
    view.locator(".sw-id").first.click()
    chosen = notebook.wait_for("print(heatmap.feature)", lambda text: text != "None")
    strongest = notebook.run_cell("print(strongest_on_token())")
    assert chosen == strongest
    expect(view.locator(".sw-title")).to_have_text(f"#{chosen}")


def test_what_python_sets_is_seen_in_every_place_it_is_shown(notebook: NotebookPage) -> None:
    notebook.run_cell("heatmap.feature = 5")
    expect(notebook.output(0).locator(".sw-title")).to_have_text("#5")
    expect(notebook.output(1).locator(".sw-title")).to_have_text("#5")
    notebook.run_cell("heatmap.feature = None")
    expect(notebook.output(0).locator(".sw-title")).to_have_count(0)


def test_typing_another_prompt_reads_it(notebook: NotebookPage) -> None:
    view = notebook.output(0)
    view.locator("textarea").fill("The dog ran\nhome. <script>alert(1)</script>")
    view.locator("textarea").press("Enter")
    notebook.wait_for("heatmap.prompt", lambda text: "script" in text)
    expect(view.locator(".sw-tokens").first).to_contain_text("<script>alert(1)</script>")
    expect(view.locator(".sw-glyph").first).to_have_text("\u21b5")


def test_a_prompt_that_is_too_long_gets_its_sentence(notebook: NotebookPage) -> None:
    notebook.run_cell("heatmap.prompt = 'bridge ' * 1000")
    expect(notebook.output(0).locator("[role=alert]")).to_contain_text("256")
    notebook.run_cell("heatmap.prompt = 'Once upon a time there was a bridge.'")
    expect(notebook.output(0).locator("[role=alert]")).to_have_count(0)


# The contrast (WCAG, 1 to 21) between a mark inside a token and the token's own ground.
CONTRAST = """mark => {
  const numbers = css => css.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = numbers(getComputedStyle(mark.closest(".sw-token")).backgroundColor);
  if (ground.length === 4 && ground[3] === 0) throw new Error("the token is not active");
  if (getComputedStyle(mark).opacity !== "1") throw new Error("the mark is faded");
  const [a, b] = [light(ground), light(numbers(getComputedStyle(mark).color))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


def test_marks_on_active_tokens_are_readable_in_both_themes(notebook: NotebookPage) -> None:
    """A newline's glyph and the number of a control character, on tokens coloured by their strongest feature."""
    notebook.run_cell("kept, heatmap.feature = heatmap.prompt, None")
    notebook.run_cell("heatmap.prompt = 'The dog ran\\nhome.\\x07 He sat.'")
    view = notebook.output(0)
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        expect(view.locator(".sw-root")).to_have_attribute("data-theme", theme)
        for mark in (".sw-token-shaded .sw-glyph", ".sw-token-shaded .sw-chip"):
            expect(view.locator(mark)).to_have_count(1)
            assert view.locator(mark).evaluate(CONTRAST) > 4.5
    notebook.run_cell("heatmap.prompt = kept")


def test_a_lone_surrogate_from_python_is_shown_as_what_the_model_reads(notebook: NotebookPage) -> None:
    notebook.run_cell("kept, heatmap.prompt = heatmap.prompt, 'a\\ud800b'")
    shown = notebook.output(0).locator(".sw-tokens").first
    expect(notebook.output(0).locator("textarea")).to_have_value("a\ufffdb")
    expect(shown).to_contain_text("a")
    notebook.run_cell("heatmap.prompt = kept")
    expect(shown).to_contain_text("bridge")


def test_no_key_reaches_the_notebooks_commands(notebook: NotebookPage) -> None:
    """x would cut the cell, b would add one, and ? shows the widget's own keys."""
    view = notebook.output(0)
    cells = notebook.page.locator(".jp-Notebook .jp-Cell")
    before = cells.count()
    view.locator(".sw-tokens").first.focus()
    for key in ("x", "b", "a", "?"):
        notebook.page.keyboard.press(key)
    expect(view.locator(".sw-keys")).to_contain_text("Enter selects a token")
    assert cells.count() == before
    notebook.page.keyboard.press("?")
    expect(view.locator(".sw-keys")).to_have_count(0)


MARKUP = "<script>window.ran = 1</script></style><img src=x onerror='window.ran = 1'>"
HOSTILE = MARKUP + "\u202e\u05d0\u05d1" + " " * 60


def test_markup_in_a_prompt_is_only_text(notebook: NotebookPage, page_offline: Callable[..., OfflinePage]) -> None:
    notebook.run_cell(f"before, heatmap.prompt = heatmap.prompt, {HOSTILE!r}")
    shown = notebook.output(0).locator(".sw-tokens").first
    expect(shown).to_contain_text("<script>window.ran = 1</script></style><img src=x")
    text = shown.evaluate("el => el.textContent")
    # characters of several tokens stand as their bytes
    assert text.startswith(f"<|endoftext|>{MARKUP}E2") and text.endswith(" " * 60)
    assert notebook.page.evaluate("() => window.ran") is None
    file = Path(notebook.run_cell("print(heatmap.to_html('hostile.html').resolve())"))
    offline = page_offline(file)
    expect(offline.page.locator(".sw-tokens").first).to_contain_text("<script>window.ran = 1</script></style>")
    assert offline.page.evaluate("() => window.ran") is None
    assert offline.requests == [] and offline.console_errors == []
    notebook.run_cell("heatmap.prompt = before")


def test_the_exported_page_hovers_and_clicks_without_a_network(
    notebook: NotebookPage, page_offline: Callable[..., OfflinePage], tmp_path: Path
) -> None:
    html = tmp_path / "heatmap.html"
    notebook.run_cell(f"heatmap.to_html({str(html)!r})")
    offline = page_offline(html)
    tokens = offline.page.locator(".sw-token")
    expect(tokens.first).to_be_visible()
    tokens.nth(3).hover()
    expect(offline.page.locator(".sw-card")).to_contain_text("token 3")
    tokens.nth(3).click()
    offline.page.locator(".sw-id").first.click()
    expect(offline.page.locator(".sw-title")).to_be_visible()
    assert offline.page.locator("textarea").is_disabled()
    assert offline.requests == [] and offline.console_errors == []
