"""Writing what a forward pass gave: the tokens scanned, and shards of their activations.

A `Block` is all a source must give: a language model today, image patches one day. Memory is the block, a buffer of
`FLUSH_ROWS` activations, and O(d_sae) counters. The counters are exact and cover every activation; they are added
up in scan order, so one source gives one result to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from saewidgets.features.schema import ITEM_ROW_GROUP, ITEMS, SHARD, file_of

FLUSH_ROWS = 2_000_000
"""Activations held in memory before they become a shard (20 bytes each)."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Block:
    """Some whole contexts, in scan order: n token positions, and the activations on those of them that count.

    Contexts are numbered from 0 without gaps; the positions of one context stand together and count from 0.
    """

    tokens: Array
    """[n] token ids."""
    contexts: Array
    """[n] the context each position belongs to."""
    positions: Array
    """[n] place in the context."""
    docs: Array
    """[n] which text it came from."""
    scanned: Array
    """[n] bool: false where the SAE was not asked."""
    rows: Array
    """[m] for each activation > 0: its position, as a row of this block."""
    features: Array
    """[m] its feature."""
    values: Array
    """[m] its value."""


class ScanWriter:
    """Takes blocks, writes items.parquet and shards, and counts."""

    def __init__(self, folder: Path, d_sae: int, d_vocab: int) -> None:
        self._folder = folder
        self._shards = folder / "shards"
        self._shards.mkdir()
        self._items = pq.ParquetWriter(
            file_of(folder, "items"),
            ITEMS,
            compression="zstd",
            use_dictionary=["token"],
            column_encoding=dict.fromkeys(("item", "context", "position", "doc"), "DELTA_BINARY_PACKED"),
        )
        self._item_buffer: list[pa.Table] = []
        self._n_buffered_items = 0
        self._buffer: list[pa.Table] = []
        self._n_buffered = 0
        self._n_shards = 0
        self.n_items = 0
        self.n_contexts = 0
        self.n_tokens = 0
        self.n_activations = 0
        self.counts = np.zeros(d_sae, np.int64)
        self.sums = np.zeros(d_sae, np.float64)
        self.maxima = np.zeros(d_sae, np.float32)
        self.token_counts = np.zeros(d_vocab, np.int64)

    @property
    def shards(self) -> Path:
        return self._shards

    def add(self, block: Block) -> None:
        """Take one block; raises ValueError if a value is not a finite number."""
        if not np.isfinite(block.values).all():
            raise ValueError(
                "the SAE gave activations that are NaN or infinite; check its weights and the model's dtype "
                "(float16 overflows in some models: load it as float32 or bfloat16)"
            )
        n = len(block.tokens)
        first = self.n_items
        items = pa.table(
            {
                "item": np.arange(first, first + n, dtype=np.int64),
                "context": block.contexts.astype(np.int32),
                "position": block.positions.astype(np.int32),
                "token": block.tokens.astype(np.int32),
                "doc": block.docs.astype(np.int32),
                "scanned": block.scanned.astype(bool),
            },
            schema=ITEMS,
        )
        self._item_buffer.append(items)
        self._n_buffered_items += n
        self._write_items(ITEM_ROW_GROUP)

        values = block.values.astype(np.float32)
        self._buffer.append(
            pa.table(
                {
                    "feature": block.features.astype(np.int32),
                    "item": first + block.rows.astype(np.int64),
                    "context": block.contexts[block.rows].astype(np.int32),
                    "value": values,
                },
                schema=SHARD,
            )
        )
        self._n_buffered += len(values)
        if self._n_buffered >= FLUSH_ROWS:
            self._flush()

        d_sae = len(self.counts)
        self.counts += np.bincount(block.features, minlength=d_sae)
        self.sums += np.bincount(block.features, weights=values, minlength=d_sae)
        np.maximum.at(self.maxima, block.features, values)
        scanned = block.tokens[block.scanned]
        self.token_counts += np.bincount(scanned, minlength=len(self.token_counts))
        self.n_items += n
        self.n_tokens += len(scanned)
        self.n_activations += len(values)
        if n:
            self.n_contexts = int(block.contexts[-1]) + 1

    def _write_items(self, size: int) -> None:
        """Write buffered items as row groups of exactly ITEM_ROW_GROUP rows, while at least `size` are left."""
        if self._n_buffered_items < max(size, 1):
            return
        table = pa.concat_tables(self._item_buffer).combine_chunks()
        while table.num_rows >= max(size, 1):
            self._items.write_table(table.slice(0, ITEM_ROW_GROUP), row_group_size=ITEM_ROW_GROUP)
            table = table.slice(ITEM_ROW_GROUP)
        self._item_buffer, self._n_buffered_items = [table], table.num_rows

    def _flush(self) -> None:
        if self._n_buffered:
            # Names count up: the shards' order is the scan's.
            path = self._shards / f"{self._n_shards:06d}.parquet"
            pq.write_table(pa.concat_tables(self._buffer), path, compression="lz4", use_dictionary=False)
            self._n_shards += 1
            self._buffer, self._n_buffered = [], 0

    def finish(self) -> None:
        """Write what is buffered. At least one shard exists afterwards, so that DuckDB finds its columns."""
        self._write_items(1)
        self._items.close()
        self._flush()
        if not self._n_shards:
            pq.write_table(SHARD.empty_table(), self._shards / "000000.parquet")

    def close(self) -> None:
        """Let go of the open file, also after an interrupt."""
        if self._items.is_open:
            self._items.close()
