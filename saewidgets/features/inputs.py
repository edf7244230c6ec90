"""The identity of what an index is built on, so that an opened one can say whether it was built on just this."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from saewidgets.sae import SAE


def check_inputs(path: Path, meta: dict[str, Any], sae: SAE | None, texts: Any) -> None:
    """Check that the index in `path` was built on this SAE and these texts, as far as they are given.

    Raises ValueError.
    """
    held = meta["inputs"]
    if sae is not None and sae.clone().fingerprint() != held.get("SAE"):
        raise ValueError(
            f"the index in {str(path)!r} is of another SAE: it was built on {meta['d_sae']} features at "
            f"{meta['hook_name']}, with weights that differ from this SAE's; build one with FeatureIndex.build"
        )
    if texts is not None and text_hash(texts) != held.get("texts"):
        raise ValueError(f"the index in {str(path)!r} was built on other texts; open it without texts=, or build one")


def text_hash(texts: Any) -> str:
    """sha256 over the texts in their order: strings as UTF-8, token ids as 64-bit integers, each with its length.

    Takes what `activations.contexts.pack` takes: strings, token ids, arrays, a Hugging Face dataset.
    """
    digest = hashlib.sha256()
    _update(digest, texts)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        digest.update(b"s" + len(raw).to_bytes(8, "little") + raw)
    elif isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value))
        if array.ndim > 1:
            for row in array:
                _update(digest, row)
        elif array.dtype == object:
            for item in array:
                _update(digest, item)
        else:
            digest.update(b"t" + array.size.to_bytes(8, "little") + array.astype("<i8").tobytes())
    elif isinstance(value, dict):  # a row of a dataset
        for name in sorted(value):
            if isinstance(value[name], str | list | tuple | torch.Tensor | np.ndarray):
                _update(digest, value[name])
    elif hasattr(value, "__iter__"):
        items = list(value) if isinstance(value, list | tuple) else value
        if isinstance(items, list) and items and all(isinstance(item, int | np.integer) for item in items):
            _update(digest, np.asarray(items, np.int64))
        else:
            for item in items:
                _update(digest, item)
    else:
        raise TypeError(f"texts must be strings, token ids or a dataset, not {type(value).__name__}")
