"""The monitor's view model and traits, on a run that is moved by hand and on a real one."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets

import saewidgets as sw
from saewidgets.activations import harvest
from saewidgets.training.live import events_table
from saewidgets.training.metrics import COLUMNS as LOGGED
from saewidgets.widgets import look_back
from saewidgets.widgets.training_monitor import TrainingMonitor
from saewidgets.widgets.training_monitor_view import COLUMNS, TrainingMonitorView


@dataclass
class Progress:
    state: str = "running"
    step: int = 0
    n_steps: int = 100
    tokens: int = 0
    n_tokens: int = 10_000
    epoch: float | None = None
    n_epochs: float | None = math.inf
    vectors_per_second: float | None = math.nan
    seconds_left: float | None = None


class RunByHand:
    """A run that is where the test puts it."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.error: BaseException | None = None
        self.subscribers: list[Callable[[Any], None]] = []
        self.asked: list[str] = []
        self._rows: list[dict[str, float]] = []
        self._events: list[dict[str, Any]] = []
        self.knobs: dict[str, Any] = {"lr": None, "sparsity": None, "k": 2, "revive": True}
        self.snapshots: list[int] = []
        self.acts: Any = None
        self.measures_ce_loss = False
        self.cfg = sw.SAEConfig(d_in=8, d_sae=16, k=2)
        self.metadata = sw.SAEMetadata(hook_name="blocks.0.hook_resid_post")

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows, columns=list(LOGGED))

    @property
    def events(self) -> pd.DataFrame:
        return events_table(self._events)

    def set(self, **changes: Any) -> None:
        if not isinstance(changes.get("k", 0), int):
            raise TypeError(f"k must be a whole number, got {changes['k']!r}.")
        for name, new in changes.items():
            event = {"step": self.progress.step, "tokens": 0, "name": name, "old": self.knobs[name], "new": new}
            self._events.append(event)
            self.knobs = self.knobs | {name: new}
        self.tell()

    @property
    def state(self) -> str:
        return self.progress.state

    def log(self, **values: float) -> None:
        number = len(self._rows) + 1
        row = dict.fromkeys(LOGGED, 0.0) | {"step": number, "dead_window": 500, "ce_loss_recovered": math.nan} | values
        self._rows.append(row)
        self.progress.step = number

    def tell(self) -> None:
        for callback in list(self.subscribers):
            callback(self)

    def subscribe(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback) if callback in self.subscribers else None

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def stop(self) -> None:
        self.asked.append("stop")


@pytest.fixture
def run() -> Any:
    return RunByHand()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(TrainingMonitor, "send", lambda self, content, buffers=None: messages.append(content))
    return messages


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


def test_looking_back_is_two_way_and_only_at_what_there_is(run: Any, sent: list[dict[str, Any]]) -> None:
    run.snapshots = [10, 20]
    monitor = TrainingMonitor(run, snapshot_step=10, feature=3)
    assert (monitor.snapshot_step, monitor._snapshots) == (10, [10, 20])
    monitor.set_state({"snapshot_step": 20})  # as the browser would
    assert monitor.snapshot_step == 20
    monitor.set_state({"snapshot_step": 21})
    refused = "There is no snapshot of step 21. There are snapshots of steps: 10, 20."
    assert monitor.snapshot_step == 20 and sent[-1] == {"kind": "refused", "message": refused}
    with pytest.raises(traitlets.TraitError, match="no feature #16"):
        monitor.feature = 16
    with pytest.raises(ValueError, match="has no model"):
        monitor.answer("history", {"prompt": "Once", "steps": [10]})
    run.snapshots = [10, 20, 30]
    run.tell()
    assert monitor._snapshots == [10, 20, 30]


