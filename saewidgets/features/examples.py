"""Windows of text around the places where a feature is active."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from saewidgets.features.rows import FeatureRows

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
Texts = Sequence[str] | Mapping[int, str]
"""What each token says, by its id."""
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


class Items(Protocol):
    """Token positions in the order of their contexts, numbered from 0: of an index, or of a `TextSample`."""

    @property
    def starts(self) -> Array:
        """[n_contexts + 1] the first item of each context, and the number of items."""

    def tokens(self, first: int, last: int) -> Array:
        """Token ids of items first to last, `last` not included."""

    def docs(self, items: Sequence[int] | Array) -> list[int]:
        """The text that each item comes from."""


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


def chosen_items(source: Items, rows: FeatureRows, order: Array, n: int, window: int | None, apart: bool) -> list[int]:
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


def chosen(
    source: Items,
    rows: FeatureRows,
    kind: str | tuple[float, float],
    n: int,
    window: int | None,
    seed: int,
    feature: int,
) -> list[int]:
    """The items of up to n windows of a kind; those of an interval strongest first, though drawn at random."""
    order = candidates(rows, kind, seed, feature)
    items = chosen_items(source, rows, order, n, window, apart=kind != "random")
    if kind not in ("top", "random"):
        value = rows.at(np.array(items, np.int64))
        items = [items[i] for i in np.argsort(-value, kind="stable")]
    return items


def _in_steps(items: Array, order: Array, n: int) -> Iterator[int]:
    # A feature may have a million rows, of which a few are looked at.
    step = max(4 * n, 64)
    for start in range(0, len(order), step):
        yield from items[order[start : start + step]].tolist()


def _bounds(source: Items, item: int) -> tuple[int, int, int]:
    context = int(np.searchsorted(source.starts, item, side="right")) - 1
    return context, int(source.starts[context]), int(source.starts[context + 1])


def window_of(source: Items, item: int, window: int | None) -> tuple[int, int]:
    """The items of the window around an item, from and to (exclusive)."""
    _, first, last = _bounds(source, item)
    if window is None:
        return first, last
    return max(first, item - window), min(last, item + window + 1)


def windows(source: Items, rows: FeatureRows, items: list[int], window: int | None, texts: Texts) -> pd.DataFrame:
    """The windows around items: `window` tokens on each side inside the same context; None is the whole context."""
    import pandas as pd

    table: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    docs = source.docs(items)
    for rank, (item, doc) in enumerate(zip(items, docs, strict=True)):
        context, first, _ = _bounds(source, item)
        left, right = window_of(source, item, window)
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
