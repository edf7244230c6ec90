"""The steering panel in a real JupyterLab: a slider that is dragged, texts that follow, a page without a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyterlab_session import NotebookPage, OfflinePage
from playwright.sync_api import Locator, expect

expect.set_options(timeout=30_000)  # texts are written by a model, on cores that others may be using

SESSION = """
import torch
torch.set_num_threads(1)
import saewidgets as sw

model, sae = sw.load_model(), sw.load_sae()
index = sw.FeatureIndex.build(sae, model, sw.load_texts()[:100], path="steering_index")
feature, other = [int(f) for f in index.search(" dog").feature[:2]]
top = float(index.row(feature)["max"])
panel = sw.SteeringPanel(sae, model, prompt="Lily went to the park and saw a", edits={feature: sw.Clamp(0.0)},
                         index=index, n_tokens=12, temperature=0.0)
panel
"""


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook([SESSION, "import ipywidgets\nipywidgets.VBox([panel])"], scale=2)
    page.run_all()
    yield page


def root(notebook: NotebookPage, cell: int = 0) -> Locator:
    return notebook.output(cell).locator(".sw-root")


def written(notebook: NotebookPage, name: str = "steered", cell: int = 0) -> str:
    """A column's text, once it is whole."""
    column = root(notebook, cell).locator(".sw-column", has_text=re.compile(f"^{name}"))
    expect(column).to_have_attribute("aria-busy", "false", timeout=120_000)
    return column.locator(".sw-tokens").inner_text()


def in_python(notebook: NotebookPage, name: str = "steered_text") -> str:
    return notebook.run_cell(f"print('[' + panel.prompt + panel.{name} + ']')")[1:-1]


def set_edits(notebook: NotebookPage, code: str) -> None:
    notebook.run_cell(f"panel.edits = {code}")


def test_both_texts_are_those_of_python(notebook: NotebookPage) -> None:
    expect(root(notebook).locator(".sw-edit")).to_have_count(1)
    expect(root(notebook).locator(".sw-edit-name")).to_contain_text("dog")
    assert written(notebook, "default") == in_python(notebook, "default_text")
    assert written(notebook) == in_python(notebook)
    assert written(notebook, cell=1) == in_python(notebook)


def test_a_dragged_slider_moves_probabilities_at_once_and_the_text_when_it_is_let_go(notebook: NotebookPage) -> None:
    panel = root(notebook)
    before = written(notebook)
    kl = panel.locator(".sw-kl .sw-number").first
    expect(kl).to_be_visible()
    still = kl.inner_text()
    box = panel.locator("input[type=range]").bounding_box()
    assert box is not None
    mouse = notebook.page.mouse
    mouse.move(box["x"] + 7, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 10, steps=6)
    mouse.move(box["x"] + box["width"] - 7, box["y"] + 10, steps=6)
    expect(kl).not_to_have_text(still)  # moves under the hand
    assert notebook.run_cell("print(panel.edits[feature])") == "Clamp(value=0.0)"
    mouse.up()
    notebook.wait_for("panel.edits[feature].value > 1.4 * top", "True")
    expect(panel.locator(".sw-edit-unit")).to_contain_text(re.compile(r"= 1\.5\d*.×.max"))
    assert written(notebook) == in_python(notebook)
    set_edits(notebook, "{feature: sw.Clamp(6 * top)}")  # far enough to be heard
    notebook.page.wait_for_timeout(500)
    after = written(notebook)
    assert after == in_python(notebook) and after != before
    expect(panel.locator(".sw-token-mark")).to_have_count(2)
    expect(panel.locator(".sw-told")).to_contain_text("The texts part at token")


def test_what_python_sets_moves_both_views(notebook: NotebookPage) -> None:
    set_edits(notebook, "{feature: sw.Clamp(top), other: sw.Scale(2)}")
    for cell in (0, 1):
        expect(root(notebook, cell).locator(".sw-edit")).to_have_count(2)
        expect(root(notebook, cell).locator(".sw-edit select").nth(1)).to_have_value("scale")
    expect(root(notebook).locator(".sw-edit-unit").first).to_have_text(re.compile("= 1.×.max"))


def test_keys_change_the_strength_and_undo_takes_it_back(notebook: NotebookPage) -> None:
    set_edits(notebook, "{feature: sw.Clamp(1.0)}")
    number = root(notebook).locator(".sw-edit-number")
    expect(number).to_have_value("1")
    root(notebook).locator("input[type=range]").focus()
    notebook.page.keyboard.press("]")
    expect(number).not_to_have_value("1")
    notebook.wait_for("panel.edits[feature].value > 1", "True")
    notebook.page.keyboard.press("[")
    notebook.wait_for("panel.edits[feature].value == 1", "True")
    notebook.page.wait_for_timeout(900)  # later moves are a step of their own
    root(notebook).locator("select").focus()
    root(notebook).locator("select").select_option("ablate")
    notebook.wait_for("print(panel.edits[feature])", "Ablate()")
    expect(root(notebook).locator(".sw-formula")).to_contain_text("x ← x − f(x)·W_dec")
    notebook.page.keyboard.press("Control+z")
    notebook.wait_for("panel.edits[feature] == sw.Clamp(1.0)", "True")
    expect(number).to_have_value("1")


