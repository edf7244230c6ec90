"""Sparse kernels against dense autograd, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saewidgets.sae import kernels
from saewidgets.sae.kernels import Places, decode, encode_topk, topk_code

N, D_IN, D_SAE, K = 37, 12, 50, 5


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(N, D_IN), (D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def dense(x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    h = (x - b_dec) @ W_enc + b_enc
    top = h.topk(K, dim=-1)
    f = torch.zeros_like(h).scatter(1, top.indices, top.values.relu())
    return f @ W_dec + b_dec


def sparse(x: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    values, _, places = encode_topk(x, W_enc, b_enc, b_dec, K)
    return decode(values, places, W_dec, b_dec)


@pytest.mark.parametrize("chunk", [D_SAE, 10 * D_SAE, 1 << 20])
def test_values_and_gradients_equal_dense_autograd(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHUNK_ELEMENTS", chunk)
    leaves = weights()
    target = torch.randn(N, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, reference = sparse(*leaves), dense(*leaves)
    assert torch.allclose(ours, reference, atol=1e-12)
    ours_g = torch.autograd.grad((ours - target).square().sum(), leaves)
    reference_g = torch.autograd.grad((reference - target).square().sum(), leaves)
    for name, a, b in zip(("x", "W_enc", "b_enc", "W_dec", "b_dec"), ours_g, reference_g, strict=True):
        assert torch.allclose(a, b, atol=1e-10), name
        assert b.abs().max() > 0, name


def test_negative_preactivations_give_zero_and_no_gradient() -> None:
    x, W_enc, b_enc, W_dec, b_dec = weights()
    b_low = (b_enc.detach() - 100).requires_grad_()
    values, indices, places = encode_topk(x, W_enc, b_low, b_dec, K)
    assert values.eq(0).all() and indices.shape == (N, K)
    out = decode(values, places, W_dec, b_dec)
    gradients = torch.autograd.grad(out.square().sum(), [W_enc, b_low, W_dec])
    assert all(g.eq(0).all() for g in gradients)


def test_code_by_feature_sums_over_the_vectors_of_each_feature() -> None:
    generator = torch.Generator().manual_seed(2)
    indices = torch.stack([torch.randperm(7, generator=generator)[:3] for _ in range(20)])
    weights, vectors = torch.randn(20, 3, generator=generator), torch.randn(20, 4, generator=generator)
    summed = Places.even(indices, 9).sum_by_feature(weights, vectors)
    expected = torch.zeros(20, 9).scatter(1, indices, weights).T @ vectors
    assert torch.allclose(summed, expected, atol=1e-5)
    assert summed[7:].eq(0).all()  # features that nothing activates


def test_no_tensor_of_batch_by_features_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor of a step's forward and backward is the chunk of preactivations."""
    monkeypatch.setattr(kernels, "CHUNK_ELEMENTS", 4 * D_SAE)
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor))
            return out

    leaves = weights()
    with Sizes():
        torch.autograd.grad(sparse(*leaves).sum(), leaves[1:])
    assert 4 * D_SAE <= max(sizes) <= max(D_IN * D_SAE, N * D_IN) < N * D_SAE


def test_float32_and_plain_code_agree() -> None:
    x, W_enc, b_enc, _, b_dec = (w.detach().float() for w in weights())
    values, indices = topk_code(x, W_enc, b_enc, b_dec, K)
    h = (x - b_dec) @ W_enc + b_enc
    assert torch.allclose(values, h.gather(1, indices).relu(), atol=1e-4)
    assert values.sum() == pytest.approx(float(h.topk(K).values.relu().sum()), rel=1e-5)