def test_a_prompt_is_read_at_each_snapshot() -> None:
    model = sw.load_model()
    acts = sw.ActivationStream(model, sw.load_texts()[:40], hook_name="blocks.0.hook_resid_post", batch_size=200)
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4))
    run = sw.train(sae, acts, sw.TrainConfig(n_tokens=2_000, n_snapshots=2, n_logs=4))
    run.wait(60)
    monitor = TrainingMonitor(run, model=model, prompt="Once upon a bridge")
    steps = run.snapshots
    assert len(steps) == 2 and monitor._snapshots == steps
    (answer,) = [one for one in monitor.snapshot()["answers"] if one["method"] == "history"]
    assert answer["params"] == {"prompt": "Once upon a bridge", "feature": None, "steps": steps}
    result = answer["result"]
    n = len(result["tokens"])
    values = np.frombuffer(answer["buffers"][0], "<f4").reshape(2, n)
    strongest = np.frombuffer(answer["buffers"][1], "<i4").reshape(2, n)
    for row, step in enumerate(steps):  # as a heatmap of that SAE shows it
        heatmap = sw.TokenHeatmap(run.sae_at(step), model, monitor.prompt)
        _, (exact,) = heatmap.answer("values", {"prompt": monitor.prompt, "features": [result["feature"]]})
        assert values[row] == pytest.approx(np.frombuffer(exact, "<f4"), rel=1e-4, abs=1e-5)
    assert values[1].max() > 0 and result["feature"] == strongest[1][values[1].argmax()]
    assert values[0][0] == values[1][0] == 0  # BOS, which the SAE leaves out
    with pytest.raises(ValueError, match="no snapshot of step 3"):
        monitor.answer("history", {"prompt": "Once", "steps": [3]})
    with pytest.raises(ValueError, match="hook"):
        TrainingMonitor(_of_another_hook(run), model=model)


def _of_another_hook(run: Any) -> Any:
    other = RunByHand()
    other.sae = run.sae.clone()  # type: ignore[attr-defined]
    other.sae.metadata = sw.SAEMetadata(hook_name="blocks.99.hook_resid_post")  # type: ignore[attr-defined]
    return other


def top_of(answer: tuple[dict[str, Any], list[bytes]]) -> dict[int, list[float]]:
    """The strengths of the examples of each step."""
    result, buffers = answer
    ends = np.cumsum(result["lengths"])
    starts = ends - result["lengths"]
    values = np.zeros(ends[-1] if len(ends) else 0, "f4")
    values[np.frombuffer(buffers[1], "<i4")] = np.frombuffer(buffers[2], "<f4")
    peaks = iter(values[starts + result["peaks"]].tolist())
    return {step: [next(peaks) for _ in range(n)] for step, n in zip(result["steps"], result["counts"], strict=True)}


@pytest.fixture(scope="module")
def past() -> Any:
    """A run of 10 steps on the embedded model, with two snapshots."""
    model = sw.load_model()
    acts = sw.ActivationStream(
        model, sw.load_texts()[:16], hook_name="blocks.0.hook_resid_post", batch_size=200, context_size=64
    )
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4))
    run = sw.train(sae, acts, sw.TrainConfig(n_tokens=2_000, n_snapshots=2, n_logs=4, n_evaluations=0))
    run.wait(120)
    return run


def test_the_strongest_examples_of_a_feature_are_those_of_each_snapshot(past: Any) -> None:
    monitor = TrainingMonitor(past)  # the stream's own model and text
    assert monitor._about["reads"] and monitor._about["n_sampled"] > 1_000
    steps = past.snapshots
    held_out = past.acts.excerpt(20_000)
    x = harvest(past.acts.model, held_out.tokens, past.acts.site)
    wanted = held_out.mask.clone()
    wanted[:, 0] = False
    assert monitor._about["n_sampled"] == int(wanted.sum())
    feature = int(past.sae_at(steps[1]).encode(x[wanted]).amax(0).argmax())
    parts = list(monitor.answer("examples", {"feature": feature, "steps": steps}))
    assert parts[0][0]["steps"] == [] and 0 < parts[0][0]["read"] <= 1  # the text is read before
    result = parts[-1][0]
    assert (result["feature"], result["steps"], result["read"]) == (feature, steps, 1.0)
    for step, found in top_of(parts[-1]).items():
        exact = past.sae_at(step).encode(x[wanted])[:, feature]
        assert len(found) == 8 and found == sorted(found, reverse=True)
        assert found[0] == pytest.approx(float(exact.max()), rel=1e-2)
    again = list(monitor.answer("examples", {"feature": feature, "steps": steps}))
    assert again == parts[-1:]  # nothing is read or found twice
    with pytest.raises(traitlets.TraitError, match="no feature #64"):
        next(monitor.answer("examples", {"feature": 64, "steps": steps}))
    with pytest.raises(ValueError, match="no snapshot of step 1"):
        list(monitor.answer("examples", {"feature": 0, "steps": [1]}))


