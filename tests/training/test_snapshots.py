"""Snapshots: a few of a run's states, in memory or in its folder, as SAEs to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from saewidgets.sae import SAEConfig
from saewidgets.sae.architectures import architectures
from saewidgets.training import TrainConfig, resume_training, sweep, train
from saewidgets.training import snapshots as module
from saewidgets.training.snapshots import Snapshots

from .interrupted import Hashed
from .toy import D_IN, Then, ToyStream, stop_when, toy_sae


@pytest.mark.parametrize("in_folder", [False, True])
def test_each_is_the_sae_of_its_step_but_for_the_rounding(tmp_path: Path, in_folder: bool) -> None:
    seen: dict[int, Any] = {}
    config = TrainConfig(n_tokens=51_200, n_logs=20, n_snapshots=4, k_anneal_from=8, k_anneal_fraction=0.5)
    if in_folder:
        config = config.replace(checkpoint_dir=tmp_path)
    then = Then(lambda run, row: seen.update({int(row["step"]): run.sae}))
    run = then.of(train(toy_sae(), ToyStream(), config, on_metrics=then))
    run.wait()
    assert run.snapshots == [50, 100, 150, 200] and set(run.snapshots) <= set(run.metrics.step)
    assert (tmp_path / "snapshots").exists() == in_folder
    x = ToyStream().vectors[:64]
    for step in run.snapshots:
        sae = run.sae_at(step)
        assert sae.metadata.extra["step"] == step and sae.metadata.hook_name == "toy.hook"
        assert not sae.W_dec.requires_grad and float(sae.input_scale) == 1 and sae.cfg.dtype == "float32"
        assert torch.allclose(sae.W_dec, seen[step].W_dec, rtol=2e-3, atol=1e-3)
        assert torch.equal(sae.b_enc, seen[step].b_enc)
    assert [run.sae_at(step).cfg.k for step in run.snapshots] == [6, 4, 4, 4]  # k as it was annealed to then
    assert torch.allclose(run.sae_at(200)(x), run.sae(x), rtol=0.02, atol=0.05)
    with pytest.raises(ValueError, match=r"no snapshot of step 7\. There are snapshots of steps: 50, 100, 150, 200\."):
        run.sae_at(7)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2 * 2 * D_IN * 64 + 4 * (64 + D_IN + 1)  # two matrices in half precision; biases and scale in float32
    monkeypatch.setattr(module, "MEMORY", 3 * size + 1)
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=51_200, n_snapshots=50))
    run.wait()
    assert len(run.snapshots) == 3 and run.snapshots[-1] == 200
    monkeypatch.setattr(module, "MEMORY", size - 1)
    none = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=5000))
    none.wait()
    assert none.snapshots == []
    with pytest.raises(ValueError, match="There are snapshots of steps: none yet"):
        none.sae_at(1)


def test_those_of_a_sweep_share_the_memory_and_have_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [SAEConfig(d_in=D_IN, d_sae=d_sae, k=4) for d_sae in (64, 128)]
    sizes = [2 * 2 * D_IN * n + 4 * (n + D_IN + 1) for n in (64, 128)]
    monkeypatch.setattr(module, "MEMORY", 3 * sum(sizes) + 1)
    run = sweep(ToyStream(), configs, TrainConfig(n_tokens=20_000, n_snapshots=50, n_logs=12))
    run.wait()
    assert len(run.snapshots) == 3 and run.one(0).snapshots == run.one(1).snapshots == run.snapshots
    last = run.snapshots[-1]
    assert torch.allclose(run.sae_at(1, last).W_dec, run.saes[1].W_dec, rtol=2e-3, atol=1e-3)
    assert (run.one(1).cfg, run.one(1).metadata, run.one(1).acts.d_in) == (configs[1], run.metadata, D_IN)


def test_they_outlive_the_process_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    config = TrainConfig(n_tokens=51_200, n_logs=20, n_snapshots=4, checkpoint_dir=tmp_path)
    stop = stop_when(lambda row: row["step"] >= 120)
    run = stop.of(train(toy_sae(), Hashed(), config, on_metrics=stop))
    run.wait()
    assert run.snapshots == [50, 100]
    resumed = resume_training(tmp_path, Hashed())
    resumed.wait()
    assert resumed.snapshots == [50, 100, 150, 200]
    assert torch.equal(resumed.sae_at(100).W_dec, run.sae_at(100).W_dec)
    file = tmp_path / "snapshots" / "step-150.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="step-150.safetensors is damaged"):
        resumed.sae_at(150)


def test_a_snapshot_that_cannot_be_written_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=20_000, n_snapshots=2, checkpoint_dir=tmp_path))
    run.wait()
    assert run.state == "finished" and run.snapshots == []
    assert run.checkpoint_errors[0].startswith("The snapshot of step 40 could not be written: [Errno 28]")
    assert list((tmp_path / "snapshots").iterdir()) == []


@pytest.mark.parametrize("architecture", architectures())
def test_every_architecture_comes_back(architecture: str) -> None:
    from saewidgets.sae import SAE

    sae = SAE(SAEConfig(d_in=D_IN, d_sae=64, architecture=architecture))
    with torch.no_grad():
        for tensor in sae.state_dict().values():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)))
    kept = Snapshots(sae, 1, 1, None)
    kept.keep(sae, sae.cfg, 3)
    expected, found = sae.clone().state_dict(), kept.sae_at(3).state_dict()
    assert found.keys() == expected.keys() and kept.sae_at(3).cfg == sae.cfg
    assert all(torch.allclose(found[name], expected[name], rtol=2e-3, atol=1e-3) for name in found)
