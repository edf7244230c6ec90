"""Sparse codes and their gradients, without a [batch, d_sae] tensor after the selection.

A code is sparse: it holds a number only where a feature is active in a vector. `Places` says where that is; the
numbers lie beside it, one a place. Decoding sums rows of W_dec over the places of each vector; the weight gradients
sum, for each feature, the vectors it was active in. Both are `embedding_bag`: the second one over the places sorted
by feature. Only the encoder's matrix product is dense, and it is taken in chunks of rows: its [chunk, d_sae] result
is all that ever exists of the preactivations (see `saewidgets.sae.selection`).

`encode_topk`, `preactivations_at` and `decode` are differentiable (checked against dense autograd in float64). All
run on any device; sums have a fixed order on a CPU, so equal seeds give equal bits. On a GPU the sums and the selection
are those of `saewidgets.sae.kernels_triton`, where `triton_for` says so, and torch's elsewhere.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ELEMENTS = 1 << 23
"""Preactivations held at once: 1024 rows of 8192 features. Half of it slows the matrix product by 12%."""

CHUNK_ELEMENTS_GPU = 1 << 27
"""The same on a GPU, 512 MB. Each chunk reads all of W_enc, so it must have many rows: 1024 of 131,072 features."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs its kernels in Python, on any device: to test them."""


def triton_for(x: Tensor) -> ModuleType | None:
    """The Triton kernels if they are to work on a tensor like x, None for torch's: the one place that decides.

    They work on a GPU, in float32 and below, where triton is installed and SAEWIDGETS_KERNELS=torch is not set.
    """
    if not (x.is_cuda or INTERPRETED) or x.dtype == torch.float64:
        return None
    return _triton()


