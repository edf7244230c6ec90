"""What a cell shows of our objects: named, not imported, so the names must be those that there are."""

from __future__ import annotations

from importlib import import_module

import torch

from saewidgets._ipython import SHOWN_BY
from saewidgets.sae import SAEConfig
from saewidgets.training import TrainConfig, sweep
from saewidgets.widgets import display


def test_every_type_that_is_shown_is_there_and_so_is_what_shows_it() -> None:
    for (module, name), function in SHOWN_BY.items():
        assert getattr(import_module(module), name).__module__ == module
        assert callable(getattr(display, function))


def test_a_sweep_shows_its_monitor() -> None:
    vectors = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    run = sweep(vectors, [SAEConfig(d_in=8, d_sae=16, k=k) for k in (2, 4)], TrainConfig(n_tokens=1000))
    run.wait()
    bundle = display.sweep_run(run)
    assert bundle["text/plain"] == run.title == "SweepRun(2 SAEs, hook_name=None, n_tokens=1_000)"
    assert "application/vnd.jupyter.widget-view+json" in bundle
