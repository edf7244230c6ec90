"""TrainConfig: its defaults scale with the run, and bad values are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saewidgets.training import TrainConfig


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_tokens": 0}, "n_tokens must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"warmup_fraction": 1.5}, "warmup_fraction must be from 0 to 1"),
        ({"dead_window": 0}, "dead_window must be at least 1"),
        ({"n_evaluations": -1}, "n_evaluations must be 0 or a whole number"),
        ({"n_snapshots": True}, "n_snapshots must be 0 or a whole number"),
        ({"decay_fraction": -0.1}, "decay_fraction must be from 0 to 1"),
        ({"sparsity_warmup_fraction": float("nan")}, "sparsity_warmup_fraction must be from 0 to 1"),
        ({"lr_schedule": "step"}, "lr_schedule must be one of linear, cosine, constant, got 'step'"),
        ({"lr_schedule": "constant", "decay_fraction": 0.2}, "'constant' does not fall, but decay_fraction is 0.2"),
        ({"optimizer": "sgd"}, "optimizer must be one of adam, muon, signum, got 'sgd'"),
        ({"precision": "fp16"}, "precision must be one of float32, bf16"),
        ({"clip_norm": 0}, "clip_norm must be above 0"),
        ({"k_anneal_from": 0}, "k_anneal_from must be at least 1"),
        ({"keep_last": 0}, "keep_last must be at least 1"),
        ({"checkpoint_every": 100}, "no folder to write to"),
        ({"checkpoint_dir": "here", "checkpoint_every": 0}, "checkpoint_every must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**{"n_tokens": 1000, **options})


def test_unknown_keywords_are_named() -> None:
    with pytest.raises(TypeError, match=r"no option 'tokens'. Did you mean 'n_tokens'\?"):
        TrainConfig(tokens=1000)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'batch_size'. It is the stream's"):
        TrainConfig(n_tokens=1000, batch_size=32)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"TrainConfig needs n_tokens: sw.TrainConfig\(n_tokens=1_000_000\)"):
        TrainConfig()
    with pytest.raises(TypeError, match="n_tokens must be a whole number, got 1000000.0"):
        TrainConfig(n_tokens=1e6)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="lr must be a number, got '1e-3'"):
        TrainConfig(n_tokens=1000, lr="1e-3")  # type: ignore[arg-type]


def test_a_config_survives_json(tmp_path: Path) -> None:
    config = TrainConfig(n_tokens=1000, lr_schedule="cosine", checkpoint_dir=tmp_path, k_anneal_from=9, clip_norm=1.0)
    assert config.checkpoint_every == 50
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert config.replace(n_tokens=2000).checkpoint_every == 50


def test_the_dead_window_is_five_per_cent_of_the_run_and_at_most_ten_million() -> None:
    assert TrainConfig(n_tokens=1_000_000).dead_window == 50_000
    assert TrainConfig(n_tokens=10**9).dead_window == 10_000_000
    assert TrainConfig(n_tokens=1000, dead_window=7).dead_window == 7


def test_the_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(n_tokens=1000, warmup_fraction=0.1, decay_fraction=0.2)
    assert [round(config.lr_factor(p), 3) for p in (0, 0.05, 0.1, 0.5, 0.8, 0.9, 1)] == [0, 0.5, 1, 1, 1, 0.5, 0]
    flat = TrainConfig(n_tokens=1000, warmup_fraction=0, decay_fraction=0)
    assert flat.lr_factor(0) == flat.lr_factor(1) == 1


def test_the_default_rate_falls_with_the_dictionary_and_the_run() -> None:
    config = TrainConfig(n_tokens=1000)
    assert config.peak_lr(2048, 488) == config.peak_lr(64, 10) == 5e-3
    assert config.peak_lr(8192, 500) == pytest.approx(2.5e-3)
    assert config.peak_lr(2048, 50_000) == pytest.approx(5e-4)
    assert TrainConfig(n_tokens=1000, lr=0.1).peak_lr(8192, 50_000) == 0.1
    assert TrainConfig(n_tokens=1000, optimizer="signum").peak_lr(64, 10) == 1.25e-3


def test_short_runs_are_evaluated_seldom() -> None:
    """An evaluation costs seconds of the model's time: 8 of them took twenty times as long as training did."""
    assert [TrainConfig(n_tokens=n).n_evaluations for n in (1000, 500_000, 10_000_000)] == [2, 4, 8]
    assert TrainConfig(n_tokens=1000, n_evaluations=0).n_evaluations == 0