def test_a_page_carries_the_examples_that_someone_looked_at(past: Any) -> None:
    def recorded(monitor: TrainingMonitor) -> list[Any]:
        return [one["params"] for one in monitor.snapshot()["answers"] if one["method"] == "examples"]

    monitor = TrainingMonitor(past)
    assert recorded(monitor) == []  # nobody has asked: the text is not read for a page
    monitor.snapshot_step = past.snapshots[0]
    (chosen,) = recorded(monitor)
    history = monitor.answer("history", {"prompt": monitor.prompt, "steps": past.snapshots})[0]
    assert chosen == {"feature": history["feature"], "steps": past.snapshots}  # what the screen shows
    monitor.feature = 7
    assert recorded(monitor) == [{"feature": 7, "steps": past.snapshots}]
    monitor.prompt = ""
    assert recorded(monitor) == [{"feature": 7, "steps": past.snapshots}]
    monitor.feature = None
    assert recorded(monitor) == []


def test_a_run_with_signed_codes_is_looked_back_at_with_a_feature_for_each_sign(past: Any) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=past.acts.d_in, d_sae=64, k=4, architecture="abstopk"))
    run = sw.train(sae, past.acts, sw.TrainConfig(n_tokens=2_000, n_snapshots=2, n_logs=2, n_evaluations=0))
    run.wait(120)
    monitor = TrainingMonitor(run)
    step = run.snapshots[-1]
    text = past.acts.excerpt(20_000)
    wanted = text.mask.clone()
    wanted[:, 0] = False
    f = run.sae_at(step).encode(harvest(past.acts.model, text.tokens, past.acts.site)[wanted])
    feature = int(f.amin(0).argmin())  # the strongest on the negative side
    for sign, asked in ((1, feature), (-1, 64 + feature)):
        (found,) = top_of(list(monitor.answer("examples", {"feature": asked, "steps": [step]}))[-1]).values()
        strongest = float((sign * f[:, feature]).max())
        assert found[:1] == ([pytest.approx(strongest, rel=1e-2)] if strongest > 0 else [])
    assert float(f[:, feature].min()) < 0
    prompt = {"prompt": "Once upon a time", "steps": [step]}
    answers = [monitor.answer("history", {**prompt, "feature": feature + side})[1][0] for side in (0, 64)]
    positive, negative = (np.frombuffer(values, "<f4") for values in answers)
    assert (positive >= 0).all() and (negative >= 0).all() and not (positive * negative).any()
    x = harvest(past.acts.model, past.acts.model.to_tokens(prompt["prompt"]), past.acts.site)[0]
    exact = run.sae_at(step).encode(x)[:, feature].numpy()
    assert positive[1:] - negative[1:] == pytest.approx(exact[1:], rel=1e-3, abs=1e-4)
    assert (monitor._about["d_sae"], monitor._about["d_looked"], monitor._about["two_sided"]) == (64, 128, True)
    monitor.feature = 127
    with pytest.raises(traitlets.TraitError, match="features 0 to 127"):
        monitor.feature = 128
    assert (TrainingMonitor(past)._about["d_looked"], TrainingMonitor(past)._about["two_sided"]) == (64, False)


