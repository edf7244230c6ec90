"""Texts cut into contexts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from saewidgets.activations import pack
from saewidgets.activations.contexts import asked
from saewidgets.models import to_ids


class Dataset:
    """What a Hugging Face dataset looks like from here."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __iter__(self) -> Any:
        names = self.column_names
        return (dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


def test_a_context_holds_one_document_and_begins_with_bos(demo_model: Any) -> None:
    texts = ["Once upon a time there was a cat who lived on a bridge.", "", "A dog."]
    packed = pack(demo_model, texts, 6)
    bos = demo_model.tokenizer.bos_token_id
    assert packed.tokens.shape == packed.mask.shape == (len(packed), 6)
    assert (packed.tokens[:, 0] == bos).all() and packed.mask[:, 0].all()
    assert packed.doc.tolist() == sorted(packed.doc.tolist()) and set(packed.doc.tolist()) == {0, 2}
    for index in (0, 2):
        mine = packed.doc == index
        read = packed.tokens[mine][:, 1:][packed.mask[mine][:, 1:]]
        assert torch.equal(read, to_ids(demo_model, texts[index], prepend_bos=False)[0])


def test_token_arrays_and_datasets_are_texts_too(demo_model: Any) -> None:
    texts = ["Once upon a time there was a cat.", "A dog."]
    expected = pack(demo_model, texts, 6)
    ids = [to_ids(demo_model, text)[0] for text in texts]  # they begin with BOS, which isn't doubled
    bare = [array[1:].tolist() for array in ids]
    for same in (ids, bare, [np.array(a, dtype=np.uint16) for a in bare], Dataset(text=texts), Dataset(input_ids=bare)):
        packed = pack(demo_model, same, 6)
        assert torch.equal(packed.tokens, expected.tokens) and torch.equal(packed.mask, expected.mask)
    flat = pack(demo_model, ids[0], 6)
    assert torch.equal(flat.tokens, expected.tokens[expected.doc == 0])
    square = pack(demo_model, torch.arange(12).reshape(2, 6) + 5, 4, prepend_bos=False)
    assert square.tokens.tolist()[0] == [5, 6, 7, 8] and square.doc.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("texts", "kind", "sentence"),
    [
        ("one string", TypeError, r"got one string. Put it into a list: \[text\]"),
        ([], ValueError, "list of texts is empty"),
        (["", ""], ValueError, "texts are empty"),
        ([[1, 2], "x"], TypeError, "partly strings and partly token ids"),
        ([[0.5, 2.5]], TypeError, "a string or an array of token ids"),
        ([None], TypeError, "a string or an array of token ids"),
        (3, TypeError, "Expected a list of texts, got int"),
        ([[1, 999_999]], ValueError, "Token id 999999 is out of range"),
        ([[-1]], ValueError, "Token id -1 is out of range"),
        (Dataset(label=[1, 2]), ValueError, "no column 'text'.*only label"),
    ],
)
def test_bad_texts_get_a_sentence(demo_model: Any, texts: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        pack(demo_model, texts, 16)


@pytest.mark.parametrize("size", [1, 257])
def test_context_sizes_that_do_not_fit_get_a_sentence(demo_model: Any, size: int) -> None:
    with pytest.raises(ValueError, match=f"context_size={size} does not fit: 'saewidgets-demo' reads 2 to 256 tokens"):
        pack(demo_model, ["A cat."], size)


def test_an_sae_is_asked_where_there_is_text_and_it_leaves_nothing_out() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert asked(mask, (0, 7)).tolist() == [[False, True, True], [False, True, False]]
    assert asked(mask[1], (1,)).tolist() == [True, False, False] and torch.equal(asked(mask, ()), mask)
    assert mask.tolist() == [[True, True, True], [True, True, False]]  # left as it was
