"""A short run on the embedded model: what the stream gives reaches the SAE and the metrics."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.training.loop import Loop

from .toy import stop_when

harvest = import_module("saewidgets.activations.harvest")  # the room has a function of that name too
HOOK = "blocks.2.hook_resid_post"


def sorted_rows(x: torch.Tensor) -> torch.Tensor:
    return x[x.double().sum(1).argsort()]


def test_a_stream_of_the_embedded_model_trains_an_sae(demo_model: Any, texts: list[str]) -> None:
    acts = sw.ActivationStream(demo_model, texts[:60], HOOK, context_size=64, batch_size=256, seed=0)
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=512, k=16))
    config = sw.TrainConfig(n_tokens=2 * acts.n_vectors, n_evaluations=2)
    run = sw.train(sae, acts, config)
    assert run.state == "running"
    run.wait()
    metrics = run.metrics
    recovered = metrics.ce_loss_recovered.dropna()
    assert len(recovered) == 2 and 0 < recovered.iloc[-1] <= 1
    assert metrics.explained_variance.iloc[-1] > 0.5 > metrics.explained_variance.iloc[0]
    assert metrics.epoch.iloc[-1] == pytest.approx(2)
    metadata = sae.metadata
    assert (metadata.hook_name, metadata.context_size, metadata.excluded_positions) == (HOOK, 64, (0,))
    assert metadata.n_tokens_trained == run.tokens and metadata.model_name == demo_model.cfg.model_name


def test_a_short_run_reads_what_it_trains_on_and_no_more(
    demo_model: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[int] = []
    real = harvest.harvest_all

    def counted(model: Any, tokens: torch.Tensor, sites: Any) -> Any:
        contexts.append(len(tokens))
        return real(model, tokens, sites)

    monkeypatch.setattr(harvest, "harvest_all", counted)
    acts = sw.ActivationStream(demo_model, texts, HOOK, context_size=64, batch_size=256)
    assert acts.n_vectors > 20_000
    cfg = sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4)
    run = sw.train(sw.SAE(cfg), acts, sw.TrainConfig(n_tokens=1000, n_evaluations=0, n_logs=4))
    run.wait()
    assert (run.state, run.tokens) == ("finished", 1000)
    assert 1024 <= sum(contexts) * 63 <= 2 * 1024 + 8 * 63  # some documents end in the middle of a context


def test_a_short_run_goes_on_bit_for_bit_and_a_longer_one_reads_each_vector_once(
    demo_model: Any, texts: list[str], tmp_path: Path
) -> None:
    acts = sw.ActivationStream(demo_model, texts[:40], HOOK, context_size=32, batch_size=128)
    cfg = sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4)
    config = sw.TrainConfig(n_tokens=1280, n_evaluations=0, n_logs=10)
    expected = sw.train(sw.SAE(cfg), acts, config)
    expected.wait()
    stop = stop_when(lambda row: row["step"] == 4)
    stopped = stop.of(sw.train(sw.SAE(cfg), acts, config.replace(checkpoint_dir=tmp_path), on_metrics=stop))
    stopped.wait()
    resumed = sw.resume_training(tmp_path, acts)
    resumed.wait()
    assert (stopped.step, resumed.step) == (4, 10) and resumed.sae.fingerprint() == expected.sae.fingerprint()

    seen: list[torch.Tensor] = []
    plan = Loop.plan
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "plan", lambda loop, batch: seen.append(batch[0].clone()) or plan(loop, batch))
        longer = sw.resume_training(tmp_path, acts, n_tokens=acts.n_batches * 128)
        longer.wait()
    first = [batch for _, batch in zip(range(10), acts.batches(takes=1280), strict=False)]
    ours, theirs = torch.cat([*first, *seen]), torch.cat(list(acts))
    assert len(ours) == len(theirs)
    assert torch.allclose(sorted_rows(ours), sorted_rows(theirs), atol=1e-3)


def test_held_out_texts_take_the_place_of_the_streams_own(demo_model: Any, texts: list[str]) -> None:
    acts = sw.ActivationStream(demo_model, texts[:20], HOOK, context_size=64, batch_size=256, seed=0)
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=512, k=16))
    run = sw.train(sae, acts, sw.TrainConfig(n_tokens=2000, n_evaluations=1), held_out=texts[100:103])
    run.wait()
    scores = sw.evaluate(sae, demo_model, texts[100:103], context_size=64)
    assert run.metrics.ce_loss_recovered.iloc[-1] == pytest.approx(scores.ce_loss_recovered, abs=1e-4)
    assert run.metrics.ce_loss_recovered.iloc[-1] != pytest.approx(acts.ce_loss_recovered(sae), abs=1e-4)


def test_a_text_too_short_to_hold_any_out_says_that_nothing_is_measured(demo_model: Any, texts: list[str]) -> None:
    acts = sw.ActivationStream(demo_model, texts[:2], HOOK, context_size=64, batch_size=64)
    run = sw.train(sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4)), acts, sw.TrainConfig(n_tokens=200))
    run.wait()
    assert len(acts.held_out) == 0 and not run.measures_ce_loss and run.metrics.ce_loss_recovered.isna().all()


def test_a_pause_and_a_stop_act_inside_a_block(
    demo_model: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block takes seconds to read: a pause that waited for its end would be none."""
    forwards = []
    real = harvest.harvest_all

    def counted(*given: Any) -> Any:
        forwards.append(time.monotonic())
        return real(*given)

    monkeypatch.setattr(harvest, "harvest_all", counted)
    acts = sw.ActivationStream(demo_model, texts, HOOK, context_size=64, batch_size=256, contexts_per_forward=1)
    sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=512, k=16))
    run = sw.train(sae, acts, sw.TrainConfig(n_tokens=100_000))
    assert sae.metadata.hook_name == HOOK  # before the first step, so that a view can be made at once
    while len(forwards) < 3 and run.state == "running":
        time.sleep(0.01)
    assert run.error is None
    run.pause()
    time.sleep(0.3)
    read = len(forwards)
    time.sleep(0.3)
    assert run.state == "paused" and run.step == 0 and len(forwards) == read
    run.stop()
    assert run.state == "stopped" and len(forwards) <= read + 1


