"""Schedules are pure functions of the run's progress."""

from __future__ import annotations

import math

import pytest

from saewidgets.training import TrainConfig
from saewidgets.training.schedule import annealed_k, lr_factor, sparsity_factor


def factors(name: str, points: tuple[float, ...], warmup: float = 0.1, decay: float = 0.2) -> list[float]:
    return [round(lr_factor(p, name, warmup, decay), 6) for p in points]


def test_the_rate_rises_stays_and_falls_as_the_schedule_says() -> None:
    assert factors("linear", (0, 0.05, 0.1, 0.5, 0.8, 0.9, 1)) == [0, 0.5, 1, 1, 1, 0.5, 0]
    assert factors("constant", (0, 0.05, 0.1, 0.9, 1), decay=0) == [0, 0.5, 1, 1, 1]
    assert factors("cosine", (0, 0.05, 0.1, 0.8, 0.9, 1)) == [0, 0.5, 1, 1, 0.5, 0]
    quarter = (1 - math.cos(math.pi * 0.75)) / 2
    assert factors("cosine", (0.85,)) == [round(quarter, 6)]
    assert factors("linear", (0, 1), warmup=0, decay=0) == [1, 1]


def test_each_schedule_has_a_decay_of_its_own() -> None:
    def decay(**options: object) -> float | None:
        return TrainConfig(n_tokens=1000, **options).decay_fraction  # type: ignore[arg-type]

    assert decay() == 0.25
    assert decay(lr_schedule="cosine", warmup_fraction=0.1) == 0.9
    assert decay(lr_schedule="cosine", decay_fraction=0.5) == 0.5
    assert decay(lr_schedule="constant") == 0
    config = TrainConfig(n_tokens=1000, lr_schedule="cosine", warmup_fraction=0.1)
    assert config.lr_factor(0.55) == pytest.approx(0.5) and config.lr_factor(1) == 0


def test_sparsity_warms_up_and_k_is_annealed() -> None:
    assert [sparsity_factor(p, 0.2) for p in (0, 0.1, 0.2, 1)] == [0, 0.5, 1, 1]
    assert sparsity_factor(0, 0) == 1
    assert [annealed_k(p, 8, 64, 0.5) for p in (0, 0.25, 0.5, 1)] == [64, 36, 8, 8]
    assert annealed_k(0, 8, None, 0.5) == annealed_k(0, 8, 64, 0) == 8
