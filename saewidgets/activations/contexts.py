"""Texts cut into contexts of one length.

The packing is "document packing": a context never holds two documents, every context begins with BOS, and the rest
of a document's last context is padding that the mask leaves out. So no token ever attends to a stranger's text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saewidgets.activations.sources import Texts as Texts
from saewidgets.activations.sources import documents
from saewidgets.models.tokens import bos_id, check_ids, encode

_HELD_OUT_SHARE, _HELD_OUT_MOST, _HELD_OUT_FROM = 0.02, 64, 10
_AT_ONCE, _CHARACTERS_AT_ONCE = 256, 1 << 22  # documents, and characters of them, that are tokenised together


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

    def __add__(self, others: Contexts) -> Contexts:
        """These and then the others, in memory of their own."""
        pairs = ((self.tokens, others.tokens), (self.mask, others.mask), (self.doc, others.doc))
        return Contexts(*(torch.cat(pair) for pair in pairs))


def pack(
    model: Any,
    texts: Texts,
    context_size: int,
    prepend_bos: bool = True,
    max_texts: int | None = None,
    max_tokens: int | None = None,
) -> Contexts:
    """Cut texts into contexts of `context_size` tokens, BOS included.

    The texts are read one after the other and only their token ids are kept, 8 bytes a token.

    Args:
        texts: See `sources.documents`. Documents without tokens are left out.
        prepend_bos: Begin every context with BOS (a document's own leading BOS is not doubled).
        max_texts: Documents to read at most; all by default.
        max_tokens: Tokens of text (BOS not counted) to read at most; the last document is cut there.

    Raises:
        TypeError: a single string, or something else that is no list of texts.
        ValueError: no text at all, a context size that the model cannot hold, token ids out of range, a bound below 1.
        FileNotFoundError: no such text file.
    """
    n_ctx = int(model.cfg.n_ctx)
    if not 1 + prepend_bos <= context_size <= n_ctx:
        raise ValueError(
            f"context_size={context_size} does not fit: {model.cfg.model_name!r} reads 2 to {n_ctx} tokens at once."
        )
    for name, bound in (("max_texts", max_texts), ("max_tokens", max_tokens)):
        if bound is not None and bound < 1:
            raise ValueError(f"{name}={bound} is not possible; it must be at least 1, or None for all.")
    bos = bos_id(model) if prepend_bos else None
    room = context_size - (bos is not None)
    pieces: list[np.ndarray] = []
    doc: list[int] = []
    left = max_tokens
    for index, ids in enumerate(_ids_of(model, documents(texts, max_texts, bounded=max_tokens is not None))):
        if bos is not None and len(ids) and ids[0] == bos:
            ids = ids[1:]
        ids = ids[:left]
        pieces += [ids[start : start + room] for start in range(0, len(ids), room)]
        doc += [index] * -(-len(ids) // room)
        if left is not None:
            left -= len(ids)
            if left <= 0:
                break
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


def digest(*parts: Contexts) -> str:
    """The sha256 of all of them."""
    found = hashlib.sha256()
    for part in parts:
        for tensor in (part.tokens, part.mask, part.doc):
            found.update(str(tuple(tensor.shape)).encode())
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def fitting(counts: Tensor, at_most: int) -> int:
    """How many of the first contexts give no more than `at_most` vectors together, `counts` [n] each; at least one."""
    return max(1, int((counts.cumsum(0) <= at_most).sum()))


def held_out_from(contexts: Contexts) -> int:
    """Where the held-out contexts begin: with a document of their own, where the text has more than one."""
    n = len(contexts)
    if n < _HELD_OUT_FROM:
        return n
    cut = n - min(_HELD_OUT_MOST, max(1, round(n * _HELD_OUT_SHARE)))
    fresh = cut
    while fresh < n and contexts.doc[fresh] == contexts.doc[fresh - 1]:
        fresh += 1
    return fresh if fresh < n else cut


def asked(mask: Tensor, excluded: Sequence[int]) -> Tensor:
    """Where `mask` `[..., pos]` is true and an SAE is asked: not at positions of `excluded`, which may lie beyond."""
    wanted = mask.clone()
    wanted[..., [p for p in excluded if p < mask.shape[-1]]] = False
    return wanted


def _ids_of(model: Any, source: Iterator[Any]) -> Iterator[np.ndarray]:
    """Token ids of each document, a few documents at a time."""
    first = next(source)
    strings = isinstance(first, str)
    for some in _groups(chain([first], source)):
        if any(isinstance(document, str) != strings for document in some):
            raise TypeError("The texts are partly strings and partly token ids. Pass one kind.")
        if strings:
            yield from (np.asarray(ids, dtype=np.int32) for ids in encode(model, some))
        else:
            yield from (_checked(model, document) for document in some)


def _checked(model: Any, document: Any) -> np.ndarray:
    try:
        ids = np.asarray(document).reshape(-1)
        if not (ids.dtype.kind in "iu" or ids.size == 0):
            raise TypeError
    except (ValueError, TypeError):
        raise TypeError(
            f"A text is a string or an array of token ids; this one is a {type(document).__name__} that is neither."
        ) from None
    check_ids(model, torch.from_numpy(ids.astype(np.int64)))
    return ids.astype(np.int32)


def _groups(source: Iterator[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for document in source:
        group.append(document)
        size += len(document) if isinstance(document, str) else 0
        if len(group) == _AT_ONCE or size > _CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
