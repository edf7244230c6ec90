"""Changes to a sweep that is going: for all SAEs or one, written down for each, or refused with a sentence."""

from __future__ import annotations

import time
from typing import Any

import pytest

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training import SweepRun, TrainConfig, sweep, train

from .toy import D_IN, Then, ToyStream

CONFIG = TrainConfig(n_tokens=20_001, n_logs=20, dead_window=1500)


def cfg(**options: Any) -> SAEConfig:
    return SAEConfig(**{"d_in": D_IN, "d_sae": 64, **options})


def test_a_change_counts_for_all_from_the_next_step_on_and_is_written_down() -> None:
    config = TrainConfig(n_tokens=256 * 60, n_logs=60, lr=2e-3, lr_schedule="constant", warmup_fraction=0)
    configs = [cfg(k=4), cfg(k=8), cfg(k=4, architecture="batchtopk")]

    def change(run: SweepRun, row: dict[str, float]) -> None:
        if row["step"] == 20 and row["sae"] == 0:
            run.set(lr=5e-4, k=6)
        if row["step"] == 40 and row["sae"] == 0:
            run.set(sae=1, k=3)

    then: Any = Then(change)  # type: ignore[arg-type]
    run = then.of(sweep(ToyStream(), configs, config, on_metrics=then))
    run.wait()
    assert run.callback_errors == [] and run.stacked == [[0, 1]]
    events = run.events
    assert list(events.columns) == ["sae", "step", "tokens", "name", "old", "new"]
    assert events.drop(columns=["tokens"]).values.tolist() == [
        *[row for sae, k in ((0, 4), (1, 8), (2, 4)) for row in ([sae, 20, "lr", 2e-3, 5e-4], [sae, 20, "k", k, 6])],
        [1, 40, "k", 6, 3],
    ]
    metrics = run.metrics.set_index(["sae", "step"]).sort_index()
    assert metrics.lr[0].loc[:19].eq(2e-3).all() and all(metrics.lr[sae].loc[21:].eq(5e-4).all() for sae in range(3))
    assert [metrics.k[sae].loc[39] for sae in range(3)] == [6] * 3
    assert [metrics.k[sae].loc[41] for sae in range(3)] == [6, 3, 6]
    assert [knobs["k"] for knobs in run.knobs] == [sae.cfg.k for sae in run.saes] == [6, 3, 6]
    assert run.saes[1].encode_sparse(ToyStream().vectors[:4])[0].shape == (4, 3)
    texts = [note.text for note in run.plot().layout.annotations]
    assert [text for text in texts if "\u2192" in text] == ["lr 0.002 \u2192 0.0005", "k \u2192 6", "1: k 6 \u2192 3"]

    # each became what it would alone, with the same changes
    own: list[dict[int, dict[str, Any]]] = [{20: {"lr": 5e-4, "k": 6}} for _ in configs]
    own[1][40] = {"k": 3}
    for one, changes, swept in zip(configs, own, run.saes, strict=True):
        assert changed_alone(one, config, changes).fingerprint() == swept.fingerprint()


def changed_alone(cfg: SAEConfig, config: TrainConfig, changes: dict[int, dict[str, Any]]) -> SAE:
    then = Then(lambda run, row: run.set(**changes[int(row["step"])]) if row["step"] in changes else None)
    run = then.of(train(SAE(cfg), ToyStream(), config, on_metrics=then))
    run.wait()
    assert run.events.step.unique().tolist() == list(changes)
    return run.sae


def test_a_change_that_one_refuses_changes_none() -> None:
    run = sweep(ToyStream(), [cfg(k=4), cfg(architecture="relu")], CONFIG.replace(n_tokens=10**7))
    run.pause()
    for changes, error, sentence in [
        ({"k": 6}, ValueError, r"number 1 of the sweep refuses: k cannot be set: 'relu' has no k. .*set\(sae=0"),
        ({"sae": 1, "k": 6}, ValueError, "^k cannot be set: 'relu' has no k"),
        ({"sae": 2, "lr": 1e-3}, IndexError, "the sweep's are 0 to 1"),
        ({"learning_rate": 1e-3}, TypeError, "has no setting 'learning_rate'"),
        ({}, TypeError, "Nothing to set"),
    ]:
        with pytest.raises(error, match=sentence):
            run.set(**changes)  # type: ignore[arg-type]
    assert len(run.events) == 0 and list(run.events.columns)[0] == "sae"
    run.set(sae=0, k=6)
    assert run.events.sae.tolist() == [0] and [knobs["k"] for knobs in run.knobs] == [6, None]
    run.stop()
    run.wait()
    with pytest.raises(RuntimeError, match=r"The sweep is over \(stopped\)"):
        run.set(lr=1e-3)


def test_one_that_failed_is_left_as_it_is() -> None:
    configs = [CONFIG.replace(n_tokens=10**7), CONFIG.replace(n_tokens=10**7, lr=1e38, warmup_fraction=0.0)]
    run = sweep(ToyStream(), [cfg(k=4), cfg(k=8)], configs)
    until = time.monotonic() + 60
    while not run.errors and time.monotonic() < until:
        run.wait(0.01)
    assert list(run.errors) == [1] and run.state == "running"
    run.set(lr=1e-3)
    assert run.events.sae.tolist() == [0]
    with pytest.raises(RuntimeError, match="number 1 has failed"):
        run.set(sae=1, lr=1e-3)
    run.stop()
