"""The training monitor in a real JupyterLab: curves that grow, a pause by click, a page without a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyterlab_session import NotebookPage, OfflinePage
from playwright.sync_api import Locator, expect

RUN = '''
import time, torch
torch.set_num_threads(1)
import saewidgets as sw

class Stream:
    """Sparse sums of 256 directions: something that an SAE learns in a second, given out at a walking pace."""
    d_in, n_vectors, batch_size = 32, 20_000, 200
    metadata = sw.SAEMetadata(model_name="a toy", hook_name="blocks.0.hook_resid_post")
    pace = 0.02
    spoiled = False

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        directions = torch.nn.functional.normalize(torch.randn(256, 32, generator=generator), dim=1)
        self.x = torch.relu(torch.randn(20_000, 256, generator=generator) - 2.2) @ directions

    def batches(self, epoch=0, start=0):
        for at in range(start * 200, 20_000, 200):
            if self.spoiled:
                raise ValueError("The stream ended <b>early</b>.")
            time.sleep(self.pace)
            yield self.x[at : at + 200]

    def ce_loss_recovered(self, sae):
        return 0.5

def start(n_tokens):
    stream = Stream()
    config = sw.TrainConfig(n_tokens=n_tokens, n_evaluations=8)
    return stream, sw.train(sw.SAE(sw.SAEConfig(d_in=32, d_sae=256, k=4)), stream, config)

stream, run = start(200_000)
monitor = sw.TrainingMonitor(run)
monitor
'''


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[..., NotebookPage]) -> Iterator[NotebookPage]:
    page = open_notebook([RUN, "import ipywidgets\nipywidgets.VBox([monitor, sw.TrainingMonitor(run)])"], scale=2)
    page.run_all()
    yield page


def monitor(notebook: NotebookPage, cell: int = 0, number: int = 0) -> Locator:
    return notebook.output(cell).locator(".sw-root").nth(number)


def length(curve: Locator) -> float:
    """The points of a drawn curve."""
    return (curve.locator(".sw-line").get_attribute("d") or "").count("L")


def test_curves_grow_pause_and_go_on(notebook: NotebookPage) -> None:
    root = monitor(notebook)
    expect(root).to_contain_text("topk, 256 features")
    expect(root).to_contain_text("blocks.0.hook_resid_post")
    curve = root.locator("figure", has_text="explained variance")
    notebook.wait_for("len(run.metrics) >= 5", "True", patience=60)
    expect(curve.locator(".sw-line")).to_have_attribute("d", _longer_than(3))
    before = length(curve)
    notebook.wait_for(f"len(run.metrics) > {before} + 5", "True", patience=60)
    expect(curve.locator(".sw-line")).to_have_attribute("d", _longer_than(int(before) + 1))

    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        notebook.screenshot(f"training_monitor_running_{theme}", root)

    root.get_by_role("button", name="pause").click()
    expect(root).to_contain_text("Paused at step")
    assert notebook.wait_for("print(run.state)", "paused") == "paused"
    step = notebook.run_cell("run.step")
    assert notebook.run_cell("monitor.state, monitor.step") == f"('paused', {step})"
    root.get_by_role("button", name="go on").click()
    notebook.wait_for(f"run.step > {step}", "True")
    expect(root.get_by_role("button", name="pause")).to_be_enabled()


def _longer_than(points: int) -> re.Pattern[str]:
    """A path of at least so many lines."""
    return re.compile(rf"^M(?:[^L]*L){{{points},}}")


def test_shown_late_and_twice_it_shows_the_same(notebook: NotebookPage) -> None:
    notebook.run_cell("run.pause()")
    for number in range(2):
        root = monitor(notebook, 1, number)
        expect(root).to_contain_text("Paused at step")
        expect(root.locator("figure").first.locator(".sw-line")).to_have_attribute(
            "d", monitor(notebook).locator("figure").first.locator(".sw-line").get_attribute("d") or ""
        )
    notebook.run_cell("run.resume()")


def test_one_row_is_read_in_all_curves(notebook: NotebookPage) -> None:
    notebook.run_cell("run.pause()")
    root = monitor(notebook)
    expect(root).to_contain_text("Paused at step")
    root.locator(".sw-curves").focus()
    notebook.page.keyboard.press("Home")
    expect(root.locator(".sw-cross")).to_have_count(5)  # CE loss recovered was not measured in the first row
    row = notebook.run_cell("run.metrics.iloc[0][['step', 'l0']].tolist()")
    assert row.startswith("[10.0, ")
    expect(root.locator(".sw-foot")).to_contain_text("step 10, 2k tokens")
    curve = root.locator("figure", has_text="loss").first
    box = curve.locator("svg").bounding_box()
    assert box is not None
    notebook.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20)
    expect(root.locator(".sw-cross")).to_have_count(6)
    last = int(notebook.run_cell("int(run.metrics.step.iloc[-1])"))
    expect(root.locator(".sw-foot")).to_contain_text(f"step {last:,},")
    notebook.screenshot("training_monitor_read", root)
    notebook.page.mouse.move(2, 2)
    notebook.run_cell("run.resume()")


def test_settings_are_changed_on_the_screen_and_marked(notebook: NotebookPage) -> None:
    notebook.wait_for("len(run.metrics) >= 5", "True", patience=60)
    notebook.run_cell("run.pause()")
    root = monitor(notebook)
    expect(root).to_contain_text("Paused at step")
    root.get_by_text("change while it runs").click()
    k = root.get_by_label("k", exact=True)
    expect(k).to_have_value("4")
    k.fill("8")
    k.press("Enter")
    notebook.wait_for("print(run.knobs['k'])", "8")
    expect(root).to_contain_text("k 8, on blocks.0")
    expect(root.locator("figure", has_text="L0").locator(".sw-moment-label")).to_have_text(["k 4 \u2192 8"])
    lr = root.get_by_label("learning rate")
    before = lr.input_value()
    lr.fill("fast")
    lr.press("Enter")
    expect(root.get_by_role("alert")).to_have_text("lr must be a number, got 'fast'.")
    expect(lr).to_have_value("fast")
    notebook.screenshot("training_monitor_refused", root)
    lr.press("Escape")
    expect(lr).to_have_value(before)
    notebook.run_cell("run.set(lr=0.002)")
    expect(lr).to_have_value("0.002")
    box = root.get_by_label("revive dead features")
    box.click()
    expect(box).not_to_be_checked()
    assert notebook.run_cell("run.knobs['revive']") == "False"
    expect(root.locator("figure").first.locator(".sw-moment")).to_have_count(3)
    notebook.page.mouse.move(2, 2)
    root.locator(".sw-curves").focus()  # the definitions of what had the focus are gone from the pictures
    notebook.run_cell("run.resume()")
    notebook.wait_for("float(run.metrics.k.iloc[-1])", "8.0")
    rows = notebook.run_cell("len(run.metrics)")
    notebook.wait_for(f"len(run.metrics) > {rows} + 4", "True")
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        notebook.screenshot(f"training_monitor_changed_{theme}", root)
    notebook.set_cell_width(560)
    notebook.screenshot("training_monitor_changed_560", root)
    notebook.set_cell_width(800)


def test_stop_finish_and_fail_are_said(notebook: NotebookPage) -> None:
    root = monitor(notebook)
    root.get_by_role("button", name="stop").click()
    assert notebook.wait_for("print(run.state)", "stopped") == "stopped"
    expect(root).to_contain_text("Stopped at step")
    expect(root.get_by_role("button", name="pause")).to_have_count(0)
    for theme in ("dark", "light"):
        notebook.set_theme(theme)
        notebook.screenshot(f"training_monitor_stopped_{theme}", root)


def test_curves_grow_and_pause_is_heard_while_a_cell_waits(open_notebook: Callable[..., NotebookPage]) -> None:
    page = open_notebook([RUN.replace("start(200_000)", "start(100_000)"), "run.wait()"])
    page.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    root = monitor(page)
    line = root.locator("figure").first.locator(".sw-line")
    expect(line).to_have_attribute("d", _longer_than(3), timeout=30_000)
    root.get_by_role("button", name="pause").click()
    expect(root).to_contain_text("Paused at step")
    root.get_by_role("button", name="stop").click()
    expect(root).to_contain_text("Stopped at step")
    assert page.run_cell("print(run.state)") == "stopped"


def test_a_sweep_shows_all_its_saes_as_they_train(open_notebook: Callable[..., NotebookPage]) -> None:
    configs = "[sw.SAEConfig(d_in=32, d_sae=256, k=k) for k in (2, 4, 8)]"
    cell = f"sweep = sw.sweep(Stream(), {configs}, sw.TrainConfig(n_tokens=100_000))\nsweep"
    page = open_notebook([RUN.split("stream, run =")[0], cell], scale=2)
    page.run_all()
    root = monitor(page, 1)
    expect(root).to_contain_text("3 SAEs")
    expect(root.locator("figure").nth(1).locator(".sw-line").nth(2)).to_have_attribute(
        "d", _longer_than(3), timeout=30_000
    )
    expect(root.locator(".sw-point")).to_have_count(3)
    root.get_by_role("button", name="SAE 1: k=4").click()
    expect(root.locator(".sw-line.sw-strong")).to_have_count(3)
    root.get_by_role("button", name="pause").click()
    page.wait_for("print(sweep.state)", "paused")
    page.run_cell("sweep.set(lr=1e-3); sweep.set(sae=2, k=6)")
    expect(root.locator(".sw-moment-label", has_text="2: k 8 → 6")).to_have_count(3)  # on each picture of curves
    root.get_by_role("slider", name="look back").press("Home")
    expect(root.locator(".sw-foot")).to_contain_text("Everything as it was at step")
    expect(root.locator(".sw-health")).to_contain_text("explained variance")
    for theme in ("dark", "light"):
        page.set_theme(theme)
        page.screenshot(f"sweep_monitor_{theme}", root)
    root.get_by_role("button", name="stop").click()
    expect(root).to_contain_text("Stopped at step")
    assert page.run_cell("print(sweep.state)") == "stopped"
    assert page.console_errors == []


def test_a_failed_run_says_why(open_notebook: Callable[..., NotebookPage]) -> None:
    page = open_notebook([RUN.replace("stream, run = start(200_000)", "stream, run = start(40_000)")])
    page.run_all()
    root = monitor(page)
    page.wait_for("run.step > 20", "True", patience=60)
    page.run_cell("stream.spoiled = True")
    expect(root.get_by_role("alert")).to_contain_text("The stream ended <b>early</b>.")
    assert page.run_cell("print(run.state)") == "failed"
    page.screenshot("training_monitor_failed", root)
    assert page.console_errors == []


def test_nothing_was_said_or_asked_for(notebook: NotebookPage) -> None:
    assert notebook.console_errors == []
    assert notebook.foreign_requests == []


def test_a_page_without_a_kernel(
    notebook: NotebookPage, tmp_path: Path, page_offline: Callable[..., OfflinePage]
) -> None:
    file = tmp_path / "monitor.html"
    notebook.run_cell(f"monitor.to_html({str(file)!r})")
    page = page_offline(file, scale=2)
    root = page.page.locator(".sw-root")
    expect(root).to_contain_text("Stopped at step")
    expect(root.locator("figure").first.locator(".sw-moment")).to_have_count(3)
    expect(root.locator("figure").first.locator(".sw-moment-label").first).to_have_text("k 4 \u2192 8")
    root.get_by_text("change while it runs").click()
    expect(root.get_by_label("k", exact=True)).to_be_disabled()
    expect(root).to_contain_text("off: this page has no kernel")
    box = root.locator("svg").first.bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + 1, box["y"] + 20)
    expect(root.locator(".sw-foot")).to_contain_text("step 10, 2k tokens")
    page.screenshot("training_monitor_offline", root)
    assert page.console_errors == [] and page.requests == []
