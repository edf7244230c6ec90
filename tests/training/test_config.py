"""TrainConfig: its defaults scale with the run, and bad values are refused."""

from __future__ import annotations

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
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**{"n_tokens": 1000, **options})


def test_unknown_keywords_are_named() -> None:
    with pytest.raises(TypeError, match=r"no option 'tokens'. Did you mean 'n_tokens'\?"):
        TrainConfig(tokens=1000)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="n_tokens must be a whole number, got 1000000.0"):
        TrainConfig(n_tokens=1e6)  # type: ignore[arg-type]


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