def test_snapshots_are_made_once_as_long_as_they_fit(past: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    sae_at = type(past).sae_at
    monkeypatch.setattr(type(past), "sae_at", lambda run, step: made.append(step) or sae_at(run, step))
    steps = past.snapshots
    for room, times in ((look_back.SAES_KEPT, 1), (200_000, None), (0, 2)):  # one of them has 150 kB
        monkeypatch.setattr(look_back, "SAES_KEPT", room)
        back, asked = look_back.LookBack(past, None, None), len(made)
        for _ in range(2):
            back.history("Once", steps, 3)
        counts = sorted(made[asked:].count(step) for step in steps)
        assert counts == ([1, 2] if times is None else [times] * 2)


def test_the_streams_text_is_read_only_with_its_own_vocabulary(past: Any, run: Any) -> None:
    """Token ids mean nothing to a model with another vocabulary, however well its sizes fit."""
    run.sae, run.snapshots = past.sae, [10]
    other = sw.load_model()
    own = past.acts.model

    def acts(model: Any, name: str | None) -> Any:
        about = dataclasses.replace(past.acts.metadata, model_name=name)
        return type("Acts", (), {"model": model, "metadata": about, "excerpt": staticmethod(past.acts.excerpt)})()

    for there in (acts(own, "anything"), acts(None, other.cfg.model_name)):  # compared, or known by name
        run.acts = there
        assert TrainingMonitor(run, model=other)._about["n_sampled"] > 1_000
    other.tokenizer = copy.deepcopy(other.tokenizer)
    other.tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    for there in (acts(own, other.cfg.model_name), acts(None, "another/model"), acts(None, None)):
        run.acts = there
        with pytest.raises(ValueError, match="may have another vocabulary. Pass the text to look for examples in"):
            TrainingMonitor(run, model=other)
        assert TrainingMonitor(run, model=other, texts=["A cat sat."])._about["n_sampled"] < 10


def test_other_texts_and_runs_without_any(past: Any, run: Any) -> None:
    assert TrainingMonitor(past, texts=["A cat sat."])._about["n_sampled"] < 10
    with pytest.raises(TypeError, match="texts"):
        TrainingMonitor(past, texts="A cat sat.")
    run.snapshots = [10]
    run.sae = past.sae  # what a stream calls its model need not be a bridge, nor have this hook
    for model in ("gpt2", torch.nn.Linear(2, 2)):
        run.acts = type("Acts", (), {"model": model})()
        assert TrainingMonitor(run)._about["reads"] is False
    bare = TrainingMonitor(run, snapshot_step=10, feature=1)
    assert bare._about["n_sampled"] is None
    assert [one["method"] for one in bare.snapshot()["answers"]] == ["rows", "events"]
    with pytest.raises(ValueError, match="has no text to look for examples in"):
        next(bare.answer("examples", {"feature": 1, "steps": [10]}))


def test_the_browser_of_a_step_is_built_while_the_run_is_paused_and_while_it_goes_on(tmp_path: Any) -> None:
    model, texts = sw.load_model(), sw.load_texts()[:16]
    acts = sw.ActivationStream(model, texts, hook_name="blocks.0.hook_resid_post", batch_size=100, context_size=64)
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4))
    run = sw.train(sae, acts, sw.TrainConfig(n_tokens=20_000, n_snapshots=20, n_logs=20, n_evaluations=0))
    monitor = TrainingMonitor(run)
    while not run.snapshots:
        assert run.state == "running"
        run.wait(0.05)
    run.pause()
    step = run.snapshots[0]

    def browser(name: str) -> dict[str, Any]:
        index = sw.FeatureIndex.build(run.sae_at(step), model, texts, tmp_path / name, max_tokens=500)
        return sw.FeatureBrowser(index, recorded=1).snapshot()

    taken = browser("paused")
    assert run.state == "paused" and not any("error" in answer for answer in taken["answers"])
    sources = {answer["result"]["source"] for answer in taken["answers"] if answer["method"] == "feature"}
    assert sources == {f"topk · blocks.0.hook_resid_post · step {step}"}
    before = run.step
    run.resume()
    list(monitor.answer("examples", {"feature": 0, "steps": run.snapshots}))  # both take turns on the one model
    assert browser("running")["answers"][0]["method"] == "table"
    run.wait(120)
    assert run.state == "finished" and run.step > before and run.callback_errors == []
