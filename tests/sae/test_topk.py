"""The TopK loss with AuxK."""

from __future__ import annotations

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, get_architecture
from saewidgets.sae.revival import aux_k_loss

KNOBS = Knobs(sparsity=0.0, k=4, progress=0.5)


def make(aux_k: int = 6, dead_bias: float = -20.0) -> tuple[SAE, torch.Tensor, torch.Tensor]:
    """An SAE whose last 10 features never reach the top k, vectors, and the ids of those features."""
    sae = SAE(SAEConfig(d_in=12, d_sae=40, k=4, aux_k=aux_k, dtype="float64"))
    dead = torch.arange(30, 40)
    with torch.no_grad():
        sae.b_enc[:30] = 20.0
        sae.b_enc[dead] = 20.0 + dead_bias
    x = torch.randn(64, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return sae, x, dead


def test_without_dead_features_the_loss_is_the_mean_squared_error() -> None:
    sae, x, _ = make()
    losses = get_architecture("topk").loss(sae, x, x, KNOBS, None)
    residual = x - sae(x)
    assert torch.allclose(losses.loss, residual.square().mean()) and torch.allclose(losses.residual, residual)
    assert losses.fired.sum() == 64 * 4 and torch.equal(losses.fired, (sae.encode(x) > 0).double().sum(0))


@pytest.mark.parametrize("aux_k", [6, 40])
def test_auxk_follows_its_equation(aux_k: int) -> None:
    sae, x, dead = make(aux_k)
    architecture = get_architecture("topk")
    e = (x - sae(x)).detach()
    h = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc)[:, dead]
    top = h.topk(min(aux_k, 10), dim=-1)
    ehat = torch.zeros_like(h).scatter(1, top.indices, top.values.relu()) @ sae.W_dec[dead]
    expected = (e - ehat).square().sum() / (e - e.mean(0)).square().sum()
    plain, with_aux = architecture.loss(sae, x, x, KNOBS, None).loss, architecture.loss(sae, x, x, KNOBS, dead).loss
    assert torch.allclose(with_aux - plain, expected / 32)


def test_auxk_gradient_reaches_the_encoder_of_dead_features_only() -> None:
    sae, x, dead = make()
    architecture = get_architecture("topk")
    parameters = [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec]
    plain = torch.autograd.grad(architecture.loss(sae, x, x, KNOBS, None).loss, parameters)
    aux = torch.autograd.grad(architecture.loss(sae, x, x, KNOBS, dead).loss, parameters)
    alive = torch.arange(30)
    W_enc, b_enc, W_dec, b_dec = (a - p for a, p in zip(aux, plain, strict=True))
    assert (W_enc[:, dead].abs().sum(0) > 0).all() and (b_enc[dead].abs() > 0).all()
    assert (W_dec[dead].abs().sum(1) > 0).all()
    assert plain[0][:, dead].eq(0).all()  # nothing else would have moved them
    for rest in (W_enc[:, alive], b_enc[alive], W_dec[alive], b_dec):
        assert torch.allclose(rest, torch.zeros_like(rest), atol=1e-14)


def test_auxk_is_zero_not_nan_where_nothing_is_left_to_explain() -> None:
    sae, x, dead = make()
    loss = aux_k_loss(sae, x, torch.zeros_like(x), dead, sae.b_dec)
    assert float(loss) == 0
    gradients = torch.autograd.grad(loss, [sae.W_enc, sae.W_dec])
    assert all(torch.isfinite(g).all() for g in gradients)
