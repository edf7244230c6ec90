"""What may be changed while a run goes: at once, written down, or refused with a sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training import TrainConfig, TrainingRun, train
from saewidgets.training.data import Vectors
from saewidgets.training.loop import Loop

from .toy import D_IN, Then, ToyStream, toy_sae


def l1_sae() -> SAE:
    return SAE(SAEConfig(d_in=D_IN, d_sae=64, architecture="relu", sparsity_coefficient=0.4))


def changed_at(sae: SAE, config: TrainConfig, changes: dict[int, dict[str, Any]]) -> TrainingRun:
    """A run that is over, with changes made right after logged steps."""
    then = Then(lambda run, row: run.set(**changes[int(row["step"])]) if row["step"] in changes else None)
    run = then.of(train(sae, ToyStream(), config, on_metrics=then))
    run.wait()
    assert run.callback_errors == []
    return run


def every_step(n_steps: int, **options: Any) -> TrainConfig:
    return TrainConfig(n_tokens=256 * n_steps, n_logs=n_steps, **options)


def test_a_change_counts_from_the_next_step_on_and_is_written_down() -> None:
    config = every_step(80, lr=2e-3, lr_schedule="constant", warmup_fraction=0)
    run = changed_at(toy_sae(), config, {20: {"lr": 5e-4, "k": 6}, 40: {"revive": False}})
    events = run.events
    assert list(events.columns) == ["step", "tokens", "name", "old", "new"]
    assert events.drop(columns=["tokens"]).values.tolist() == [
        [20, "lr", 2e-3, 5e-4],
        [20, "k", 4, 6],
        [40, "revive", True, False],
    ]
    assert events.tokens.tolist() == [5120, 5120, 10240]
    metrics = run.metrics.set_index("step")
    assert metrics.lr.loc[:19].eq(2e-3).all() and metrics.lr.loc[21:].eq(5e-4).all()
    assert metrics.k.loc[:19].eq(4).all() and metrics.k.loc[21:].eq(6).all()
    assert metrics.l0.loc[:20].le(4).all() and metrics.l0.loc[21:].gt(4.5).all()
    assert metrics.sparsity.isna().all()
    assert run.knobs == {"lr": 5e-4, "sparsity": None, "k": 6, "revive": False}
    assert run.sae.cfg.k == 6  # what was trained with k=6 encodes with k=6
    assert run.sae.encode_sparse(ToyStream().vectors[:4])[0].shape == (4, 6)


def test_a_rate_that_is_set_before_the_first_step_replaces_the_one_that_was_to_come() -> None:
    sae, config = toy_sae(), every_step(20)
    loop = Loop(sae, Vectors(ToyStream(), sae), config, None)
    loop.set({"lr": 1e-4})
    loop.begin(lambda: True)
    peak = config.peak_lr(sae.cfg.d_sae, 20)
    assert [(event["old"], event["new"]) for event in loop.events] == [(peak, 1e-4)]
    assert loop.settings.lr == 1e-4


def test_the_schedule_goes_on_over_a_rate_that_was_set() -> None:
    config = every_step(100, lr=1e-3, warmup_fraction=0.1, decay_fraction=0.5)
    run = changed_at(toy_sae(), config, {60: {"lr": 2e-3}})
    lr = run.metrics.set_index("step").lr
    assert lr[5] == pytest.approx(5e-4) and lr[30] == 1e-3 and lr[59] == pytest.approx(1e-3 * 0.82)
    assert lr[75] == pytest.approx(2e-3 * 0.5) and lr[100] == 0


def test_sparsity_warms_up_and_a_higher_one_is_sparser() -> None:
    plain = train(l1_sae(), ToyStream(), every_step(120, sparsity_warmup_fraction=0.25))
    plain.wait()
    sparsity = plain.metrics.sparsity
    assert sparsity.iloc[14] == pytest.approx(0.2) and sparsity.iloc[-1] == 0.4 and plain.metrics.k.isna().all()
    changed = changed_at(l1_sae(), every_step(120, sparsity_warmup_fraction=0.25), {60: {"sparsity": 4.0}})
    assert changed.metrics.sparsity.iloc[-1] == 4.0 and changed.sae.cfg.sparsity_coefficient == 4.0
    assert changed.metrics.loss[:59].tolist() == plain.metrics.loss[:59].tolist()
    assert changed.metrics.l0.iloc[-1] < 0.7 * plain.metrics.l0.iloc[-1]


def test_k_is_annealed_and_a_k_that_is_set_ends_that() -> None:
    config = every_step(100, k_anneal_from=20, k_anneal_fraction=0.5)
    run = train(toy_sae(), ToyStream(), config)
    run.wait()
    k, l0 = run.metrics.k, run.metrics.l0
    assert k.iloc[24] == 12 and k.iloc[49:].eq(4).all() and k.is_monotonic_decreasing
    assert l0.iloc[0] > 12 and l0.iloc[-1] <= 4 and len(run.events) == 0
    other = changed_at(toy_sae(), config, {25: {"k": 9}})
    assert other.metrics.k.iloc[25:].eq(9).all()


def test_a_paused_run_can_be_changed_and_a_run_that_is_over_cannot() -> None:
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=10**7))
    while run.step < 5:
        pass
    run.pause()
    heard: list[int] = []
    run.subscribe(lambda run: heard.append(len(run.events)))
    run.set(k=3)
    assert run.events.step.tolist() == [run.step] and 1 in heard
    run.resume()
    run.stop()
    run.wait()
    with pytest.raises(RuntimeError, match=r"The run is over \(stopped\)"):
        run.set(k=4)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"learning_rate": 1e-3}, TypeError, "has no setting 'learning_rate'.* It has: lr, sparsity, k, revive"),
        ({"l1_coefficient": 1e-3}, TypeError, "has no setting 'l1_coefficient'. Did you mean 'sparsity'"),
        ({"revives": True}, TypeError, "Did you mean 'revive'"),
        ({}, TypeError, "Nothing to set"),
        ({"lr": 0}, ValueError, "lr must be above 0 and finite, got 0"),
        ({"lr": math.inf}, ValueError, "lr must be above 0 and finite"),
        ({"lr": "1e-3"}, TypeError, "lr must be a number, got '1e-3'"),
        ({"k": 65}, ValueError, "k is 65, but there are only 64 features"),
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"k": 2.5}, TypeError, "k must be a whole number"),
        ({"revive": 1}, TypeError, "revive must be True or False"),
        ({"sparsity": 1.0}, ValueError, "sparsity cannot be set: 'topk' has no sparsity penalty"),
        ({"lr": 1e-3, "k": 0}, ValueError, "k must be at least 1"),
    ],
)
def test_what_cannot_be_set_is_refused_and_nothing_is_changed(
    changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=10**7))
    run.pause()
    before = run.knobs
    with pytest.raises(error, match=sentence):
        run.set(**changes)
    assert run.knobs == before and len(run.events) == 0
    run.stop()


def test_an_architecture_without_k_refuses_it() -> None:
    run = train(l1_sae(), ToyStream(), TrainConfig(n_tokens=10**7))
    with pytest.raises(ValueError, match="k cannot be set: 'relu' has no k"):
        run.set(k=4)
    with pytest.raises(ValueError, match="sparsity must be 0 or more"):
        run.set(sparsity=-1.0)
    run.set(revive=False)
    run.stop()
    with pytest.raises(ValueError, match="k_anneal_from is given, but 'relu' has no k"):
        train(l1_sae(), ToyStream(), TrainConfig(n_tokens=1000, k_anneal_from=8))
    with pytest.raises(ValueError, match="k_anneal_from is 65, but the SAE has 64"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=1000, k_anneal_from=65))


def test_the_plot_marks_each_change() -> None:
    run = changed_at(toy_sae(), every_step(30), {10: {"lr": 1e-3}, 20: {"k": 6}})
    figure = run.plot()
    lines = [shape.x0 for shape in figure.layout.shapes]
    assert sorted(lines) == [2560] * 4 + [5120] * 4  # in each of the four panels
    labels = [note.text for note in figure.layout.annotations]
    assert "k 4 → 6" in labels and any(text.startswith("lr 0.0") and text.endswith("→ 0.001") for text in labels)
