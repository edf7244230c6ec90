"""Windows of text around the places where a feature is active."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saewidgets.features.rows import FeatureRows, IndexRows

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
_ALIKE = 5
"""Two windows are near-identical if they agree on this many tokens on each side of the peak."""
COLUMNS = (
    "rank",
    "value",
    "item",
    "context",
    "position",
    "doc",
    "token",
    "text",
    "peak",
    "tokens",
    "texts",
    "values",
)


def candidates(rows: FeatureRows, kind: str | tuple[float, float], seed: int, feature: int) -> Array:
    """Places in `rows` in the order in which they are tried.

    "top": strongest first. "random": every activation of the feature equally likely (stored rows by their weight),
    in the order drawn. (lo, hi): the same among lo <= value < hi; an interval that reaches the maximum includes it.

    Raises ValueError for another kind.
    """
    if kind == "top":
        return np.arange(len(rows.items))
    if kind == "random":
        among = np.arange(len(rows.items))
    elif not isinstance(kind, str) and len(kind) == 2:
        lo, hi = (float(bound) for bound in kind)
        if not lo < hi:
            raise ValueError(f"the interval {tuple(kind)} is empty; give (lo, hi) with lo below hi")
        values = rows.values.astype(np.float64)  # the bounds are not rounded to float32
        below = values <= hi if len(values) and hi >= values[0] else values < hi
        among = np.flatnonzero((values >= lo) & below)
    else:
        raise ValueError(f"kind={kind!r} is not known; it is 'top', 'random' or an interval (lo, hi)")
    # Exponential races (Efraimidis and Spirakis 2006): the order of a weighted draw without replacement.
    race = np.random.default_rng([seed, feature]).standard_exponential(len(rows.items))
    return among[np.argsort(race[among] / rows.weights[among], kind="stable")]


def chosen_items(
    source: IndexRows, rows: FeatureRows, order: Array, n: int, window: int | None, apart: bool
) -> list[int]:
    """The first n items of `order` whose windows differ.

    A window whose tokens around the peak were shown already is left out; with `apart`, so is one whose peak lies in
    a window shown already.
    """
    chosen: list[int] = []
    seen: set[tuple[int, ...]] = set()
    peaks: dict[int, list[int]] = {}
    reach = _ALIKE if window is None else window
    for item in _in_steps(rows.items, order, n):
        if len(chosen) == n:
            break
        context, first, last = _bounds(source, item)
        if apart and any(abs(item - peak) <= reach for peak in peaks.get(context, [])):
            continue
        near = min(_ALIKE, reach)
        left = max(first, item - near)
        key = (item - left, *source.tokens(left, min(last, item + near + 1)).tolist())
        if key in seen:
            continue
        seen.add(key)
        peaks.setdefault(context, []).append(item)
        chosen.append(item)
    return chosen


def _in_steps(items: Array, order: Array, n: int) -> Iterator[int]:
    # A feature may have a million rows, of which a few are looked at.
    step = max(4 * n, 64)
    for start in range(0, len(order), step):
        yield from items[order[start : start + step]].tolist()


def _bounds(source: IndexRows, item: int) -> tuple[int, int, int]:
    context = int(np.searchsorted(source.starts, item, side="right")) - 1
    return context, int(source.starts[context]), int(source.starts[context + 1])


def windows(
    source: IndexRows, rows: FeatureRows, items: list[int], window: int | None, texts: list[str]
) -> pd.DataFrame:
    """The windows around items: `window` tokens on each side inside the same context; None is the whole context."""
    import pandas as pd

    table: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    docs = source.docs(items)
    for rank, (item, doc) in enumerate(zip(items, docs, strict=True)):
        context, first, last = _bounds(source, item)
        left = first if window is None else max(first, item - window)
        right = last if window is None else min(last, item + window + 1)
        tokens = source.tokens(left, right).tolist()
        values = rows.at(np.arange(left, right)).tolist()
        peak = item - left
        row = (
            rank,
            values[peak],
            item,
            context,
            item - first,
            doc,
            tokens[peak],
            texts[tokens[peak]],
            peak,
            tokens,
            [texts[token] for token in tokens],
            values,
        )
        for name, value in zip(COLUMNS, row, strict=True):
            table[name].append(value)
    return pd.DataFrame(table, columns=list(COLUMNS))
