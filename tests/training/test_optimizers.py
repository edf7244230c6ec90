"""Optimizers by name: what they do to a step, what a bad step does, and what they remember."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saewidgets.training import TrainConfig, train
from saewidgets.training.config import OPTIMIZERS
from saewidgets.training.optimizers import Optimizer, beta2_of

from .toy import ToyStream, toy_sae

GOOD, BAD = torch.tensor(False), torch.tensor(True)


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(12, 6, generator=generator), torch.randn(12, generator=generator)]


def steps(optimizer: Optimizer, tensors: list[torch.Tensor], n: int, bad_at: int = -1) -> None:
    """Steps towards 1."""
    for step in range(n):
        gradients = [tensor - 1 + 0.1 * step for tensor in tensors]
        if step == bad_at:
            optimizer.step([torch.full_like(g, torch.nan) for g in gradients], 1e-2, BAD)
        optimizer.step(gradients, 1e-2, GOOD)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad_at", [0, 2])
def test_a_bad_step_changes_nothing(name: str, bad_at: int) -> None:
    clean, disturbed = weights(), weights()
    steps(Optimizer(name, clean, 100, [1.0, 1.0]), clean, 5)
    steps(Optimizer(name, disturbed, 100, [1.0, 1.0]), disturbed, 5, bad_at)
    assert all(torch.equal(a, b) for a, b in zip(clean, disturbed, strict=True))
    assert not torch.equal(clean[0], weights()[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_remembered_can_be_taken_over(name: str) -> None:
    tensors = weights()
    first = Optimizer(name, tensors, 100, [1.0, 1.0])
    steps(first, tensors, 3)
    copies = [tensor.clone() for tensor in tensors]
    second = Optimizer(name, copies, 100, [1.0, 1.0])
    second.load({key: value.clone() for key, value in first.state().items()})
    steps(first, tensors, 3)
    steps(second, copies, 3)
    assert all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_tensor_has_its_own_rate(name: str) -> None:
    one, other = weights(), weights()
    Optimizer(name, one, 100, [1.0, 1.0]).step([tensor - 1 for tensor in one], 1e-2, GOOD)
    Optimizer(name, other, 100, [0.5, 0.0]).step([tensor - 1 for tensor in other], 1e-2, GOOD)
    start = weights()
    assert torch.allclose(other[0] - start[0], (one[0] - start[0]) / 2, atol=1e-6)
    assert torch.equal(other[1], start[1])


def test_signum_moves_by_the_sign_and_muon_by_an_orthogonal_matrix() -> None:
    tensors, start = weights(), weights()
    Optimizer("signum", tensors, 100, [1.0, 1.0]).step([tensor - 1 for tensor in start], 1e-2, GOOD)
    assert all(
        torch.allclose(tensor - begin, -1e-2 * (begin - 1).sign(), atol=1e-6)
        for tensor, begin in zip(tensors, start, strict=True)
    )
    tensors = weights()
    Optimizer("muon", tensors, 100, [1.0, 1.0]).step([tensor - 1 for tensor in start], 1e-2, GOOD)
    moved = torch.linalg.svdvals(tensors[0] - start[0]) / (0.2 * 12**0.5 * 1e-2)
    assert (moved > 0.5).all() and (moved < 1.5).all()  # Newton-Schulz leaves them about 1
    assert torch.allclose((tensors[1] - start[1]).abs(), torch.tensor(1e-2), rtol=1e-3)  # Adam's first step


def test_muon_is_refused_where_torch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match="optimizer='muon'.* needs torch 2.9 or newer"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=1000, optimizer="muon"))


def test_the_second_moment_remembers_a_fifth_of_the_run() -> None:
    assert [beta2_of(n) for n in (10, 2500, 10**6)] == [pytest.approx(b) for b in (0.99, 0.998, 0.999)]


@pytest.mark.parametrize("options", [{"optimizer": "muon"}, {"optimizer": "signum"}, {"lr_schedule": "cosine"}])
def test_each_of_them_learns_the_toy(options: dict[str, Any]) -> None:
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=200_000, **options))
    run.wait()
    metrics = run.metrics
    assert metrics.explained_variance.iloc[-1] > 0.8, metrics.explained_variance.iloc[-1]
    assert metrics.skipped_steps.iloc[-1] == 0
