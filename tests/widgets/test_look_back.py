"""Looking back: a prompt, and a feature's strongest examples, as the SAE of each snapshot of a run has them."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import traitlets

import saewidgets as sw
from saewidgets.activations import harvest
from saewidgets.widgets import look_back
from saewidgets.widgets.sweep_monitor import SweepMonitor
from saewidgets.widgets.training_monitor import TrainingMonitor


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


def test_a_prompt_is_read_at_each_snapshot(run: Any) -> None:
    by_hand = run
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
    by_hand.sae = run.sae.clone()
    by_hand.sae.metadata = sw.SAEMetadata(hook_name="blocks.99.hook_resid_post")
    with pytest.raises(ValueError, match="hook"):
        TrainingMonitor(by_hand, model=model)


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


@pytest.fixture(scope="module")
def swept(past: Any) -> Any:
    """A sweep on the same stream: two SAEs of other sizes, one with signs."""
    configs = [
        sw.SAEConfig(d_in=past.acts.d_in, d_sae=64, k=4),
        sw.SAEConfig(d_in=past.acts.d_in, d_sae=32, k=2, architecture="abstopk"),
    ]
    run = sw.sweep(past.acts, configs, sw.TrainConfig(n_tokens=2_000, n_snapshots=2, n_logs=4, n_evaluations=0))
    run.wait(120)
    return run


def test_the_chosen_sae_of_a_sweep_is_looked_back_at_as_a_runs_is(past: Any, swept: Any) -> None:
    monitor = SweepMonitor(swept)
    steps = swept.snapshots
    assert monitor._about["reads"] and len(steps) == 2 and monitor._snapshots == []  # none is chosen
    alone = TrainingMonitor(past)  # the first SAE is, bit for bit, what it became alone
    for method in ("history", "examples"):
        asked = {"steps": steps, "feature": 5, **({"prompt": "Once upon"} if method == "history" else {})}
        given = monitor.answer(method, {**asked, "sae": 0}), alone.answer(method, asked)
        ours, theirs = given if method == "history" else (list(one)[-1] for one in given)
        assert ours[1] == theirs[1] and {"sae": 0, **ours[0]} == {"sae": 0, **theirs[0]}
    read = monitor._view.back(0)._sample
    monitor.sae = 1
    assert monitor._snapshots == steps and monitor._view.back(1)._sample is read  # the text is not read again
    monitor.feature, monitor.snapshot_step = 63, steps[0]  # 31 on its negative side
    result = list(monitor.answer("examples", {"sae": 1, "feature": 63, "steps": steps}))[-1][0]
    assert result["steps"] == steps
    recorded = {one["method"]: one["params"] for one in monitor.snapshot()["answers"]}
    assert recorded["history"] == {"sae": 1, "prompt": "Once upon a time", "feature": 63, "steps": steps}
    assert recorded["examples"] == {"sae": 1, "feature": 63, "steps": steps}
    monitor.sae = 0
    assert (monitor.feature, monitor.snapshot_step) == (None, steps[0])  # other features, the same steps
    monitor.sae = None
    assert (monitor._snapshots, monitor.snapshot_step) == ([], None)


def test_what_the_chosen_sae_does_not_have_is_refused(swept: Any) -> None:
    whole = SweepMonitor(swept, sae=1, feature=63, snapshot_step=swept.snapshots[1], prompt="A cat")
    assert (whole.sae, whole.feature, whole.snapshot_step) == (1, 63, swept.snapshots[1])
    with pytest.raises(traitlets.TraitError, match="features 0 to 63"):
        whole.feature = 64
    with pytest.raises(traitlets.TraitError, match="no snapshot of step 3"):
        whole.snapshot_step = 3
    with pytest.raises(traitlets.TraitError, match="Choose an SAE first: sae=0, then feature"):
        SweepMonitor(swept, feature=1)
    with pytest.raises(traitlets.TraitError, match="no SAE number 2"):
        SweepMonitor(swept, feature=1, sae=2)
    with pytest.raises(ValueError, match="texts is empty"):
        SweepMonitor(swept, model=sw.load_model(), texts=[])
