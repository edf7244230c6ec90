"""What a run tells of itself: rows, how far it is, the plot of its curves."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from saewidgets.sae import SAE
from saewidgets.training import TrainConfig, sweep, train
from saewidgets.training.metrics import Progress
from saewidgets.training.subscribers import Stopwatch

from .toy import ToyStream, toy_sae


def test_the_rates_of_the_rows_leave_no_time_out() -> None:
    """A model that reads the first block for seconds is part of what the first row took."""
    stream = ToyStream()
    stream.before_batch = lambda index: time.sleep(0.02 if index == 0 else 0)
    run = train(toy_sae(), stream, TrainConfig(n_tokens=5000, n_logs=5, n_evaluations=0))
    run.wait()
    metrics = run.metrics
    took = metrics.tokens.diff().fillna(metrics.tokens[0]) / metrics.vectors_per_second
    assert took.cumsum().tolist() == pytest.approx(metrics.seconds.tolist()) and took[0] > 0.02


def test_the_rates_of_the_rows_leave_out_what_was_measured_beside_the_steps() -> None:
    stream = ToyStream()

    def slow(_: Any) -> float:
        time.sleep(0.3)
        return 0.5

    stream.ce_loss_recovered = slow  # type: ignore[attr-defined]
    config = TrainConfig(n_tokens=5000, n_logs=5, n_evaluations=2)
    alone = train(toy_sae(), stream, config)
    alone.wait()
    together = sweep(stream, [toy_sae().cfg, toy_sae().cfg], config)
    together.wait()
    for metrics, n_measured in ((alone.metrics, 2), (together.metrics.query("sae == 0"), 4)):
        tokens = metrics.tokens.diff().fillna(metrics.tokens.iloc[0])
        took = float((tokens / metrics.vectors_per_second).sum())
        # the last row's own measuring comes after its seconds
        assert took <= float(metrics.seconds.iloc[-1]) - 0.3 * (n_measured // 2)


def test_ce_loss_recovered_is_measured_at_its_own_pace() -> None:
    stream, asked = ToyStream(), []

    def ce_loss_recovered(sae: Any) -> float:
        asked.append(sae)
        return 0.5 + len(asked) / 100

    stream.ce_loss_recovered = ce_loss_recovered  # type: ignore[attr-defined]
    sae = toy_sae()
    run = train(sae, stream, TrainConfig(n_tokens=100_000, n_evaluations=4))
    run.wait()
    assert run.metrics.ce_loss_recovered.dropna().tolist() == [0.51, 0.52, 0.53, 0.54]
    assert run.metrics.ce_loss_recovered.iloc[-1] == 0.54 and run.measures_ce_loss
    assert all(s is not sae and not s.W_dec.requires_grad for s in asked)
    none = train(toy_sae(), stream, TrainConfig(n_tokens=10_000, n_evaluations=0))
    assert none.wait() is True
    assert none.metrics.ce_loss_recovered.isna().all() and not none.measures_ce_loss
    of_vectors = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=1000))
    of_vectors.wait()
    assert not of_vectors.measures_ce_loss


def test_a_round_that_is_not_whole_is_not_counted_as_one() -> None:
    def said(n_tokens: int, tokens: int) -> str:
        work: Any = SimpleNamespace(
            n_tokens=n_tokens, tokens=tokens, step=1, n_steps=9, clock=Stopwatch(1.0),
            vectors=SimpleNamespace(n_vectors=1000),
        )  # fmt: skip
        return Progress.of(work, "running", None).message.rpartition(", ")[2]

    assert [said(4100, tokens) for tokens in (0, 2500, 3999)] == [f"epoch {n} of 4.1" for n in (1, 3, 4)]
    assert said(1500, 900) == "epoch 1 of 1.5" and said(1500, 1200) == "epoch 1.2 of 1.5"
    assert said(2000, 2000) == "epoch 2 of 2" and said(600, 100) == "0.6 of an epoch"


def test_plot_draws_what_was_measured() -> None:
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=20_000))
    run.wait()
    figure = run.plot()
    assert len(figure.data) == 4
    assert list(figure.data[1].y) == run.metrics.explained_variance.tolist()
    assert not any(trace.showlegend for trace in figure.data)  # the panels' titles name them
    assert run.acts.n_vectors == run.metrics.tokens.iloc[-1] / run.metrics.epoch.iloc[-1]


def test_two_curves_in_one_panel_are_named_in_a_legend() -> None:
    class Scored(ToyStream):
        def ce_loss_recovered(self, sae: SAE) -> float:
            return 0.5

    run = train(toy_sae(), Scored(), TrainConfig(n_tokens=20_000, n_evaluations=2))
    run.wait()
    named = [trace.name for trace in run.plot().data if trace.showlegend]
    assert named == ["explained variance", "CE loss recovered"]
