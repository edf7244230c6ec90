"""Where texts come from: lists, text files, Hugging Face datasets, token arrays; read one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from saewidgets.models.texts import SEPARATOR

Texts = Any
"""A list of strings, a list of token id arrays, an array of token ids (numpy or torch: each row of a 2-D array is a
document, a flat array is one), a `Path` of a text file, a Hugging Face dataset, or any iterable of documents."""

COLUMNS = ("text", "input_ids", "tokens")
"""Columns of a dataset that may hold the texts; the first one that is there is taken."""

_READ = 1 << 20
_LONGEST = 1 << 22  # characters of a document without a separator that are read before it is given out in pieces


def documents(texts: Texts, max_texts: int | None = None, bounded: bool = False) -> Iterator[Any]:
    """The documents, strings or arrays of token ids, as they come: no more than one of them is held.

    A text file: `<|endoftext|>` ends a document; in a file without it, every blank line does. A dataset: the column
    "text", "input_ids" or "tokens", whichever is there first.

    A source that breaks off is a warning, and what came before is used; one that breaks off at once raises its own
    error.

    Args:
        max_texts: Documents to read at most.
        bounded: Whether the caller stops after some number of tokens, so that a source without an end is fine.

    Raises:
        TypeError: one string, or something that is no iterable.
        ValueError: a dataset without such a column, a streaming dataset without a bound, nothing at all.
        FileNotFoundError: no such file.
    """
    source = _iterator(texts, bounded or max_texts is not None)
    n = 0
    while max_texts is None or n < max_texts:
        try:
            document = next(source)
        except StopIteration:
            break
        except Exception as error:
            if n == 0 or isinstance(texts, Path):
                raise
            warnings.warn(
                f"The texts broke off after {n:,} of them ({type(error).__name__}: {error}). What came is used; mend "
                f"the source for more, or pass max_texts={n} to say that this is all.",
                stacklevel=2,
            )
            return
        n += 1
        yield document.detach().cpu().numpy() if isinstance(document, Tensor) else document
    if n == 0:
        raise ValueError("The list of texts is empty. Pass at least one text, such as sw.load_texts().")
    if max_texts is not None and n < max_texts:
        warnings.warn(f"The texts ended after {n:,} of the max_texts={max_texts:,} asked for.", stacklevel=2)


def _iterator(texts: Texts, bounded: bool) -> Iterator[Any]:
    if isinstance(texts, str):
        raise TypeError(
            "Expected a list of texts, got one string. Put it into a list: [text]. A text file is given as a path: "
            "pathlib.Path('file.txt')."
        )
    if isinstance(texts, Path):
        if not texts.is_file():
            raise FileNotFoundError(f"There is no text file {str(texts)!r}.")
        return _of_file(texts)
    if isinstance(texts, Mapping):
        raise TypeError(
            f"Expected a list of texts, got a dict with {', '.join(map(repr, list(texts)[:4]))}. Choose one of them: "
            "texts['train'], for example."
        )
    if isinstance(texts, Tensor):
        texts = texts.detach().cpu().numpy()
    if isinstance(texts, np.ndarray):
        return iter([texts] if texts.ndim == 1 else texts)
    if hasattr(texts, "column_names"):
        if not bounded and not hasattr(texts, "__len__"):
            raise ValueError(
                "This dataset streams, so that nobody knows where it ends, but a stream of activations needs a known "
                "text: say how much of it to read, max_tokens=1_000_000 or max_texts=10_000."
            )
        names = texts.column_names  # None for a streaming dataset that has not looked yet
        if isinstance(names, list):
            column = _column(names)
            # the other columns are not even decoded
            texts = texts.select_columns([column]) if hasattr(texts, "select_columns") else texts
    if not isinstance(texts, Iterable):
        raise TypeError(f"Expected a list of texts, got {type(texts).__name__}.")
    if isinstance(texts, list | tuple) and texts and all(_is_id(item) for item in texts):
        return iter([texts])  # one flat list of token ids
    return (row[_column(list(row))] if isinstance(row, Mapping) else row for row in texts)


def _is_id(item: Any) -> bool:
    return not isinstance(item, str | Mapping) and item is not None and np.ndim(item) == 0


def _column(names: list[str]) -> str:
    column = next((name for name in COLUMNS if name in names), None)
    if column is None:
        raise ValueError(
            f"The dataset has no column 'text', 'input_ids' or 'tokens', only {', '.join(names)}. "
            "Pass the list of one column."
        )
    return column


def _of_file(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        marked = any(SEPARATOR in part for part in _overlapping(file))
        file.seek(0)
        yield from (text for text in _split(file, SEPARATOR if marked else "\n\n") if text.strip())


def _overlapping(file: Any) -> Iterator[str]:
    """The file in parts that each begin with the end of the one before: a separator may lie across their border."""
    end = ""
    while part := file.read(_READ):
        yield end + part
        end = (end + part)[-len(SEPARATOR) :]


def _split(file: Any, separator: str) -> Iterator[str]:
    rest = ""
    while part := file.read(_READ):
        *whole, rest = (rest + part).split(separator)
        yield from (text.strip("\n") for text in whole)
        if len(rest) > _LONGEST:
            cut = rest.rfind(" ", 0, _LONGEST) + 1 or _LONGEST
            yield rest[:cut]
            rest = rest[cut:]
    yield rest.strip("\n")