@cache
def _triton() -> ModuleType | None:
    if os.environ.get("SAEWIDGETS_KERNELS") == "torch" or importlib.util.find_spec("triton") is None:
        return None
    kernels = importlib.import_module("saewidgets.sae.kernels_triton")
    try:
        kernels.try_out("cpu" if INTERPRETED else "cuda")
    except Exception as error:  # no C compiler, too old a card, a broken install: none of it is worth the run
        reason = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0]
        warnings.warn(
            f"Triton is installed, but its kernels do not run here ({reason}). saewidgets takes torch's, which give "
            "the same and are slower. SAEWIDGETS_KERNELS=torch in the environment says so from the start.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels


def gather_type(rows: Tensor) -> torch.dtype:
    """The type that rows like these are gathered in: autocast's for Triton, half the bytes; their own for torch."""
    device = rows.device.type
    if torch.is_autocast_enabled(device) and triton_for(rows) is not None:
        return torch.get_autocast_dtype(device)
    return rows.dtype


class Places:
    """Where a code is active: place p belongs to vector `rows[p]` and feature `features[p]`, both [places].

    The places of one vector lie together, in the order of the vectors; those of vector i begin at `starts[i]`.
    """

    def __init__(self, rows: Tensor, features: Tensor, starts: Tensor, d_sae: int) -> None:
        self.rows, self.features, self.starts, self.d_sae = rows, features, starts, d_sae

    @classmethod
    def even(cls, indices: Tensor, d_sae: int) -> Places:
        """Those of a code with k features for each vector, indices [n, k]."""
        n, k = indices.shape
        vectors = torch.arange(n, device=indices.device)
        return cls(vectors.repeat_interleave(k), indices.reshape(-1), vectors * k, d_sae)

    @classmethod
    def uneven(cls, rows: Tensor, features: Tensor, n: int, d_sae: int) -> Places:
        """Those of n vectors with any number of features each; `rows` ascends."""
        return cls(rows, features, torch.searchsorted(rows, torch.arange(n, device=rows.device)), d_sae)

    @property
    def n(self) -> int:
        """Number of vectors."""
        return self.starts.shape[0]

    @cached_property
    def by_feature(self) -> tuple[Tensor, Tensor]:
        """The order that sorts the places by feature [places], and where each feature's begin in it [d_sae]."""
        features = self.features
        if features.is_cuda:  # a GPU sorts by passes over the bytes of a number: two or four, not eight
            features = features.to(torch.int16 if self.d_sae <= 1 << 15 else torch.int32)
        features, order = torch.sort(features, stable=True)
        return order, torch.searchsorted(
            features, torch.arange(self.d_sae, dtype=features.dtype, device=features.device)
        )

    def sum_by_vector(self, weights: Tensor, per_feature: Tensor) -> Tensor:
        """For each vector, the sum of weights[p] * per_feature[feature of p]: [n, d] from [d_sae, d]."""
        if (triton := triton_for(per_feature)) is not None:
            return triton.sum_rows(per_feature, self.features, weights.reshape(-1), self.starts)[0]
        return F.embedding_bag(
            self.features, per_feature, self.starts, mode="sum", per_sample_weights=weights.reshape(-1)
        )

    def sum_by_feature(self, weights: Tensor, per_vector: Tensor, rows: Tensor | None = None) -> Tensor:
        """For each feature, the sum of weights[p] * per_vector[row of p]: [d_sae, d] from [n, d].

        `rows` [places]: other rows of `per_vector` than those of the places' own vectors.
        """
        order, starts = self.by_feature
        if (triton := triton_for(per_vector)) is not None:
            return triton.sum_rows(per_vector, self.rows[order], weights.reshape(-1)[order], starts)[0]
        return F.embedding_bag(
            (self.rows if rows is None else rows)[order],
            per_vector.contiguous(),
            starts,
            mode="sum",
            per_sample_weights=weights.reshape(-1)[order],
        )

    def sum_centred(
        self, weights: Tensor, per_vector: Tensor, centre: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """For each feature, the sum of weights[p] * (per_vector[row of p] - centre) [d_sae, d], and of weights [d_sae].

        `dtype`: what Triton gathers in, see `gather_type`.
        """
        if (triton := triton_for(per_vector)) is not None:
            order, starts = self.by_feature
            centred = (per_vector - centre).to(dtype)
            return triton.sum_rows(centred, self.rows[order], weights.reshape(-1)[order], starts)
        total = self.count(weights)
        # without a second copy of the batch
        return self.sum_by_feature(weights, per_vector).addcmul_(total.unsqueeze(1), centre, value=-1), total

    def dot(self, per_vector: Tensor, per_feature: Tensor) -> Tensor:
        """per_vector[row of p] . per_feature[feature of p]: [places], without storing gathered rows."""
        if (triton := triton_for(per_vector)) is not None:
            return triton.dot_rows(per_vector, self.rows, per_feature, self.features)
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            per_vector.contiguous(), per_feature.contiguous(), self.features, self.starts, self.rows, 0, -1
        )

    def count(self, weights: Tensor) -> Tensor:
        """For each feature, the sum of its weights: [d_sae]. Exact in any order if the weights are 0 or 1."""
        return weights.new_zeros(self.d_sae).index_add_(0, self.features, weights.reshape(-1))

    def gather(self, per_feature: Tensor) -> Tensor:
        """per_feature[feature of p]: [places] from [d_sae]."""
        return per_feature[self.features]

    def decode(self, values: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
        """See the function of that name."""
        return decode(values, self, W_dec, b_dec)

    def pad(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the places as (values [n, m], indices [n, m]): m is the largest count, the rest is value 0."""
        column = torch.arange(len(self.rows), device=self.rows.device) - self.starts[self.rows]
        m = int(column.max()) + 1 if len(column) else 0
        padded, indices = values.new_zeros(self.n, m), self.features.new_zeros(self.n, m)
        return padded.index_put((self.rows, column), values), indices.index_put((self.rows, column), self.features)


def preactivation_chunks(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(x - b_in) W_enc + b_enc, as many rows at a time as CHUNK_ELEMENTS allows: (first row, [rows, d_sae]).

    The memory of a chunk is used again for the next one.
    """
    memory: Tensor | None = None
    for start, product, bias in _product_chunks(x, W_enc, b_enc, b_in):
        if bias is None:
            yield start, product
        else:
            memory = x.new_empty(product.shape) if memory is None else memory
            yield start, torch.add(product, bias, out=memory[: len(product)])


def _product_chunks(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """The same, and a bias that is not in them yet.

    Under autocast the product is taken in its type, as autocast itself does not reach a product that writes into given
    memory; the bias is then still to be added, in its own type.
    """
    device, n, d_sae = x.device.type, x.shape[0], W_enc.shape[1]
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    W_low = W_enc if low is None else W_enc.to(low)
    rows = max(1, min(n, (CHUNK_ELEMENTS_GPU if x.is_cuda else CHUNK_ELEMENTS) // d_sae))
    memory = x.new_empty(rows, d_sae if low is None else 0)
    for start in range(0, n, rows):
        centred = x[start : start + rows] - b_in
        if low is None:
            yield start, torch.addmm(b_enc, centred, W_enc, out=memory[: len(centred)]), None
        else:
            yield start, centred.to(low) @ W_low, b_enc


def largest(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, k: int, magnitude: bool = False
) -> tuple[Tensor, Tensor]:
    """The k largest of (x - b_in) W_enc + b_enc in each row: values [n, k], int64 indices [n, k], in no set order.

    `magnitude`: those of the largest magnitude, with their signs. Without gradients.
    """
    n, triton = x.shape[0], triton_for(x)
    values, indices = x.new_empty(n, k), torch.empty(n, k, dtype=torch.int64, device=x.device)
    if triton is not None and triton.can_select(k):
        # the bias is added where the product is read: under autocast no float32 chunk is ever written
        for start, product, bias in _product_chunks(x, W_enc, b_enc, b_in):
            rows = slice(start, start + len(product))
            values[rows], indices[rows] = triton.top(product, k, bias, magnitude)
        return values, indices
    for start, chunk in preactivation_chunks(x, W_enc, b_enc, b_in):
        rows = slice(start, start + len(chunk))
        top = (chunk.abs() if magnitude else chunk).topk(k, dim=-1, sorted=False)
        values[rows], indices[rows] = chunk.gather(1, top.indices) if magnitude else top.values, top.indices
    return values, indices


def topk_code(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """relu(top-k of (x - b_in) W_enc + b_enc): values [n, k] and int64 indices [n, k], in no set order."""
    values, indices = largest(x, W_enc, b_enc, b_in, k)
    return values.relu_(), indices


class _PreactivationsAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, places: Places, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor) -> Tensor:
        ctx.places, ctx.gather_type = places, gather_type(x)
        ctx.save_for_backward(x, W_enc, b_in)
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        x, W_enc, b_in = ctx.saved_tensors
        gradient, places = gradients[0], ctx.places
        # sum over vectors of g (x - b_in), and of g
        g_W_enc, g_b_enc = places.sum_centred(gradient, x, b_in, ctx.gather_type)
        g_b_in = -(W_enc @ g_b_enc) if ctx.needs_input_grad[5] else None
        g_x = places.sum_by_vector(gradient, W_enc.t().contiguous()) if ctx.needs_input_grad[2] else None
        return None, None, g_x, g_W_enc.t(), g_b_enc, g_b_in


def preactivations_at(h: Tensor, places: Places, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor) -> Tensor:
    """h, known already, as ((x - b_in) W_enc + b_enc) at `places`: gives it gradients for x and the weights.

    h may have any shape with as many elements as there are places. Where h is already cut to relu(h), apply `relu`
    to what comes back, which takes the gradient off where it was cut.
    """
    return _PreactivationsAt.apply(h, places, x, W_enc, b_enc, b_in)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Places, W_dec: Tensor, b_dec: Tensor) -> Tensor:
        table = W_dec.to(gather_type(W_dec))
        ctx.save_for_backward(values, table)
        ctx.places = places
        return places.sum_by_vector(values, table).add_(b_dec)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        values, table = ctx.saved_tensors
        gradient, places = gradients[0], ctx.places
        rows = gradient.to(table.dtype)
        g_values = places.dot(rows, table).view_as(values).to(values.dtype) if ctx.needs_input_grad[0] else None
        return g_values, None, places.sum_by_feature(values, rows), gradient.sum(0)


def encode_topk(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, k: int) -> tuple[Tensor, Tensor, Places]:
    """`topk_code` with gradients for x and the weights; and its places, for `decode`."""
    with torch.no_grad():
        values, indices = topk_code(x, W_enc, b_enc, b_in, k)
        places = Places.even(indices, W_enc.shape[1])
    return preactivations_at(values, places, x, W_enc, b_enc, b_in).relu(), indices, places


def decode(values: Tensor, places: Places, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    """Sum over a vector's places of values W_dec, + b_dec: [n, d_out], with gradients for the values and weights."""
    return _Decode.apply(values, places, W_dec, b_dec)
