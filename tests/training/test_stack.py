"""Stacked SAEs: each gets the gradients that it would get alone, to the last bit on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig, kernels
from saewidgets.sae.architectures import Knobs
from saewidgets.training import TrainConfig, stack
from saewidgets.training.gradients import Gradients
from saewidgets.training.stack import STACKED, Stack, own_memory, stack_key

from .toy import D_IN, ToyStream, toy_sae

X = ToyStream(n=300).vectors / 10
DEAD = [torch.arange(40), None, torch.tensor([3, 5]), torch.arange(64)]


def saes(dtype: str = "float32", architecture: str = "topk") -> list[SAE]:
    """Untrained, with all weights away from where they begin."""
    ks = (2, 4, 4, 9)
    made = [toy_sae(seed, k=k, dtype=dtype, aux_k=5, architecture=architecture) for seed, k in enumerate(ks)]
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for sae in made:
            for parameter in sae.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return made


def knobs(sae: SAE) -> Knobs:
    return Knobs(0.0, sae.cfg.k, 0.5)


@pytest.mark.parametrize("chunk", [1 << 23, 64 * 300 * 2, 64 * 128])  # all, two SAEs, 128 rows of one
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", STACKED)
def test_each_gets_the_gradients_that_it_gets_alone(
    monkeypatch: Any, architecture: str, dtype: str, chunk: int
) -> None:
    for room in (kernels, stack):
        monkeypatch.setattr(room, "CHUNK_ELEMENTS", chunk)
    x = X.to(getattr(torch, dtype))
    alone, together = saes(dtype, architecture), saes(dtype, architecture)
    found = Stack(together).gradients(x, [knobs(sae) for sae in together], DEAD)
    for sae, dead, (losses, gradients) in zip(alone, DEAD, found, strict=True):
        expected, theirs = Gradients(sae, list(sae.parameters()), "float32").of(x, x, knobs(sae), dead)
        assert torch.allclose(losses.loss, expected.loss.detach(), rtol=1e-6)
        assert torch.equal(losses.residual, expected.residual) and torch.equal(losses.fired, expected.fired)
        assert losses.extra.keys() == expected.extra.keys() and losses.extra == expected.extra
        assert all(torch.equal(one, other) for one, other in zip(gradients, theirs, strict=True))


def test_the_parameters_become_views_of_one_block_until_they_are_taken_out() -> None:
    together, before = saes(), [sae.fingerprint() for sae in saes()]
    block = Stack(together)
    assert [sae.fingerprint() for sae in together] == before
    with torch.no_grad():
        block.W_dec[1].zero_(), block.W_enc[2].zero_()
    assert not together[1].W_dec.any() and not together[2].W_enc.any() and together[0].W_dec.any()
    own_memory(together[0])
    assert together[0].fingerprint() == before[0] and together[0].W_enc.t().is_contiguous()
    assert together[0].W_dec.untyped_storage().nbytes() == together[0].W_dec.nbytes
    with torch.no_grad():
        block.W_dec.zero_()
    assert together[0].fingerprint() == before[0]


def test_what_can_be_stacked() -> None:
    config = TrainConfig(n_tokens=1000)

    def key(config: TrainConfig = config, **options: Any) -> object:
        return stack_key(SAEConfig(**{"d_in": D_IN, "d_sae": 64, "k": 4, **options}), config)

    assert key() == key(k=8, seed=3, aux_k=2, init_b_dec="zeros") == key(config.replace(lr=1e-3, clip_norm=1.0))
    assert len({key(), key(d_sae=32), key(normalize="none"), key(architecture="batchtopk")}) == 4
    assert key(multi_k=8) is key(architecture="matryoshka") is key(config.replace(precision="bf16")) is None
