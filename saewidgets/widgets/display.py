"""What a cell shows for a run, a sweep, an index or an SAE: a mime bundle each, for `_ipython` to hand on."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saewidgets.features import FeatureIndex
    from saewidgets.sae import SAE
    from saewidgets.training import SweepRun, TrainingRun

Bundle = dict[str, Any]


def training_run(run: TrainingRun) -> Bundle:
    """A TrainingMonitor."""
    from saewidgets.widgets.training_monitor import TrainingMonitor

    return _of(TrainingMonitor(run), run.title)


def sweep_run(run: SweepRun) -> Bundle:
    """A SweepMonitor."""
    from saewidgets.widgets.sweep_monitor import SweepMonitor

    return _of(SweepMonitor(run), run.title)


def feature_index(index: FeatureIndex) -> Bundle:
    """A FeatureBrowser."""
    from saewidgets.widgets.feature_browser import FeatureBrowser

    return _of(FeatureBrowser(index), repr(index))


def sae(sae: SAE) -> Bundle:
    """A table of what the SAE is and where it reads: plain HTML, so it also stands in an exported page."""
    known = sae.metadata
    trained = known.n_tokens_trained
    rows = {
        "architecture": ", ".join(part for part in (sae.cfg.architecture, sae.architecture.describe(sae.cfg)) if part),
        "features": f"{sae.cfg.d_sae:,} on d_in {sae.cfg.d_in:,}",
        "hook": known.hook_name or "none named: pass hook_name= where one is needed",
        "model": known.model_name or "not named",
        "trained on": f"{trained:,} activation vectors" if trained else "not known",
    }
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return {"text/plain": repr(sae), "text/html": f"<table>{cells}</table>"}


def _of(widget: Any, text: str) -> Bundle:
    data, _metadata = widget._repr_mimebundle_()
    return {**data, "text/plain": text}
