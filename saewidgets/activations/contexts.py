"""Texts cut into contexts of one length.

The packing is "document packing": a context never holds two documents, every context begins with BOS, and the rest
of a document's last context is padding that the mask leaves out. So no token ever attends to a stranger's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saewidgets.models.tokens import bos_id, check_ids, encode

Texts = Any
"""A list of strings, a list of token id arrays, a 2-D array of token ids, or a Hugging Face dataset."""


@dataclass(frozen=True)
class Contexts:
    """Texts as the model reads them."""

    tokens: Tensor
    """Token ids, `[n, context_size]` int64 on the CPU."""
    mask: Tensor
    """Which of them are text and no padding, `[n, context_size]` bool."""
    doc: Tensor
    """The index of the document each context is from, `[n]` int64."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, which: slice | Tensor) -> Contexts:
        return Contexts(self.tokens[which], self.mask[which], self.doc[which])


def pack(model: Any, texts: Texts, context_size: int, prepend_bos: bool = True) -> Contexts:
    """Cut texts into contexts of `context_size` tokens, BOS included.

    Args:
        texts: A list of strings, a list of token id arrays (or a 2-D array), or a Hugging Face dataset with a
            "text", "input_ids" or "tokens" column. Documents without tokens are left out.
        prepend_bos: Begin every context with BOS (a document's own leading BOS is not doubled).

    Raises:
        TypeError: a single string, or something else that is no list of texts.
        ValueError: no text at all, a context size that the model cannot hold, token ids out of range.
    """
    n_ctx = int(model.cfg.n_ctx)
    if not 1 + prepend_bos <= context_size <= n_ctx:
        raise ValueError(
            f"context_size={context_size} does not fit: {model.cfg.model_name!r} reads 2 to {n_ctx} tokens at once."
        )
    bos = bos_id(model) if prepend_bos else None
    room = context_size - (bos is not None)
    documents = _ids_of(model, texts)
    pieces: list[np.ndarray] = []
    doc: list[int] = []
    for index, ids in enumerate(documents):
        if bos is not None and len(ids) and ids[0] == bos:
            ids = ids[1:]
        pieces += [ids[start : start + room] for start in range(0, len(ids), room)]
        doc += [index] * -(-len(ids) // room)
    if not pieces:
        raise ValueError("The texts are empty: they give no tokens. Pass at least one text that says something.")
    # the padding comes after the text and no token attends to what follows it, so any id of the model will do
    tokens = np.full((len(pieces), context_size), bos or 0, dtype=np.int64)
    lengths = np.fromiter((len(piece) for piece in pieces), dtype=np.int64, count=len(pieces))
    mask = np.arange(room)[None] < lengths[:, None]
    tokens[:, context_size - room :][mask] = np.concatenate(pieces)
    if bos is not None:
        tokens[:, 0] = bos
        mask = np.pad(mask, ((0, 0), (1, 0)), constant_values=True)
    return Contexts(torch.from_numpy(tokens), torch.from_numpy(mask), torch.tensor(doc))


def _ids_of(model: Any, texts: Texts) -> Sequence[np.ndarray]:
    documents = _documents(texts)
    if all(isinstance(document, str) for document in documents):
        return [np.asarray(ids, dtype=np.int64) for ids in encode(model, documents)]
    if any(isinstance(document, str) for document in documents):
        raise TypeError("The texts are partly strings and partly token ids. Pass one kind.")
    try:
        arrays = [np.asarray(document).reshape(-1) for document in documents]
        if not all(array.dtype.kind in "iu" or array.size == 0 for array in arrays):
            raise ValueError
        flat = np.concatenate([array.astype(np.int64) for array in arrays])
    except (ValueError, TypeError):
        raise TypeError(
            f"A text is a string or an array of token ids; the first one given is a {type(documents[0]).__name__}."
        ) from None
    check_ids(model, torch.from_numpy(flat))
    return [array.astype(np.int64) for array in arrays]


def _documents(texts: Texts) -> list[Any]:
    if isinstance(texts, str):
        raise TypeError("Expected a list of texts, got one string. Put it into a list: [text].")
    columns = getattr(texts, "column_names", None)
    if isinstance(columns, list):
        column = next((name for name in ("text", "input_ids", "tokens") if name in columns), None)
        if column is None:
            raise ValueError(
                f"The dataset has no column 'text', 'input_ids' or 'tokens', only {', '.join(columns)}. "
                "Pass the list of one column."
            )
        texts = (row[column] for row in texts)
    if isinstance(texts, Tensor):
        texts = texts.detach().cpu().numpy()
    if not isinstance(texts, Iterable):
        raise TypeError(f"Expected a list of texts, got {type(texts).__name__}.")
    listed = [text.detach().cpu().numpy() if isinstance(text, Tensor) else text for text in texts]
    if not listed:
        raise ValueError("The list of texts is empty. Pass at least one text, such as sw.load_texts().")
    if all(np.ndim(item) == 0 and not isinstance(item, str) for item in listed):
        return [listed]  # one flat array of token ids
    return listed
