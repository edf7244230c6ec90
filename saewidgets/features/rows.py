"""What windows and searches read again and again, kept in bounded memory: a feature's rows, and blocks of tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from saewidgets.features.query import Tables
from saewidgets.features.schema import ITEM_ROW_GROUP, file_of

Array = npt.NDArray[Any]
V = TypeVar("V")
_FEATURES_KEPT = 64
_BLOCKS_KEPT = 64  # 33 MB


class Recent(Generic[V]):
    """The last `size` values of a function of a whole number. Threads may ask at once; then both compute."""

    def __init__(self, function: Callable[[int], V], size: int) -> None:
        self._function = function
        self._size = size
        self._lock = threading.Lock()
        self._values: OrderedDict[int, V] = OrderedDict()

    def __call__(self, key: int) -> V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = self._function(key)
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True)
class FeatureRows:
    """The stored activations of one feature, strongest first, and the same by item."""

    items: Array
    values: Array
    weights: Array
    by_item: Array
    """The order that sorts them by item."""

    def at(self, items: Array) -> Array:
        """Values at items; 0 where the feature is not active (or the row was not stored)."""
        found = np.zeros(items.shape, np.float32)
        if len(self.items):
            ordered = self.items[self.by_item]
            place = np.minimum(np.searchsorted(ordered, items), len(ordered) - 1)
            held = ordered[place] == items
            found[held] = self.values[self.by_item[place[held]]]
        return found

    def quantiles(self, q: Sequence[float]) -> list[float]:
        """Values below which these shares of the activations lie, by weight; 0 where there is none."""
        if not len(self.values):
            return [0.0 for _ in q]
        weights = self.weights[::-1].astype(np.float64).cumsum()
        place = np.searchsorted(weights, np.asarray(q) * weights[-1])
        return [float(self.values[::-1][min(i, len(weights) - 1)]) for i in place]


class IndexRows:
    """Reads rows of an index by feature and by item."""

    def __init__(self, folder: Path, tables: Tables, n_items: int) -> None:
        self._tables = tables
        self._path = file_of(folder.resolve(), "items")
        self._metadata = pq.read_metadata(self._path)
        self.n_items = n_items
        self.of_feature = Recent(self._read_feature, _FEATURES_KEPT)
        self._block = Recent(self._read_block, _BLOCKS_KEPT)
        self._starts: Array | None = None

    def _read_feature(self, feature: int) -> FeatureRows:
        found = self._tables.fetch(
            "select item, value, weight from activations where feature = ? order by value desc, item", [feature]
        )
        by_item = np.argsort(found["item"], kind="stable")
        return FeatureRows(found["item"], found["value"], found["weight"], by_item)

    def _read_block(self, block: int) -> tuple[Array, Array]:
        with pq.ParquetFile(self._path, metadata=self._metadata) as file:
            table = file.read_row_group(block, columns=["token", "doc"])
        return table["token"].to_numpy(), table["doc"].to_numpy()

    @property
    def starts(self) -> Array:
        """[n_contexts + 1] the first item of each context, and the number of items."""
        if self._starts is None:
            found = self._tables.fetch("select item from items where position = 0 order by item")["item"]
            self._starts = np.append(found, self.n_items)
        return self._starts

    def contexts_of(self, items: Array) -> tuple[Array, Array]:
        """The context of each item, and its position there."""
        contexts = np.searchsorted(self.starts, items, side="right") - 1
        return contexts, items - self.starts[contexts]

    def item_at(self, context: int, position: int) -> int:
        """The item at a position of a context; raises ValueError for a place outside the index."""
        lengths = np.diff(self.starts)
        if not 0 <= context < len(lengths) or not 0 <= position < lengths[context]:
            raise ValueError(
                f"there is no position {position} in a context {context}: the index holds contexts 0 to "
                f"{len(lengths) - 1} of up to {lengths.max()} tokens"
            )
        return int(self.starts[context]) + int(position)

    def tokens(self, first: int, last: int) -> Array:
        """Token ids of items first to last, `last` not included."""
        blocks = range(first // ITEM_ROW_GROUP, (last - 1) // ITEM_ROW_GROUP + 1)
        parts = [
            self._block(block)[0][max(first - block * ITEM_ROW_GROUP, 0) : last - block * ITEM_ROW_GROUP]
            for block in blocks
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def docs(self, items: Sequence[int] | Array) -> list[int]:
        """The text that each item comes from."""
        return [int(self._block(int(i) // ITEM_ROW_GROUP)[1][int(i) % ITEM_ROW_GROUP]) for i in items]

    def all_tokens(self) -> Any:
        """Every (first item, token ids), block by block, past the memory of recent blocks."""
        for block in range(self._metadata.num_row_groups):
            yield block * ITEM_ROW_GROUP, self._read_block(block)[0]
