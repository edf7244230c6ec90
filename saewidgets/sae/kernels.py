"""Sparse codes and their gradients, without a [batch, d_sae] tensor after the top-k.

A code of n vectors with k active features each is a pair (values [n, k], indices [n, k]). Decoding sums k
rows of W_dec for each vector; the weight gradients sum, for each feature, the vectors it was active in. Both
are `embedding_bag`: the second one over the code sorted by feature. Only the encoder's matrix product is
dense, and it is taken in chunks of rows: its [chunk, d_sae] result is all that ever exists of the
preactivations.

`encode_topk` and `decode` are differentiable in the weights (checked against dense autograd in float64). Both
run on any device; sums have a fixed order on a CPU, so equal seeds give equal bits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ELEMENTS = 1 << 23
"""Preactivations held at once: 1024 rows of 8192 features. Half of it slows the matrix product by 12%."""


def topk_code(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """relu(top-k of (x - b_dec) W_enc + b_enc): values [n, k] and int64 indices [n, k], in no set order."""
    n, d_sae = x.shape[0], W_enc.shape[1]
    values, indices = x.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=x.device)
    rows = max(1, min(n, CHUNK_ELEMENTS // d_sae))
    preactivations = x.new_empty(rows, d_sae)
    for start in range(0, n, rows):
        centred = x[start : start + rows] - b_dec
        chunk = preactivations[: centred.shape[0]]
        torch.addmm(b_enc, centred, W_enc, out=chunk)
        top = chunk.topk(k, dim=-1, sorted=False)
        values[start : start + rows], indices[start : start + rows] = top.values.relu_(), top.indices
    return values, indices


class ByFeature:
    """A code sorted by feature: which vectors each feature was active in."""

    def __init__(self, indices: Tensor, d_sae: int) -> None:
        flat = indices.reshape(-1)
        features, self.order = torch.sort(flat, stable=True)
        self.vectors = self.order // indices.shape[-1]
        self.starts = torch.searchsorted(features, torch.arange(d_sae, device=flat.device))

    def sum(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """For each feature, the sum of weights[n, j] * vectors[n] over its places (n, j): [d_sae, d_in]."""
        sorted_weights = weights.reshape(-1)[self.order]
        return F.embedding_bag(
            self.vectors, vectors.contiguous(), self.starts, mode="sum", per_sample_weights=sorted_weights
        )


def count_by_feature(weights: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    """For each feature, the sum of its weights: [d_sae]. Exact in any order if the weights are 0 or 1."""
    return weights.new_zeros(d_sae).index_add_(0, indices.reshape(-1), weights.reshape(-1))


def dot_active(gradient: Tensor, indices: Tensor, W_dec: Tensor) -> Tensor:
    """gradient[n] . W_dec[indices[n, j]] for each place of a code: [n, k], without storing gathered rows."""
    n, k = indices.shape
    bags = torch.arange(n, device=indices.device)
    starts, bag_of = bags * k, bags.repeat_interleave(k)
    dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        gradient.contiguous(), W_dec.contiguous(), indices.reshape(-1), starts, bag_of, 0, -1
    )
    return dots.view(n, k)


class _EncodeTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int
    ) -> tuple[Tensor, Tensor, ByFeature]:
        values, indices = topk_code(x, W_enc, b_enc, b_dec, k)
        ctx.by_feature = ByFeature(indices, W_enc.shape[1])
        ctx.save_for_backward(x, W_enc, b_dec, values, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices, ctx.by_feature

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        x, W_enc, b_dec, values, indices = ctx.saved_tensors
        gradient = gradients[0] * (values > 0)
        g_b_enc = count_by_feature(gradient, indices, W_enc.shape[1])
        # sum over vectors of g (x - b_dec), without a second copy of the centred batch
        g_W_enc = ctx.by_feature.sum(gradient, x).addcmul_(g_b_enc.unsqueeze(1), b_dec, value=-1)
        g_b_dec = -(W_enc @ g_b_enc)
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = F.embedding_bag(indices, W_enc.t().contiguous(), mode="sum", per_sample_weights=gradient)
        return g_x, g_W_enc.t(), g_b_enc, g_b_dec, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor, by_feature: ByFeature | None
    ) -> Tensor:
        ctx.save_for_backward(values, indices, W_dec)
        ctx.by_feature = by_feature
        return F.embedding_bag(indices, W_dec, mode="sum", per_sample_weights=values).add_(b_dec)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        values, indices, W_dec = ctx.saved_tensors
        gradient = gradients[0]
        by_feature = ctx.by_feature or ByFeature(indices, W_dec.shape[0])
        g_values = dot_active(gradient, indices, W_dec)
        return g_values, None, by_feature.sum(values, gradient), gradient.sum(0), None


def encode_topk(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int) -> tuple[Tensor, Tensor, ByFeature]:
    """`topk_code` with gradients for x and the weights; and the code sorted by feature, for `decode`."""
    return _EncodeTopK.apply(x, W_enc, b_enc, b_dec, k)


def decode(
    values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor, by_feature: ByFeature | None = None
) -> Tensor:
    """values W_dec[indices] + b_dec: [n, d_in], with gradients for the values and the weights."""
    return _Decode.apply(values, indices, W_dec, b_dec, by_feature)
