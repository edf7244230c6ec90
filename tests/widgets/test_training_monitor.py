"""The monitor's view model and traits, on a run that is moved by hand and on a real one."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets

import saewidgets as sw
from saewidgets.widgets.training_monitor import TrainingMonitor
from saewidgets.widgets.training_monitor_view import COLUMNS, TrainingMonitorView


def rows_of(answer: tuple[dict[str, Any], list[bytes]]) -> pd.DataFrame:
    result, buffers = answer
    values = np.frombuffer(buffers[0], "<f4").reshape(-1, len(result["columns"]))
    return pd.DataFrame(values, columns=result["columns"])


def test_rows_come_from_where_they_are_asked_for(run: Any) -> None:
    view = TrainingMonitorView(run)
    assert view.rows(0) == ({"since": 0, "columns": list(COLUMNS), "dead_window": None}, [b""])
    for number in range(3):
        run.log(loss=1 / (number + 1), ce_loss_recovered=0.9 if number == 2 else math.nan)
    table = rows_of(view.rows(1))
    assert table.step.tolist() == [2, 3]
    assert table.loss.tolist() == pytest.approx([1 / 2, 1 / 3])
    assert math.isnan(table.ce_loss_recovered[0]) and table.ce_loss_recovered[1] == pytest.approx(0.9)
    assert view.rows(1)[0]["dead_window"] == 500
    assert rows_of(view.rows(99)).empty
    with pytest.raises(ValueError, match="counted from 0"):
        view.rows(-1)


def test_traits_follow_the_run(run: Any) -> None:
    run.log(skipped_steps=2)
    monitor = TrainingMonitor(run)
    assert (monitor.state, monitor.step, monitor.progress["rows"]) == ("running", 1, 1)
    assert monitor.progress["skipped_steps"] == 2
    heard: list[str] = []
    monitor.observe(lambda change: heard.append(change.new), "state")
    run.log()
    run.progress.state = "paused"
    run.tell()
    assert (monitor.state, monitor.step, monitor.progress["rows"], heard) == ("paused", 2, 2, ["paused"])


def test_numbers_that_json_cannot_carry_are_left_out(run: Any) -> None:
    progress = TrainingMonitorView(run).progress()
    assert progress["n_epochs"] is None and progress["vectors_per_second"] is None


def test_an_error_is_shown_as_its_sentence(run: Any) -> None:
    run.progress.state, run.error = "failed", ValueError("The stream ended early.")
    assert TrainingMonitor(run).progress["error"] == "The stream ended early."
    run.error = ZeroDivisionError("division by zero")
    assert TrainingMonitor(run).progress["error"] == "ZeroDivisionError: division by zero"


def test_buttons_reach_the_run_and_nothing_else_does(run: Any, sent: list[dict[str, Any]]) -> None:
    monitor = TrainingMonitor(run)
    for number, method in enumerate(("pause", "resume", "stop", "subscribe")):
        monitor._on_message(monitor, {"kind": "request", "id": number, "method": method, "params": {}}, [])
    assert run.asked == ["pause", "resume", "stop"]
    assert [message["kind"] for message in sent] == ["answer", "answer", "answer", "error"]


def test_a_setting_reaches_the_run_and_shows_wherever_it_was_changed(run: Any, sent: list[dict[str, Any]]) -> None:
    monitor = TrainingMonitor(run)
    assert monitor.progress["knobs"] == {"lr": None, "sparsity": None, "k": 2, "revive": True}
    assert monitor.answer("change", {"name": "k", "value": 4}) == ({"knobs": run.knobs}, [])
    assert (run.knobs["k"], monitor.progress["knobs"]["k"], monitor.progress["events"]) == (4, 4, 1)
    run.log()
    run.set(lr=0.001)  # from Python
    assert monitor.progress["knobs"]["lr"] == 0.001
    marks = monitor.answer("events", {"since": 0})[0]["events"]
    assert marks == [{"step": 0, "label": "k 2 → 4"}, {"step": 1, "label": "lr 0.001"}]
    assert monitor.answer("events", {"since": 1}) == ({"since": 1, "events": marks[1:]}, [])
    run.set(lr=0.000123456)
    run.set(revive=False)
    last = monitor.answer("events", {"since": 2})[0]["events"]
    assert [event["label"] for event in last] == ["lr 0.001 → 0.000123", "revive on → off"]
    with pytest.raises(ValueError, match="counted from 0"):
        monitor.answer("events", {"since": -1})
    monitor._on_message(
        monitor, {"kind": "request", "id": 7, "method": "change", "params": {"name": "k", "value": "x"}}, []
    )
    assert sent[-1] == {"kind": "error", "id": 7, "message": "k must be a whole number, got 'x'."}
    assert run.knobs["k"] == 4


def test_what_follows_the_run_cannot_be_set(run: Any, sent: list[dict[str, Any]]) -> None:
    monitor = TrainingMonitor(run)
    with pytest.raises(traitlets.TraitError, match="read-only"):
        monitor.state = "finished"
    monitor.set_state({"state": "finished", "progress": {}})  # as the browser would
    assert monitor.state == "running" and monitor.progress["n_steps"] == 100
    assert sent == [{"kind": "refused", "message": "state follows the run; use pause, go on and stop."}]
    with pytest.raises(TypeError, match="no option 'stat'"):
        TrainingMonitor(run, stat="x")


def test_a_monitor_lets_go_of_the_run_when_it_is_closed(run: Any) -> None:
    TrainingMonitor(run).close()
    assert run.subscribers == []
    run.tell()

    by_the_browser = TrainingMonitor(run)
    by_the_browser.comm.handle_close({"content": {"data": {}}})
    assert run.subscribers == []


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_monitor_lets_go_of_a_run_that_is_over(run: Any, state: str) -> None:
    """ipywidgets keeps each monitor for as long as the kernel lives; the run need not."""
    monitor = TrainingMonitor(run)
    run.progress.state = "paused"
    run.tell()
    assert len(run.subscribers) == 1
    run.progress.state = state
    run.tell()
    assert run.subscribers == [] and monitor.state == state
    assert TrainingMonitor(run).state == state
    assert run.subscribers == []


def test_a_monitor_that_is_gone_is_told_nothing(run: Any) -> None:
    gone = TrainingMonitor(run)
    from ipywidgets.widgets.widget import _instances

    _instances.pop(gone.model_id, None)  # ipywidgets itself keeps what has a comm
    watched = weakref.ref(gone)
    gone.comm.close()
    del gone
    gc.collect()
    assert watched() is None
    run.tell()
    assert run.subscribers == []


def test_text_is_the_same_however_far_the_run_is(run: Any) -> None:
    monitor = TrainingMonitor(run)
    before = repr(monitor)
    assert before == "TrainingMonitor(architecture='topk', d_sae=16, hook_name='blocks.0.hook_resid_post')"
    run.log()
    run.tell()
    assert repr(monitor) == before


def test_a_snapshot_holds_all_rows_and_where_the_run_was(run: Any) -> None:
    monitor = TrainingMonitor(run)
    run.log()
    run.set(k=1)
    run.log()
    taken = monitor.snapshot()  # no news since the rows came
    assert taken["state"]["progress"]["rows"] == 2 and taken["state"]["_about"]["d_sae"] == 16
    assert taken["state"]["_about"]["measures_ce_loss"] is False
    assert taken["state"]["_live"] is False
    rows, events = taken["answers"]
    assert (rows["method"], rows["params"]) == ("rows", {"since": 0})
    assert len(rows["buffers"][0]) == 2 * len(COLUMNS) * 4
    assert (events["method"], events["result"]["events"]) == ("events", [{"step": 1, "label": "k 2 → 1"}])


class Toy:
    """32-dimensional vectors, forever the same 4,000."""

    d_in, n_vectors, batch_size = 32, 4_000, 200
    metadata = sw.SAEMetadata(hook_name="blocks.0.hook_resid_post")

    def __init__(self) -> None:
        self.x = torch.randn(4_000, 32, generator=torch.Generator().manual_seed(0))
        self.may_go_on = threading.Event()

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[torch.Tensor]:
        for at in range(start * 200, 4_000, 200):
            self.may_go_on.wait(30)
            yield self.x[at : at + 200]


def test_a_real_run_is_paused_shown_late_and_finished() -> None:
    stream = Toy()
    run = sw.train(sw.SAE(sw.SAEConfig(d_in=32, d_sae=64, k=4)), stream, sw.TrainConfig(n_tokens=20_000))
    monitor = TrainingMonitor(run)
    assert (monitor.state, monitor.step) == ("running", 0)
    assert repr(monitor) == "TrainingMonitor(architecture='topk', d_sae=64, hook_name='blocks.0.hook_resid_post')"
    monitor.answer("pause", {})
    assert run.state == "paused"
    monitor.answer("change", {"name": "k", "value": 3})
    assert monitor.progress["knobs"] == run.knobs and run.knobs["k"] == 3
    with pytest.raises(ValueError, match=r"^SAEConfig: k"):
        monitor.answer("change", {"name": "k", "value": 10_000})
    with pytest.raises(ValueError, match=r"^lr must be a number, got 'fast'\.$"):
        monitor.answer("change", {"name": "lr", "value": "fast"})
    monitor.answer("resume", {})
    stream.may_go_on.set()
    run.wait(60)
    assert (monitor.state, monitor.step) == ("finished", run.step)
    late = TrainingMonitor(run)
    for shown in (monitor, late):
        table = rows_of(shown.answer("rows", {"since": 0}))
        assert table.step.tolist() == run.metrics.step.tolist()
        assert shown.progress["rows"] == len(run.metrics) >= 50
        assert shown.progress["knobs"]["k"] == 3 and len(shown.answer("events", {"since": 0})[0]["events"]) == 1
    with pytest.raises(RuntimeError, match="The run is over"):
        late.answer("change", {"name": "k", "value": 4})
    assert run.callback_errors == []
