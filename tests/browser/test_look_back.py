"""Looking back at a run in a real JupyterLab: a feature's strongest examples at each snapshot, the numbers then."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyterlab_session import NotebookPage, OfflinePage
from playwright.sync_api import Locator, expect

RUN = """
import saewidgets as sw
model, texts = sw.load_model(), sw.load_texts()[:30]
acts = sw.ActivationStream(model, texts, hook_name="blocks.0.hook_resid_post", batch_size=64)
sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=256, k=8))
run = sw.train(sae, acts, sw.TrainConfig(n_tokens=16_000, n_snapshots=8, n_logs=40, n_evaluations=2))
monitor = sw.TrainingMonitor(run, prompt="Once upon a time there was a bridge over the river.")
monitor
"""


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook([RUN], scale=2)
    page.page.set_viewport_size({"width": 1264, "height": 1500})  # the whole monitor, in one piece
    page.set_cell_width(832)
    page.run_all()
    page.wait_for("len(run.snapshots) >= 4", "True", patience=240)
    page.run_cell("run.pause()")
    yield page


@pytest.fixture
def root(notebook: NotebookPage) -> Locator:
    return notebook.output(0).locator(".sw-root")


def pictures(notebook: NotebookPage, name: str, root: Locator) -> None:
    for width in (832, 560):
        notebook.set_cell_width(width)
        for theme in ("dark", "light"):
            notebook.set_theme(theme)
            notebook.screenshot(f"look_back_{name}_{width}_{theme}", root)
    notebook.set_cell_width(832)


def test_nothing_is_read_before_someone_looks_back(notebook: NotebookPage, root: Locator) -> None:
    expect(root).to_contain_text("Paused at step")
    expect(root.locator(".sw-top")).to_contain_text("Move the slider, or choose a feature")
    expect(root.locator(".sw-read .sw-token").first).to_be_visible()
    assert notebook.run_cell("monitor._view.back._sample._n_read") == "0"
    notebook.screenshot("look_back_before", root)


def test_the_slider_shows_a_feature_and_the_numbers_of_a_step(notebook: NotebookPage, root: Locator) -> None:
    slider = root.locator(".sw-back input")
    slider.focus()
    notebook.page.keyboard.press("ArrowLeft")
    expect(root.locator(".sw-fd-example")).to_have_count(8, timeout=120_000)
    last = int(notebook.run_cell("run.snapshots[-1]"))
    assert notebook.run_cell("monitor.snapshot_step") == str(last)
    feature = int(re.findall(r"#(\d+) at step", root.locator(".sw-said-top").inner_text())[0])
    peak = float(
        notebook.run_cell(
            f"float(monitor._view.back._sample.examples(run.sae_at({last}), {feature}, n=1)['value'].iloc[0])"
        )
    )
    expect(root.locator(".sw-said-top")).to_contain_text(f"#{feature} at step {last:,}: peak")
    assert float(root.locator(".sw-fd-example .sw-number").first.inner_text()) == pytest.approx(peak, rel=5e-3)
    notebook.run_cell(f"row = run.metrics.set_index('step').loc[{last}]")
    health = root.locator(".sw-health")
    expect(health).to_contain_text(notebook.run_cell("print(f'{row.explained_variance:.3f}')"))
    expect(health).to_contain_text(notebook.run_cell("print(f'{row.l0:.3g}')"))
    term = health.locator(".sw-term", has_text="L0")
    term.hover()
    expect(term.get_by_role("tooltip")).to_be_visible()
    notebook.page.mouse.move(2, 2)

    slider.focus()
    notebook.page.keyboard.press("Home")  # the feature stays, and was smaller, or not there yet
    first = int(notebook.run_cell("run.snapshots[0]"))
    expect(root.locator(".sw-said-top")).to_contain_text(f"#{feature} at step {first:,}:")
    expect(root.locator(".sw-top .sw-scale")).to_have_count(1)
    notebook.screenshot("look_back_first", root)
    notebook.run_cell(f"monitor.snapshot_step = {last}")
    expect(root.locator(".sw-said-top")).to_contain_text(f"#{feature} at step {last:,}:")
    expect(slider).to_have_attribute("aria-valuetext", f"step {last:,}")


def test_features_are_walked_by_key_number_and_from_python(notebook: NotebookPage, root: Locator) -> None:
    notebook.run_cell("monitor.feature = 10")
    said = root.locator(".sw-said-top")
    expect(said).to_contain_text("#10 at step")
    root.locator(".sw-back input").focus()
    notebook.page.keyboard.press("j")
    expect(said).to_contain_text("#11 at step")
    assert notebook.run_cell("monitor.feature") == "11"
    field = root.get_by_label("Feature number")
    field.fill("256")
    field.press("Enter")
    expect(root.get_by_role("alert")).to_have_text("There is no feature #256: this SAE has features 0 to 255.")
    field.fill("10")
    field.press("Enter")
    expect(said).to_contain_text("#10 at step")
    notebook.run_cell("monitor.feature = None")
    expect(said).not_to_contain_text("#10 at step")  # the examples under the mouse are then those that stay
    expect(root.locator(".sw-fd-example")).to_have_count(8)
    root.locator(".sw-fd-example .sw-token-mark").first.hover()
    expect(root.locator(".sw-card")).to_contain_text("100 % of max")
    notebook.page.mouse.move(2, 2)
    root.locator(".sw-fd-gutter").nth(1).click()  # opens
    expect(root.locator(".sw-fd-open")).to_have_count(1)
    root.locator(".sw-curves").focus()
    notebook.page.mouse.move(2, 2)
    pictures(notebook, "paused", root)
    root.locator(".sw-fd-gutter").nth(1).click()


def test_the_run_goes_on_and_its_snapshots_come(notebook: NotebookPage, root: Locator) -> None:
    root.get_by_role("button", name="go on").click()
    notebook.run_cell("run.wait()", patience=240)
    expect(root).to_contain_text("Finished")
    expect(root.locator(".sw-back input")).to_have_attribute("max", "8")
    expect(root.locator(".sw-births rect")).to_have_count(8)
    pictures(notebook, "finished", root)
    assert notebook.console_errors == [] and notebook.foreign_requests == []


def test_a_page_without_a_kernel_looks_back_too(
    notebook: NotebookPage, tmp_path: Path, page_offline: Callable[..., OfflinePage]
) -> None:
    file = tmp_path / "monitor.html"
    notebook.run_cell(f"monitor.snapshot_step = run.snapshots[-1]; monitor.to_html({str(file)!r})", patience=120)
    page = page_offline(file, scale=2)
    root = page.page.locator(".sw-root")
    steps = [int(step) for step in re.findall(r"\d+", notebook.run_cell("run.snapshots"))]
    expect(root.locator(".sw-said-top")).to_contain_text(f"at step {steps[-1]:,}:")
    expect(root.locator(".sw-fd-example").first).to_be_visible()
    expect(root.get_by_label("Feature number")).to_be_disabled()
    root.locator(".sw-back input").focus()
    for step in reversed(steps[:-1]):
        page.page.keyboard.press("ArrowLeft")
        expect(root.locator(".sw-said-top")).to_contain_text(f"at step {step:,}:")
    page.screenshot("look_back_offline", root)
    assert page.console_errors == [] and page.requests == []
