"""Makes the README's pictures: the six widgets in a real JupyterLab, light and dark, on the embedded model.

    python tests/browser/pictures.py                    writes notebooks/pictures/<widget>_<theme>.png
    python tests/browser/pictures.py sweep_monitor      only those of these widgets
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from chromium import FLAGS, find_chromium
from jupyterlab_session import ROOT, JupyterLab, NotebookPage
from PIL import Image
from playwright.sync_api import Locator, sync_playwright

PICTURES = ROOT / "notebooks" / "pictures"
TALLEST = 620
"""Pixels of a picture; what is longer is cut, as a notebook's window would."""

SETUP = """
import os, tempfile
os.chdir(tempfile.mkdtemp())
import saewidgets as sw
model, texts, sae = sw.load_model(), sw.load_texts(), sw.load_sae()
index = sw.FeatureIndex.build(sae, model, texts, "features", max_tokens=200_000)
feature = int(index.search(" bridge").iloc[0].feature)
acts = sw.ActivationStream(model, texts[:2000], hook_name="blocks.2.hook_resid_post")
mine = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=2048, architecture="topk", k=32))
run = sw.train(mine, acts, sw.TrainConfig(n_tokens=300_000))
"""

PROMPT = "Once upon a time there was a bridge over the river. Lily saw it and ran across with her little dog."

VIEWS = {
    "token_heatmap": f"heatmap = sw.TokenHeatmap(sae, model, {PROMPT!r}, index=index, feature=feature)\nheatmap",
    "feature_dashboard": "sw.FeatureDashboard(index, feature=feature)",
    "feature_browser": "sw.FeatureBrowser(index, feature=feature)",
    "steering_panel": (
        "sw.SteeringPanel(sae, model, prompt='Once upon a time', edits={feature: sw.Clamp(8.0)}, index=index, seed=1)"
    ),
    "training_monitor": "sw.TrainingMonitor(run)",
    "sweep_monitor": (
        "configs = [sw.SAEConfig(d_in=acts.d_in, d_sae=1024, k=k) for k in (8, 16, 32)]\n"
        "sweep = sw.sweep(acts, configs, sw.TrainConfig(n_tokens=150_000))\n"
        "sw.SweepMonitor(sweep)"
    ),
}


def crop(file: Path) -> None:
    """Cut a picture to size and to 128 colours, so that all of them together stay small."""
    picture = Image.open(file).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, TALLEST)))
    picture.quantize(128).save(file, optimize=True)


def view(page: NotebookPage, number: int) -> Locator:
    return page.output(number + 1).locator(".sw-root").first


def wait_until_drawn(page: NotebookPage, root: Locator) -> None:
    """On a busy machine an answer may take its time: a picture of the waiting would be no use to anybody."""
    drawn = "root => root.offsetHeight > 200 && !root.textContent.includes('No answer')"
    page.page.wait_for_function(drawn, arg=root.element_handle(), timeout=300_000)


def main(wanted: list[str]) -> None:
    """Take the pictures of the widgets that are named, or of all."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        lab = JupyterLab(Path(home))
        try:
            page = NotebookPage(browser, lab, [SETUP, *VIEWS.values()])
            page.page.set_viewport_size({"width": 1300, "height": 2400})  # the tallest widget, in one piece
            page.run_all()
            page.page.wait_for_timeout(3000)
            page.output(1).locator(".sw-token", has_text=" bridge").first.click()
            page.run_cell("run.wait(); sweep.wait()", patience=800)
            page.page.wait_for_timeout(3000)
            for theme in ("light", "dark"):
                page.set_theme(theme)
                page.page.wait_for_timeout(1000)
                for number, name in enumerate(VIEWS):
                    if wanted and name not in wanted:
                        continue
                    file = PICTURES / f"{name}_{theme}.png"
                    wait_until_drawn(page, view(page, number))
                    view(page, number).screenshot(path=file, animations="disabled")
                    crop(file)
                    print(file.relative_to(ROOT), file.stat().st_size)
        finally:
            lab.stop()
            browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
