"""Where texts come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import saewidgets as sw
from saewidgets.activations import pack, sources
from saewidgets.activations.sources import documents
from saewidgets.models import to_ids

TEXTS = ["Once upon a time there was a cat.\n\nIt sat.", "A dog.", "A bridge was red."]


def test_a_file_is_split_at_its_marks_or_else_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked, plain, one = tmp_path / "marked.txt", tmp_path / "plain.txt", tmp_path / "one.txt"
    marked.write_text("\n<|endoftext|>\n".join([*TEXTS, ""]))
    plain.write_text("\n\n\n".join(TEXTS))
    one.write_text("word " * 100)
    for size in (1, 3, 7, 1 << 20):  # separators across the borders of what is read at once
        monkeypatch.setattr(sources, "_READ", size)
        assert list(documents(marked)) == TEXTS
        assert list(documents(plain)) == [*TEXTS[0].split("\n\n"), *TEXTS[1:]]
    monkeypatch.setattr(sources, "_READ", 40)
    monkeypatch.setattr(sources, "_LONGEST", 50)
    pieces = list(documents(one))
    assert len(pieces) > 5 and max(map(len, pieces)) <= 50 + 40
    assert "".join(pieces) == "word " * 100


def test_a_file_is_read_a_piece_at_a_time(tmp_path: Path, demo_model: Any) -> None:
    path = tmp_path / "long.txt"
    path.write_text("<|endoftext|>".join(["A cat sat on a bridge. " * 10] * 30_000))
    source = documents(path)
    assert next(source).startswith("A cat")
    packed = pack(demo_model, path, 32, max_tokens=500)  # of some millions
    assert int(packed.mask[:, 1:].sum()) == 500


def test_bounds_cut_the_text(demo_model: Any) -> None:
    whole = pack(demo_model, TEXTS, 6)
    two = pack(demo_model, TEXTS, 6, max_texts=2)
    assert torch.equal(two.tokens, whole.tokens[whole.doc < 2])
    few = pack(demo_model, TEXTS, 6, max_tokens=7)
    assert int(few.mask[:, 1:].sum()) == 7
    assert torch.equal(few.tokens[:, 1:][few.mask[:, 1:]], whole.tokens[:, 1:][whole.mask[:, 1:]][:7])
    for bound in ("max_texts", "max_tokens"):
        with pytest.raises(ValueError, match=f"{bound}=0 is not possible"):
            pack(demo_model, TEXTS, 6, **{bound: 0})


def test_hugging_face_datasets_are_read_whole_or_as_far_as_told(demo_model: Any) -> None:
    rows = datasets.Dataset.from_dict({"label": [1, 2, 3], "text": TEXTS})
    expected = pack(demo_model, TEXTS, 6)
    assert torch.equal(pack(demo_model, rows, 6).tokens, expected.tokens)
    streaming = rows.to_iterable_dataset()
    with pytest.raises(ValueError, match="This dataset streams.* say how much of it to read, max_tokens"):
        pack(demo_model, streaming, 6)
    assert torch.equal(pack(demo_model, streaming, 6, max_texts=3).tokens, expected.tokens)
    assert torch.equal(pack(demo_model, streaming, 6, max_tokens=10_000).tokens, expected.tokens)
    generated = datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in TEXTS))
    assert generated.column_names is None
    for _ in range(2):  # the same text each time
        assert torch.equal(pack(demo_model, generated, 6, max_texts=3).tokens, expected.tokens)
    ids = [to_ids(demo_model, text)[0].tolist() for text in TEXTS]
    tokenised = datasets.Dataset.from_dict({"input_ids": ids})
    assert torch.equal(pack(demo_model, tokenised, 6).tokens, expected.tokens)
    with pytest.raises(ValueError, match="no column 'text'.*only label"):
        pack(demo_model, rows.select_columns(["label"]), 6)
    with pytest.raises(TypeError, match="got a dict with 'train'"):
        pack(demo_model, datasets.DatasetDict(train=rows), 6)


def test_an_endless_generator_is_read_as_far_as_told(demo_model: Any) -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "A cat sat."

    packed = pack(demo_model, endless(), 6, max_tokens=100)
    assert int(packed.mask[:, 1:].sum()) == 100
    assert len(set(pack(demo_model, endless(), 6, max_texts=7).doc.tolist())) == 7


def test_a_source_that_breaks_off_or_ends_early_says_so_and_loses_nothing(demo_model: Any) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS[:2]
        raise ConnectionError("the line is dead")

    with pytest.warns(UserWarning, match=r"broke off after 2 of them \(ConnectionError: the line is dead\). What came"):
        packed = pack(demo_model, broken(), 6)
    assert torch.equal(packed.tokens, pack(demo_model, TEXTS[:2], 6).tokens)
    assert torch.equal(pack(demo_model, broken(), 6, max_texts=2).tokens, packed.tokens)
    with pytest.warns(UserWarning, match="ended after 3 of the max_texts=10 asked for"):
        pack(demo_model, TEXTS, 6, max_texts=10)

    def dead() -> Iterator[str]:
        raise ConnectionError("the line is dead")
        yield ""

    with pytest.raises(ConnectionError):
        pack(demo_model, dead(), 6)


def test_arrays_of_ids_are_rows_of_documents(demo_model: Any, tmp_path: Path) -> None:
    square = np.arange(12, dtype=np.uint16).reshape(2, 6) + 5
    for same in (square, torch.from_numpy(square.astype(np.int32)), square.tolist(), list(square)):
        packed = pack(demo_model, same, 4, prepend_bos=False)
        assert packed.tokens[0].tolist() == [5, 6, 7, 8] and packed.doc.tolist() == [0, 0, 1, 1]
    square.tofile(tmp_path / "train.bin")
    mapped = np.memmap(tmp_path / "train.bin", dtype=np.uint16, mode="r")
    flat = pack(demo_model, mapped, 4, prepend_bos=False)
    assert flat.tokens.flatten().tolist() == list(range(5, 17)) and set(flat.doc.tolist()) == {0}


def test_missing_files_and_strings_get_a_sentence(demo_model: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no text file"):
        pack(demo_model, tmp_path / "none.txt", 6)
    with pytest.raises(TypeError, match=r"A text file is given as a path: pathlib.Path\('file.txt'\)"):
        pack(demo_model, "file.txt", 6)
    (tmp_path / "blank.txt").write_text("\n\n \n\n")
    with pytest.raises(ValueError, match="texts is empty"):
        pack(demo_model, tmp_path / "blank.txt", 6)


def test_a_stream_of_a_file_is_a_stream_of_its_texts(demo_model: Any, texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("<|endoftext|>".join(texts[:8]))
    options: dict[str, Any] = {"hook_name": "blocks.1.hook_resid_post", "context_size": 32, "batch_size": 64}
    of_file = sw.ActivationStream(demo_model, path, **options)
    of_list = sw.ActivationStream(demo_model, texts[:8], **options)
    assert of_file.fingerprints() == of_list.fingerprints()
    assert torch.equal(next(iter(of_file)), next(iter(of_list)))
    assert sw.ActivationStream(demo_model, path, **options, max_texts=4).n_vectors < of_list.n_vectors
