"""Which features are active on the same tokens."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from saewidgets.features.schema import N_NEIGHBOURS

Array = npt.NDArray[Any]
SAMPLE = 30_000
"""Token positions that are counted on: whole contexts, drawn by the seed."""
_PAIRS = 4_000_000  # pairs, and cells of counts, held at once (32 MB each)


def coactive_features(
    connection: duckdb.DuckDBPyConnection, d_sae: int, n_items: int, seed: int
) -> tuple[list[list[int]], list[list[float]]]:
    """For each feature the N_NEIGHBOURS others that fire with it most, and n_ab / sqrt(n_a n_b) of each pair.

    The cosine of two features' 0/1 activity over the sampled tokens: 1 if they always fire together. Reads the view
    `rows`. A feature that is silent on the sample has none.
    """
    found = connection.execute(
        f"""
        select feature, item from rows
        where context in (
            select context from (select distinct context from items)
            order by md5('{seed}:' || context), context
            limit greatest(1, (select count(distinct context) from items) * {SAMPLE} // {max(n_items, SAMPLE)})
        )
        order by feature, item
        """
    ).fetchnumpy()
    feature, item = found["feature"].astype(np.int64), found["item"]
    counts = np.bincount(feature, minlength=d_sae)
    ends = counts.cumsum()
    # The same activations by item: those of one token stand together in `others`.
    by_item = np.argsort(item, kind="stable")
    others = feature[by_item]
    place = np.searchsorted(item[by_item], item)
    width = np.searchsorted(item[by_item], item, side="right") - place
    pairs = np.concatenate([[0], width.cumsum()])

    nearest: list[list[int]] = []
    values: list[list[float]] = []
    first = 0
    while first < d_sae:
        start = ends[first] - counts[first]
        room = np.searchsorted(pairs[ends], pairs[start] + _PAIRS, side="right")
        last = int(min(max(room, first + 1), first + max(1, _PAIRS // d_sae), d_sae))
        rows = slice(start, ends[last - 1])
        met = _counts_of_pairs(feature[rows] - first, place[rows], width[rows], others, last - first, d_sae)
        cosine = met / np.sqrt(np.maximum(np.outer(counts[first:last], counts), 1))
        cosine[np.arange(last - first), np.arange(first, last)] = 0
        # By falling cosine, then id.
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :N_NEIGHBOURS]
        for best, row in zip(order, cosine, strict=True):
            best = best[row[best] > 0]
            nearest.append(best.tolist())
            values.append(row[best].tolist())
        first = last
    return nearest, values


def _counts_of_pairs(feature: Array, place: Array, width: Array, others: Array, n: int, d_sae: int) -> Array:
    """[n, d_sae] how often each of n features met each other: activation i stands with `width[i]` from `place[i]`."""
    total = int(width.sum())
    begins = width.cumsum() - width
    step = np.arange(total) - np.repeat(begins, width)
    cell = np.repeat(feature * d_sae, width) + others[np.repeat(place, width) + step]
    return np.bincount(cell, minlength=n * d_sae).reshape(n, d_sae)