def test_a_feature_is_added_by_id_and_by_word_and_refused_in_a_sentence(notebook: NotebookPage) -> None:
    panel = root(notebook)
    add = panel.get_by_label("Feature to add")
    add.fill("999999")
    add.press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("There is no feature 999999")
    add.fill("7")
    add.press("Enter")
    notebook.wait_for("list(panel.edits) == [feature, 7]", "True")
    add.fill(" dog")
    add.press("Enter")
    found = panel.get_by_role("group", name="Features found").get_by_role("button")
    expect(found.first).to_contain_text("#")
    notebook.screenshot("steering_panel_found", panel)
    found.nth(1).click()
    notebook.wait_for("len(panel.edits)", "3")
    panel.get_by_label("Remove feature 7").click()
    notebook.wait_for("7 in panel.edits", "False")
    notebook.page.keyboard.press("Control+z")
    notebook.wait_for("7 in panel.edits", "True")
    with pytest.raises(AssertionError, match="There is no feature #999999: this SAE has features 0 to"):
        set_edits(notebook, "{999999: sw.Clamp(1)}")


def test_a_prompt_that_cannot_be_read_is_said_and_nothing_is_lost(notebook: NotebookPage) -> None:
    panel = root(notebook)
    set_edits(notebook, "{feature: sw.Clamp(6 * top)}")
    before = written(notebook)
    prompt = panel.locator("textarea")
    prompt.fill("word " * 400)
    prompt.press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("tokens, but at most 256 fit")
    assert prompt.input_value().startswith("word word")
    prompt.fill("Lily went to the park and saw a")
    prompt.press("Enter")
    expect(panel.get_by_role("alert")).to_have_count(0)
    assert written(notebook) == before
    panel.get_by_label("temperature").fill("-1")
    panel.get_by_label("temperature").press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("temperature=-1.0 must be 0")
    expect(panel.get_by_label("temperature")).to_have_value("0")


def test_the_control_is_shown_beside_it(notebook: NotebookPage) -> None:
    panel = root(notebook)
    panel.get_by_role("button", name="random direction").click()
    # a column that has just come is not busy before its first question: its text is waited for, not read at once
    column = panel.locator(".sw-column", has_text=re.compile("^random direction"))
    expect(column.locator(".sw-tokens")).to_have_text(in_python(notebook, "control_text"), timeout=120_000)
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        notebook.screenshot(f"steering_panel_control_{theme}", panel)
    panel.get_by_role("button", name="random direction").click()
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        notebook.screenshot(f"steering_panel_{theme}", panel)
    notebook.set_cell_width(560)
    notebook.screenshot("steering_panel_560", panel)
    notebook.set_cell_width(800)


def test_nothing_was_said_or_asked_for(notebook: NotebookPage) -> None:
    assert notebook.console_errors == []
    assert notebook.foreign_requests == []


def test_the_slider_still_works_in_a_page_without_a_kernel(
    notebook: NotebookPage, tmp_path: Path, page_offline: Callable[..., OfflinePage]
) -> None:
    file = tmp_path / "steering.html"
    notebook.run_cell(f"panel.to_html({str(file)!r})", patience=300)
    page = page_offline(file, scale=2)
    panel = page.page.locator(".sw-root")
    expect(panel).to_contain_text("Recorded")
    steered = panel.locator(".sw-column").nth(1).locator(".sw-tokens")
    expect(steered).to_have_text(written(notebook))
    slider = panel.locator("input[type=range]")
    assert sorted(panel.locator(".sw-tick i").all_inner_texts()) == ["max", "p50", "p90", "p99"]
    expect(slider).to_have_attribute("title", re.compile("p99: 99 % of its activations lie below .*dots: ", re.DOTALL))
    inside = "dots => dots.every((dot) => dot.offsetLeft < dot.parentElement.parentElement.offsetWidth)"
    least = "list => getComputedStyle(list).minHeight"
    assert root(notebook).locator(".sw-next").evaluate(least) == "100px"  # what is below stays in its place
    assert panel.locator(".sw-next").evaluate(least) == "0px"  # and no band is left blank where nothing is dragged
    slider.focus()
    strength = panel.locator(".sw-edit-unit")
    highest = strength.inner_text()
    page.page.keyboard.press("ArrowLeft")
    expect(strength).to_have_text(re.compile("= 1.5.×.max"))
    page.page.keyboard.press("ArrowRight")
    expect(strength).to_have_text(highest)
    page.page.keyboard.press("[")
    expect(strength).to_have_text(re.compile("= 1.5.×.max"))
    expect(panel.get_by_role("alert")).to_have_count(0)
    random = panel.get_by_role("button", name="random direction")
    random.click()
    control = panel.locator(".sw-column").nth(2)
    slider.focus()
    for key in "[[]":  # the strengths beside the present one have their random direction too
        page.page.keyboard.press(key)
        expect(control.locator(".sw-tokens")).to_be_visible()
        expect(control.locator(".sw-status")).to_have_count(0)
    page.screenshot("steering_panel_offline_control", panel)
    random.click()
    box = slider.bounding_box()
    assert box is not None
    page.page.mouse.click(box["x"] + 9, box["y"] + 12)
    expect(panel.locator(".sw-edit-number")).to_have_value("0")
    assert panel.locator(".sw-tick-recorded").evaluate_all(inside)
    set_edits(notebook, "{feature: sw.Clamp(0.0)}")
    notebook.page.wait_for_timeout(500)
    expect(steered).to_have_text(written(notebook))
    expect(panel.locator("textarea")).to_be_disabled()
    assert page.console_errors == [] and page.requests == []
    page.screenshot("steering_panel_offline", panel)
