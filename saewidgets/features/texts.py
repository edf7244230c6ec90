"""The identity of a text, so that an index can say whether it was built on this one."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch


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
