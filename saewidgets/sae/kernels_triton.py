"""The sparse kernels of `saewidgets.sae.kernels` in Triton, for GPUs; torch's own are what they are held against.

Imported only where they run: on CUDA (or ROCm) tensors with triton installed, or on any tensor if TRITON_INTERPRET=1
was set before. `kernels.triton_for` decides. Triton is MIT-licensed and comes with torch's CUDA builds; elsewhere
`pip install saewidgets[gpu]`.

Nothing here reads the device, and no sum is made of atomic additions: every sum is taken by one program in an order
that the shapes decide, so equal inputs give equal bits on one card. Tensors may be of float32, bfloat16 or float16;
sums are kept in float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTH = 256
"""Columns of a row that one program sums at once: 16 of them are 32 registers of each of its 128 threads."""

MOST_PLACES = 16
"""Rows that are in flight at once in a program."""

CHUNK = 4096
"""Numbers that one program selects from, 16 of them in each of its threads."""


def try_out(device: str) -> None:
    """Raise what Triton raises where it cannot compile and run a kernel."""
    ids, rows = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, 16, device=device)
    sum_rows(rows, ids, rows[:, 0], ids)
    dot_rows(rows, ids, rows, ids)
    top(rows, 2)


# ── sums of weighted rows: decode, and the weight gradients ──────────────────────────────────────────────────────────


@triton.jit
def _sum_rows(  # type: ignore[no-untyped-def]  # triton reads annotations as code
    table, ids, weights, starts, out, totals,
    n_segments, n_places, d,
    PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start = tl.load(starts + segment)
    end = tl.load(starts + segment + 1, mask=segment + 1 < n_segments, other=n_places)
    # one sum for each of the rows in flight: they meet once, at the end
    sums = tl.zeros((PLACES, WIDTH), tl.float32)
    total = tl.zeros((PLACES,), tl.float32)
    for first in range(start, end, PLACES):
        place = first + tl.arange(0, PLACES)
        there = place < end
        row = tl.load(ids + place, mask=there, other=0).to(tl.int64)
        weight = tl.load(weights + place, mask=there, other=0.0).to(tl.float32)
        inside = there[:, None] & (column < d)[None, :]
        values = tl.load(table + row[:, None] * d + column[None, :], mask=inside, other=0.0)
        sums += weight[:, None] * values.to(tl.float32)
        total += weight
    tl.store(out + segment * d + column, tl.sum(sums, 0).to(out.dtype.element_ty), mask=column < d)
    if tl.program_id(1) == 0:
        tl.store(totals + segment, tl.sum(total, 0).to(totals.dtype.element_ty))


def sum_rows(table: Tensor, ids: Tensor, weights: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """For each segment of places, the sum of weights[p] * table[ids[p]] [segments, d], and of weights[p] [segments].

    Places are in the order of the segments; those of segment i begin at `starts[i]` and end where the next one's do. A
    segment without places gives zeros. In the type of `weights`, whatever that of `table` is.

    One program sums a segment, so a feature that is active in every vector takes n / 16 rounds, one after the other,
    and may outlast all others (the benchmark tests/benchmarks/gpu_step.py has a table for it).
    """
    n_segments, n_places, d = starts.shape[0], ids.shape[0], table.shape[1]
    out, totals = weights.new_empty(n_segments, d), weights.new_empty(n_segments)
    if not n_segments or not d:
        return out, totals.zero_()
    # as many rows in flight as a segment has on average: the others of a short one would be masked
    mean = -(-n_places // n_segments)
    places, width = min(MOST_PLACES, max(2, triton.next_power_of_2(mean))), min(WIDTH, triton.next_power_of_2(d))
    with torch.cuda.device_of(table):
        _sum_rows[(n_segments, triton.cdiv(d, width))](
            table.contiguous(), ids, weights.contiguous(), starts, out, totals, n_segments, n_places, d,
            PLACES=places, WIDTH=width, num_warps=4 if places * width >= 1024 else 1,
        )  # fmt: skip
    return out, totals


# ── products of rows: the gradient of the code ───────────────────────────────────────────────────────────────────────


@triton.jit
def _dot_rows(  # type: ignore[no-untyped-def]  # triton reads annotations as code
    left, left_ids, right, right_ids, out,
    n_places, d,
    PLACES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    there = place < n_places
    left_row = left + tl.load(left_ids + place, mask=there, other=0).to(tl.int64) * d
    right_row = right + tl.load(right_ids + place, mask=there, other=0).to(tl.int64) * d
    sums = tl.zeros((PLACES, WIDTH), tl.float32)
    for first in range(0, d, WIDTH):
        column = first + tl.arange(0, WIDTH)
        inside = there[:, None] & (column < d)[None, :]
        a = tl.load(left_row[:, None] + column[None, :], mask=inside, other=0.0)
        b = tl.load(right_row[:, None] + column[None, :], mask=inside, other=0.0)
        sums += a.to(tl.float32) * b.to(tl.float32)
    tl.store(out + place, tl.sum(sums, 1).to(out.dtype.element_ty), mask=there)


def dot_rows(left: Tensor, left_ids: Tensor, right: Tensor, right_ids: Tensor) -> Tensor:
    """left[left_ids[p]] . right[right_ids[p]] for each place p: float32 [places]."""
    n_places, d = left_ids.shape[0], left.shape[1]
    out = torch.empty(n_places, dtype=torch.float32, device=left.device)
    if not n_places:
        return out
    with torch.cuda.device_of(left):
        _dot_rows[(triton.cdiv(n_places, MOST_PLACES),)](
            left.contiguous(), left_ids, right.contiguous(), right_ids, out, n_places, d,
            PLACES=MOST_PLACES, WIDTH=min(128, triton.next_power_of_2(d)), num_warps=4,
        )  # fmt: skip
    return out


# ── the k largest of a row ───────────────────────────────────────────────────────────────────────────────────────────


@triton.jit
def _select(  # type: ignore[no-untyped-def]  # triton reads annotations as code
    values, ids, bias, out_values, out_ids,
    n_columns, k,
    HAS_IDS: tl.constexpr, HAS_BIAS: tl.constexpr, MAGNITUDE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    row, part, lane = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, CHUNK)
    column = part * CHUNK + lane
    mine = column < n_columns
    value = tl.load(values + row * n_columns + column, mask=mine, other=0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + column, mask=mine, other=0.0).to(tl.float32)
    which = column
    if HAS_IDS:
        which = tl.load(ids + row * n_columns + column, mask=mine, other=-1)
        mine = mine & (which >= 0)
    # whole numbers in the order of the floats; NaN above all, as in torch.topk; what is not there below all
    size = tl.abs(value) if MAGNITUDE else value
    bits = size.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = tl.where(size == size, key, 0x7FFFFFFE)
    key = tl.where(mine, key, -0x80000000)
    # the key that k are not below: never fewer than k at `low`, always fewer at `high`
    low, high = tl.full((), -0x80000000, tl.int32), tl.full((), 0x7FFFFFFF, tl.int32)
    while low + 1 < high:
        middle = (low & high) + ((low ^ high) >> 1)
        count = tl.sum((key >= middle).to(tl.int32), 0)
        # exactly k: found, and the interval closes
        high = tl.where(count > k, high, tl.where(count == k, middle + 1, middle))
        low = tl.where(count >= k, middle, low)
    above, level = key > low, key == low
    # both counts in one scan: a chunk has fewer than 2^16 numbers
    running = tl.cumsum(above.to(tl.int32) * 65536 + level.to(tl.int32), 0)
    n_above = tl.sum(above.to(tl.int32), 0)
    nth_level = running & 0xFFFF
    place = tl.where(above, (running >> 16) - 1, n_above + nth_level - 1)
    taken = above | (level & (n_above + nth_level <= k))
    first = (row * tl.num_programs(1) + part) * k
    tl.store(out_values + first + place, value, mask=taken)
    tl.store(out_ids + first + place, tl.where(mine, which, -1), mask=taken)


def can_select(k: int) -> bool:
    """Whether k is small enough for `top` to have less to look at after each round."""
    return 2 * k <= CHUNK


def top(values: Tensor, k: int, bias: Tensor | None = None, magnitude: bool = False) -> tuple[Tensor, Tensor]:
    """The k largest of values + bias in each row: float32 values [n, k] and int64 columns [n, k], in no set order.

    `values` [n, m] with m >= k; `bias` [m]. `magnitude`: the largest |values + bias|, given with their signs. Exact:
    each program finds the k largest of CHUNK numbers by bisection of their bits; of those, the k largest are
    found in the same way. Of equal numbers, those in the lowest columns are taken.
    """
    n, m = values.shape
    ids: Tensor | None = None
    if not n:
        return values.new_empty(0, k, dtype=torch.float32), values.new_empty(0, k, dtype=torch.int64)
    while True:
        parts = triton.cdiv(m, CHUNK)
        found = torch.empty(n, parts * k, dtype=torch.float32, device=values.device)
        # between the rounds, 4 bytes are enough
        where = torch.empty(n, parts * k, dtype=torch.int64 if parts == 1 else torch.int32, device=values.device)
        chunk = CHUNK if parts > 1 else triton.next_power_of_2(m)
        with torch.cuda.device_of(values):
            _select[(n, parts)](
                values.contiguous(), where if ids is None else ids, values if bias is None else bias, found, where,
                m, k,
                HAS_IDS=ids is not None, HAS_BIAS=bias is not None, MAGNITUDE=magnitude, CHUNK=chunk,
                num_warps=max(1, chunk // 512),
            )  # fmt: skip
        if parts == 1:
            return found, where
        values, ids, bias, m = found, where, None, parts * k