def test_a_pruned_feature_stays_pruned() -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=8, d_sae=32, k=4))
    with torch.no_grad():
        sae.W_dec[7] = 0
        sae.W_enc[:, 7] = 0
    x = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    run = sw.train(sae, x, sw.TrainConfig(n_tokens=4000))
    run.wait()
    assert torch.isfinite(sae.W_dec).all() and run.metrics.skipped_steps.iloc[-1] == 0


def test_a_sweep_runs_the_model_once_for_all(monkeypatch: Any, demo_model: Any, texts: list[str]) -> None:
    forwards: list[int] = []
    real = harvest.harvest_all

    def counted(*given: Any) -> Any:
        forwards.append(1)
        return real(*given)

    monkeypatch.setattr(harvest, "harvest_all", counted)
    configs = [sw.SAEConfig(d_in=demo_model.cfg.d_model, d_sae=512, k=k) for k in (8, 16)]
    counts, prints = [], []
    for some in (configs, configs[:1]):
        acts = sw.ActivationStream(demo_model, texts[:20], HOOK, context_size=64, batch_size=256, seed=0)
        run = sw.sweep(acts, some, sw.TrainConfig(n_tokens=acts.n_vectors, n_evaluations=1))
        run.wait()
        assert (run.table().ce_loss_recovered > 0).all()
        counts.append(len(forwards))
        prints.append(run.saes[0].fingerprint())
    assert counts[1] == 2 * counts[0] and prints[0] == prints[1]
    sae = run.saes[0]
    assert (sae.metadata.hook_name, sae.metadata.context_size) == (HOOK, 64)
