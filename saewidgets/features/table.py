"""Putting together features.parquet and vocabulary.parquet: a row per feature, dead ones included, with its flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from saewidgets.features.scan import ScanWriter
from saewidgets.features.schema import FEATURES, VOCABULARY, file_of
from saewidgets.features.sort import ScanNumbers
from saewidgets.features.weights import WeightNumbers

if TYPE_CHECKING:
    from saewidgets.models.tokens import Token

FLAGS = {
    "dead": "never active on the scanned tokens",
    "dense": "active on more than 10 % of the scanned tokens",
    "one position": "95 % or more of its activations (of at least 10) are at one position of the context",
    "near duplicate": "its decoder row has a cosine above 0.95 with another feature's",
}
"""What each flag of a feature means, in one sentence."""
_DENSE = 0.1
_ONE_POSITION, _ONE_POSITION_COUNT = 0.95, 10
_NEAR_DUPLICATE = 0.95


def write_vocabulary(folder: Path, tokens: Sequence[Token], counts: np.ndarray) -> None:
    """Write what each token looks like and how often it was scanned."""
    # A tokenizer may hold lone surrogates; Parquet's text may not.
    texts = [token.text.encode("utf-8", "replace").decode("utf-8") for token in tokens]
    table = pa.table(
        {
            "token": [token.id for token in tokens],
            "text": texts,
            "special": [token.special for token in tokens],
            "hex": [token.hex for token in tokens],
            "count": counts,
        },
        schema=VOCABULARY,
    )
    pq.write_table(table, file_of(folder, "vocabulary"), compression="zstd")


def write_features(
    folder: Path, scan: ScanWriter, numbers: ScanNumbers, weights: WeightNumbers, tokens: Sequence[Token]
) -> None:
    """Write a row per feature."""
    d_sae = len(scan.counts)
    density = scan.counts / max(scan.n_tokens, 1)
    mean = np.divide(scan.sums, scan.counts, out=np.zeros(d_sae), where=scan.counts > 0)
    texts = [token.text.encode("utf-8", "replace").decode("utf-8") for token in tokens]
    nearest = weights.neighbour_cosines[:, 0] if weights.neighbour_cosines.shape[1] else np.zeros(d_sae)
    holds = {
        "dead": scan.counts == 0,
        "dense": density > _DENSE,
        "one position": (numbers.top_position_share >= _ONE_POSITION) & (scan.counts >= _ONE_POSITION_COUNT),
        "near duplicate": nearest > _NEAR_DUPLICATE,
    }
    no_logits = np.isnan(weights.logit_min)
    columns = {
        "feature": np.arange(d_sae),
        "count": scan.counts,
        "density": density,
        "max": scan.maxima,
        "mean": mean,
        "sum": scan.sums,
        "stored": numbers.stored,
        "complete_above": numbers.complete_above,
        "histogram": list(numbers.histogram),
        "top_position": pa.array(numbers.top_position, mask=numbers.top_position < 0),
        "top_position_share": numbers.top_position_share,
        "top_tokens": numbers.top_tokens,
        "top_texts": [[texts[token] for token in row] for row in numbers.top_tokens],
        "top_shares": numbers.top_shares,
        "decoder_norm": weights.decoder_norm,
        "enc_dec_cosine": weights.enc_dec_cosine,
        "neighbours": list(weights.neighbours),
        "neighbour_cosines": list(weights.neighbour_cosines),
        "coactive": numbers.coactive,
        "coactive_cosines": numbers.coactive_cosines,
        "positive_tokens": list(weights.positive_tokens),
        "positive_logits": list(weights.positive_logits),
        "negative_tokens": list(weights.negative_tokens),
        "negative_logits": list(weights.negative_logits),
        "logit_histogram": list(weights.logit_histogram),
        "logit_min": pa.array(weights.logit_min, mask=no_logits),
        "logit_max": pa.array(weights.logit_max, mask=no_logits),
        "flags": [[flag for flag, held in holds.items() if held[feature]] for feature in range(d_sae)],
    }
    arrays = []
    for field in FEATURES:
        column = columns[field.name]
        if isinstance(column, list):
            arrays.append(pa.array(column, type=field.type))
        else:
            arrays.append((column if isinstance(column, pa.Array) else pa.array(column)).cast(field.type))
    pq.write_table(pa.Table.from_arrays(arrays, schema=FEATURES), file_of(folder, "features"), compression="zstd")
