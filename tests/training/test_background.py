"""How a run ends, whichever it is: what only it needed is given back, and nothing more is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training import SweepRun, TrainConfig, TrainingRun, resume_training, sweep, train

from .toy import D_IN, Gate, ToyStream, toy_sae

CONFIG = TrainConfig(n_tokens=2000, n_logs=4, n_evaluations=2)


class Scores:
    """Stands for a `SpliceScorer`, which keeps activations."""

    def __init__(self) -> None:
        self.calls = self.released = 0

    def __call__(self, sae: SAE) -> float:
        assert not self.released
        self.calls += 1
        return 0.5

    def release(self) -> None:
        self.released += 1


class Scored(ToyStream):
    """A toy stream that has a score."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Scores] = []

    def scorer(self) -> Scores:
        self.made.append(Scores())
        return self.made[-1]


def one(acts: Any, config: TrainConfig = CONFIG) -> TrainingRun:
    return train(toy_sae(), acts, config)


def several(acts: Any, config: TrainConfig = CONFIG) -> SweepRun:
    return sweep(acts, [SAEConfig(d_in=D_IN, d_sae=64, k=k) for k in (4, 8)], config)


Begin = Callable[..., Any]


@pytest.mark.parametrize(("begin", "n"), [(one, 1), (several, 2)])
def test_what_the_scores_kept_is_given_back_at_the_end(begin: Begin, n: int) -> None:
    acts = Scored()
    run = begin(acts)
    run.wait()
    (scores,) = acts.made
    assert run.state == "finished" and run.error is None
    assert scores.calls == 2 * n and scores.released == n


def test_also_of_a_run_that_goes_on_from_a_checkpoint_and_of_one_that_fails(tmp_path: Path) -> None:
    acts = Scored()
    one(acts, CONFIG.replace(checkpoint_dir=tmp_path / "run", n_snapshots=0)).wait()
    again = resume_training(tmp_path / "run", acts, n_tokens=4000, allow_unverified=True)
    again.wait()
    assert again.state == "finished" and [scores.released for scores in acts.made] == [1, 1]

    def fail(index: int) -> None:
        raise OSError("the disk is gone")

    acts.before_batch = fail
    with pytest.raises(RuntimeError, match="the disk is gone"):
        one(acts).wait()
    assert acts.made[2].released == 1


@pytest.mark.parametrize("begin", [one, several])
def test_a_change_at_the_very_end_is_refused_and_not_lost(begin: Begin) -> None:
    """A subscriber hears of the end before `wait` returns."""
    refused: list[str] = []

    def change(run: Any) -> None:
        if run.state == "finished":
            with pytest.raises(RuntimeError, match=r"is over \(finished\)") as error:
                run.set(k=6)
            refused.append(str(error.value))

    acts = ToyStream()
    gate = Gate(acts, after=0)
    run = begin(acts)
    run.subscribe(change)
    gate.open()
    run.wait()
    assert len(refused) == 1 and run.callback_errors == [] and len(run.events) == 0
    saes = run.saes if isinstance(run, SweepRun) else [run.sae]
    assert 6 not in [sae.cfg.k for sae in saes]
