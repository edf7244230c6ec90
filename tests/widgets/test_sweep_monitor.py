"""The sweep's monitor on real sweeps of toy vectors, and on one SAE that fails."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets

import saewidgets as sw
from saewidgets.training.sweep_table import COLOURS
from saewidgets.widgets.sweep_monitor import COLUMNS, SweepMonitor, SweepMonitorView

VECTORS = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
CONFIGS = [
    sw.SAEConfig(d_in=8, d_sae=16, k=2),
    sw.SAEConfig(d_in=8, d_sae=16, k=4),
    sw.SAEConfig(d_in=8, d_sae=16, architecture="relu"),
]


@pytest.fixture(scope="module")
def run() -> sw.SweepRun:
    run = sw.sweep(VECTORS, CONFIGS, sw.TrainConfig(n_tokens=2_000, n_logs=5))
    run.wait(60)
    return run


def parts(answer: tuple[dict[str, Any], list[bytes]]) -> list[pd.DataFrame]:
    result, (data,) = answer
    values = np.frombuffer(data, "<f4").reshape(-1, len(result["columns"]))
    frame = pd.DataFrame(values, columns=result["columns"])
    ends = np.cumsum([0, *result["counts"]])
    return [frame.iloc[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]


def test_each_sae_gives_its_own_rows_from_its_own_number_on(run: sw.SweepRun) -> None:
    view = SweepMonitorView(run)
    metrics = run.metrics
    n = [int((metrics["sae"] == sae).sum()) for sae in range(3)]
    assert view.progress()["rows"] == n and min(n) > 1
    for sae, rows in enumerate(parts(view.rows([0, 1, n[2]]))):
        own = metrics[metrics["sae"] == sae].iloc[[0, 1, n[2]][sae] :]
        assert rows["step"].tolist() == own["step"].tolist()
        assert rows["explained_variance"].tolist() == pytest.approx(own["explained_variance"].tolist())
    assert view.rows([0, 0, 0])[0]["columns"] == list(COLUMNS)
    for wrong in ([0, 0], [0, 0, -1]):
        with pytest.raises(ValueError, match="one for each SAE"):
            view.rows(wrong)


def test_what_sets_the_saes_apart_is_told_once(run: sw.SweepRun) -> None:
    about = SweepMonitorView(run).about()
    assert [sae["label"] for sae in about["saes"]] == run.labels
    assert {"architecture", "k"} <= set(about["options"])
    k = about["options"].index("k")
    assert [sae["options"][k] for sae in about["saes"]] == ["2", "4", None]
    assert [sae["colour"] for sae in about["saes"]] == list(COLOURS[:3])  # those of run.plot()


def test_the_chosen_sae_is_two_way_and_one_that_there_is(run: sw.SweepRun, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(SweepMonitor, "send", lambda self, content, buffers=None: sent.append(content))
    monitor = SweepMonitor(run, sae=1)
    monitor.set_state({"sae": 2})  # as the browser would
    assert monitor.sae == 2
    monitor.set_state({"sae": 3})
    assert monitor.sae == 2 and sent[-1]["message"] == "There is no SAE number 3: the sweep's are 0 to 2."
    with pytest.raises(traitlets.TraitError, match="read-only"):
        monitor.state = "running"
    with pytest.raises(TypeError, match="no option 'saes'"):
        SweepMonitor(run, saes=1)


def test_a_snapshot_holds_the_rows_of_all(run: sw.SweepRun) -> None:
    monitor = SweepMonitor(run, sae=1)
    taken = monitor.snapshot()
    assert taken["text"] == "SweepMonitor(saes=3, hook_name=None)"
    assert taken["state"]["sae"] == 1 and taken["state"]["progress"]["state"] == "finished"
    answer, events = taken["answers"]
    assert (events["method"], events["result"]["events"]) == ("events", [])
    assert answer["params"] == {"since": [0, 0, 0]}
    rows = sum(taken["state"]["progress"]["rows"])
    assert rows and len(answer["buffers"][0]) == rows * len(COLUMNS) * 4


def test_a_monitor_pauses_and_stops_a_sweep_and_follows_it() -> None:
    run = sw.sweep(VECTORS, CONFIGS, sw.TrainConfig(n_tokens=50_000_000))
    monitor = SweepMonitor(run)
    monitor.answer("pause", {})
    assert run.state == "paused"
    monitor.answer("resume", {})
    monitor.answer("stop", {})
    run.wait(30)
    assert (run.state, monitor.state, monitor.step) == ("stopped", "stopped", run.step)
    assert run.callback_errors == []


def test_what_a_call_changed_is_marked_once_where_it_was_changed() -> None:
    run = sw.sweep(VECTORS, CONFIGS[:2], sw.TrainConfig(n_tokens=50_000_000))
    monitor = SweepMonitor(run)
    run.pause()
    step = run.step
    run.set(lr=1e-3)
    run.set(sae=1, k=3)
    assert monitor.progress["events"] == 2
    assert [sae["label"] for sae in monitor._about["saes"]] == ["0: k=2", "1: k=3"] == run.labels
    lr, k = monitor.answer("events", {"since": 0})[0]["events"]
    assert (lr["step"], k) == (step, {"step": step, "label": "1: k 4 → 3"}) and lr["label"].endswith(" 0.001")
    assert monitor.answer("events", {"since": 1}) == ({"since": 1, "events": [k]}, [])
    with pytest.raises(ValueError, match="counted from 0"):
        monitor.answer("events", {"since": -1})
    run.stop()
    assert run.wait(30)


def test_whether_ce_loss_is_measured_is_told(run: sw.SweepRun) -> None:
    assert SweepMonitorView(run).about()["measures_ce_loss"] is False  # bare vectors have no model


def test_an_sae_that_failed_says_why(run: sw.SweepRun, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {1: ValueError("The loss is NaN.")}
    monkeypatch.setattr(type(run), "errors", property(lambda self: failed))
    progress = SweepMonitorView(run).progress()
    assert progress["errors"] == {"1": "The loss is NaN."}
    assert not math.isnan(parts(SweepMonitorView(run).rows([0, 0, 0]))[0]["loss"].iloc[-1])
