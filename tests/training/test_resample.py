"""Dead features: counted as they die and come back, and given new directions where the architecture asks for it."""

from __future__ import annotations

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs
from saewidgets.training.config import TrainConfig
from saewidgets.training.step import Steps, prepare

from .toy import D_IN, ToyStream

DEAD = torch.arange(50, 64)


def steps_with_dead(architecture: str, n_steps: int = 40) -> tuple[Steps, torch.Tensor]:
    """A run of some steps in which the features DEAD never fire, and its vectors."""
    k = {"k": 4} if architecture == "topk" else {}
    sae = SAE(SAEConfig(d_in=D_IN, d_sae=64, architecture=architecture, **k))
    x = ToyStream().vectors
    steps = Steps(sae, TrainConfig(n_tokens=100_000, dead_window=4096), 400, prepare(sae, x))
    with torch.no_grad():
        sae.b_enc[DEAD] = -100.0
    for batch in x.split(256)[:n_steps]:
        steps.take(batch, batch, Knobs(0.1, 4, 0.2), 1e-3, revive=False)
    return steps, x


@pytest.mark.parametrize("architecture", ["relu", "gated", "p_anneal"])
def test_dead_features_get_the_directions_of_vectors_that_are_explained_badly(architecture: str) -> None:
    steps, _ = steps_with_dead(architecture)
    sae = steps.sae
    alive = torch.ones(64, dtype=torch.bool)
    alive[DEAD] = False
    alive_before = sae.W_dec[alive].detach().clone()
    assert steps.last is not None
    scaled, residual = steps.last
    steps.resample()
    assert steps.dead is not None and torch.equal(steps.dead, DEAD)
    with torch.no_grad():
        new = torch.nn.functional.normalize(sae.W_dec[DEAD], dim=1)
        candidates = torch.nn.functional.normalize(scaled - sae.b_dec, dim=1)
        cosine, which = (new @ candidates.T).max(1)
        assert torch.allclose(cosine, torch.ones(len(DEAD)), atol=1e-5)
        loss = residual.square().sum(1)
        assert loss[which].mean() > loss.mean()  # not any vectors
        assert torch.allclose(sae.W_dec[DEAD].norm(dim=1), sae.W_dec[alive].norm(dim=1).mean().expand(14), rtol=1e-4)
        lengths = 0.2 * sae.W_enc[:, alive].norm(dim=0).mean()
        assert torch.allclose(sae.W_enc[:, DEAD].norm(dim=0), lengths.expand(14), rtol=1e-4)
        assert sae.b_enc[DEAD].eq(0).all() and torch.equal(sae.W_dec[alive], alive_before)
    batch = ToyStream().vectors[:256]
    moved = sae.W_dec[DEAD].detach().clone()
    steps.take(batch, batch, Knobs(0.1, 4, 0.2), 1e-3, revive=False)
    assert (sae.encode(batch)[:, DEAD] > 0).any(0).double().mean() > 0.8
    # Adam has forgotten the old direction: its first step on the new one is not a large one
    assert (sae.W_dec[DEAD] - moved).abs().max() < 1e-2


def test_others_are_left_to_aux_k() -> None:
    steps, _ = steps_with_dead("topk")
    before = steps.sae.fingerprint()
    steps.resample()
    assert steps.sae.fingerprint() == before


def test_deaths_and_births_are_counted_once_each() -> None:
    steps, x = steps_with_dead("relu", n_steps=8)
    steps.find_dead()
    assert steps.read().deaths == 0  # silent, but not for long enough
    for batch in x.split(256)[8:32]:
        steps.take(batch, batch, Knobs(0.1, 4, 0.2), 1e-3, revive=False)
    steps.find_dead()
    steps.find_dead()
    first = steps.read()
    assert (first.deaths, first.births) == (14, 0) and first.dead_fraction == 14 / 64
    with torch.no_grad():
        steps.sae.b_enc[DEAD[:5]] = 0.0
    for batch in x.split(256)[:4]:
        steps.take(batch, batch, Knobs(0.1, 4, 0.2), 1e-3, revive=False)
    steps.find_dead()
    second = steps.read()
    assert (second.deaths, second.births) == (0, 5) and second.dead_fraction == 9 / 64
    assert steps.read().births == 0


def test_the_same_seed_resamples_the_same() -> None:
    prints = []
    for _ in range(2):
        steps, _ = steps_with_dead("relu")
        steps.resample()
        prints.append(steps.sae.fingerprint())
    assert prints[0] == prints[1]
