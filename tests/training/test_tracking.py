"""Tracking callbacks: off unless asked for, and true to the rows. The libraries are fakes with their interfaces."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from saewidgets.training import TrainConfig, train
from saewidgets.training.tracking import to_tensorboard, to_wandb

from .toy import ToyStream, toy_sae


class Writer:
    made: list[Writer] = []

    def __init__(self, log_dir: str) -> None:
        self.log_dir, self.scalars, self.flushed = log_dir, [], 0
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, global_step: int) -> None:
        self.scalars.append((name, value, global_step))

    def flush(self) -> None:
        self.flushed += 1


class WandbRun:
    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Any:
    tensorboard, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    tensorboard.SummaryWriter = Writer  # type: ignore[attr-defined]
    wandb.began = []  # type: ignore[attr-defined]
    wandb.init = lambda **options: wandb.began.append(options) or WandbRun()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return wandb


def test_both_hear_each_row_and_what_was_not_measured_is_left_out(fakes: Any) -> None:
    tracked = WandbRun()
    callbacks = [to_tensorboard("logs/mine"), to_wandb(tracked)]
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=20_000, n_logs=5), on_metrics=callbacks)
    run.wait()
    assert run.callback_errors == []
    writer, metrics = Writer.made[-1], run.metrics
    assert writer.log_dir == "logs/mine" and writer.flushed == len(metrics) == len(tracked.logged) == 5
    losses = [(value, tokens) for name, value, tokens in writer.scalars if name == "sae/loss"]
    assert losses == list(zip(metrics.loss, metrics.tokens, strict=True))
    assert [row["sae/loss"] for row in tracked.logged] == metrics.loss.tolist()
    assert not any("ce_loss_recovered" in name for name, _, _ in writer.scalars)
    assert all("sae/ce_loss_recovered" not in row for row in tracked.logged)


def test_wandb_begins_a_run_only_when_asked(fakes: Any) -> None:
    to_wandb(WandbRun())
    assert fakes.began == []
    to_wandb(project="mine")
    assert fakes.began == [{"project": "mine"}]
    with pytest.raises(TypeError, match="takes project only where it begins a run itself"):
        to_wandb(WandbRun(), project="mine")


def test_without_the_libraries_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        to_tensorboard("logs")
    with pytest.raises(ImportError, match="pip install wandb"):
        to_wandb()


def test_one_that_fails_stops_neither_the_run_nor_the_others() -> None:
    def fail(row: dict[str, float]) -> None:
        raise ConnectionError("no network")

    rows: list[dict[str, float]] = []
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=5000, n_logs=3), on_metrics=[fail, rows.append])
    run.wait()
    assert len(rows) == 3 and [str(error) for error in run.callback_errors] == ["no network"] * 3
    with pytest.raises(TypeError, match="on_metrics takes functions"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=5000), on_metrics=["wandb"])  # type: ignore[list-item]
