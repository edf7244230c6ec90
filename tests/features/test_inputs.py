"""The identity of a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saewidgets.features.inputs import text_hash


def test_equal_texts_are_equal_and_others_are_not():
    assert text_hash(["a", "b"]) == text_hash(("a", "b"))
    different = [["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [[1, 2], [3]], [[1], [2, 3]], ["\ud800"]]
    assert len({text_hash(texts) for texts in different}) == len(different)


def test_token_ids_are_the_same_whatever_holds_them():
    wanted = text_hash([[1, 2, 3], [4, 5, 6]])
    for texts in (np.array([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32)):
        assert text_hash(texts) == wanted
    assert text_hash([np.array([1, 2, 3]), torch.tensor([4, 5, 6])]) == wanted
    assert text_hash(list(np.array([1, 2, 3]))) == text_hash([1, 2, 3])


def test_rows_of_a_dataset():
    rows = [{"text": "a", "n": 1}, {"text": "b", "n": 2}]
    assert text_hash(rows) == text_hash([{"n": 3, "text": "a"}, {"text": "b"}])
    assert text_hash(rows) != text_hash([{"text": "a"}, {"text": "c"}])


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match="not float"):
        text_hash([1.5])
