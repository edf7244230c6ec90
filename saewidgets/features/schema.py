"""What an index folder holds: its files, their columns, and the checked reading of `meta.json`.

| file                   | a row per                        | sorted by               |
|------------------------|----------------------------------|-------------------------|
| items.parquet          | token position, in scan order    | item                    |
| activations.parquet    | stored activation                | feature, value (falling)|
| features.parquet       | feature, dead ones included      | feature                 |
| token_features.parquet | (token, feature) that met        | token, feature          |
| vocabulary.parquet     | token of the model's vocabulary  | token                   |

`meta.json` is written last: a folder without it is not an index.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

FORMAT = "saewidgets feature index"
FORMAT_VERSION = 1
META = "meta.json"
N_BINS = 40
"""Bins of an activation histogram: linear, from 0 to the feature's maximum."""
N_LOGIT_BINS = 40
"""Bins of the histogram of a feature's effect on the logits: linear, from its lowest to its highest effect."""
N_TOP = 10
"""How many top tokens, positive and negative logits a feature's row holds."""
N_NEIGHBOURS = 5
"""How many of the nearest features, by decoder cosine and by co-activation, a feature's row holds."""
ITEM_ROW_GROUP = 65_536
"""Rows of one row group of items.parquet: item i lies in group i // ITEM_ROW_GROUP."""
ACTIVATION_ROW_GROUP = 61_440
"""Measured: a feature's rows come back in 3 to 5 ms at this size, 9 ms at 20,480, 20 ms at 8,192."""

ITEMS = pa.schema(
    [
        ("item", pa.int64()),
        ("context", pa.int32()),
        ("position", pa.int32()),
        ("token", pa.int32()),
        ("doc", pa.int32()),
        ("scanned", pa.bool_()),  # false where the SAE was not asked (BOS): shown in windows, counted nowhere
    ]
)
SHARD = pa.schema([("feature", pa.int32()), ("item", pa.int64()), ("context", pa.int32()), ("value", pa.float32())])
ACTIVATIONS = pa.schema(
    [("feature", pa.int32()), ("item", pa.int64()), ("value", pa.float32()), ("weight", pa.float32())]
)
TOKEN_FEATURES = pa.schema(
    [
        ("token", pa.int32()),
        ("feature", pa.int32()),
        ("count", pa.int64()),
        ("share", pa.float64()),  # of the feature's summed activation
        ("max", pa.float32()),
    ]
)
VOCABULARY = pa.schema(
    [
        ("token", pa.int32()),
        ("text", pa.string()),
        ("special", pa.bool_()),
        ("hex", pa.bool_()),
        ("count", pa.int64()),  # how often it was scanned
    ]
)
FEATURES = pa.schema(
    [
        ("feature", pa.int32()),
        ("count", pa.int64()),
        ("density", pa.float64()),
        ("max", pa.float32()),
        ("mean", pa.float64()),
        ("sum", pa.float64()),
        ("stored", pa.int64()),
        ("complete_above", pa.float32()),
        ("histogram", pa.list_(pa.int64())),
        ("top_position", pa.int32()),
        ("top_position_share", pa.float64()),
        ("top_tokens", pa.list_(pa.int32())),
        ("top_texts", pa.list_(pa.string())),
        ("top_shares", pa.list_(pa.float64())),
        ("decoder_norm", pa.float32()),
        ("enc_dec_cosine", pa.float32()),
        ("neighbours", pa.list_(pa.int32())),
        ("neighbour_cosines", pa.list_(pa.float32())),
        ("coactive", pa.list_(pa.int32())),
        ("coactive_cosines", pa.list_(pa.float32())),
        ("positive_tokens", pa.list_(pa.int32())),
        ("positive_logits", pa.list_(pa.float32())),
        ("negative_tokens", pa.list_(pa.int32())),
        ("negative_logits", pa.list_(pa.float32())),
        ("logit_histogram", pa.list_(pa.int64())),
        ("logit_min", pa.float32()),
        ("logit_max", pa.float32()),
        ("flags", pa.list_(pa.string())),
    ]
)
TABLES = {
    "items": ITEMS,
    "activations": ACTIVATIONS,
    "features": FEATURES,
    "token_features": TOKEN_FEATURES,
    "vocabulary": VOCABULARY,
}

_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "created_by": str,
    "inputs": dict,
    "model_name": (str, type(None)),
    "hook_name": str,
    "architecture": str,
    "context_size": int,
    "d_sae": int,
    "n_tokens": int,
    "n_items": int,
    "n_contexts": int,
    "n_activations": int,
    "n_stored": int,
    "sae": dict,
}


def file_of(folder: Path, table: str) -> Path:
    """The Parquet file of a table of TABLES."""
    return folder / f"{table}.parquet"


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write `meta.json`: sorted keys, so that one index is one text and diffs well."""
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **meta}
    (folder / META).write_text(json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def is_index(folder: Path) -> bool:
    """Whether this folder holds a finished index of any format version."""
    try:
        return bool(json.loads((folder / META).read_text("utf-8")).get("format") == FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def read_meta(folder: Path) -> dict[str, Any]:
    """Read and check `meta.json`.

    Raises FileNotFoundError where there is no index, ValueError where it is damaged or of another format version.
    """
    if not folder.exists():
        raise FileNotFoundError(
            f"there is no folder {str(folder)!r}; FeatureIndex.build(sae, model, texts, path) makes an index"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{str(folder)!r} is a file; a feature index is a folder that holds {META}")
    try:
        meta = json.loads((folder / META).read_text("utf-8"))
    except FileNotFoundError:
        if any(file_of(folder, table).exists() for table in TABLES):
            raise FileNotFoundError(
                f"the index in {str(folder)!r} is unfinished: it has no {META}, which is written last; "
                "build it again with FeatureIndex.build"
            ) from None
        raise FileNotFoundError(
            f"{str(folder)!r} is not a feature index: it has no {META}; FeatureIndex.build makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{META} in {str(folder)!r} cannot be read ({error}); build the index again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{str(folder)!r} is not a feature index: its {META} belongs to something else")
    version = meta.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"the index in {str(folder)!r} has format version {version}, this saewidgets reads up to "
            f"{FORMAT_VERSION}; upgrade saewidgets, or build the index again"
        )
    for name, kind in _REQUIRED.items():
        if not isinstance(meta.get(name), kind):
            raise ValueError(f"{META} in {str(folder)!r} lacks a valid {name!r}; build the index again")
    for table in TABLES:
        if not file_of(folder, table).is_file():
            raise FileNotFoundError(
                f"the index in {str(folder)!r} is incomplete: {table}.parquet is missing; build it again"
            )
    return meta
