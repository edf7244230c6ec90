"""A text sample: the same examples as an index of the same text, without the model, whoever asks at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saewidgets as sw
from saewidgets.activations import check_fits, pack
from saewidgets.features import TextSample

HOOK = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def taken(demo_model: Any, texts: list[str], tiny_sae: sw.SAE) -> TextSample:
    return TextSample(demo_model, pack(demo_model, texts[:12], 128), check_fits(tiny_sae, demo_model))


def test_it_shows_what_an_index_of_the_same_text_shows(
    demo_model: Any, texts: list[str], tiny_sae: sw.SAE, taken: TextSample, tmp_path: Path
) -> None:
    index = sw.FeatureIndex.build(tiny_sae, demo_model, texts[:12], tmp_path / "index")
    assert repr(taken) == f"TextSample({index.n_tokens:,} tokens at {HOOK!r})"
    table = index.table()
    often = int(table["count"].idxmax())
    seldom = int(table["count"].where(table["count"] > 2).idxmin())
    for feature in (often, seldom):
        expected = index.examples(feature, n=5, window=6)
        found = taken.examples(tiny_sae, feature, n=5, window=6)
        assert list(found.columns) == list(expected.columns) and len(found) == len(expected) > 0
        # vectors in half precision: values are rounded, and places of nearly the same value may change order
        assert found["value"].tolist() == pytest.approx(expected["value"].tolist(), rel=2e-2)
        top, same = found.iloc[0], expected[expected["item"] == found["item"].iloc[0]].iloc[0]
        for name in ("context", "position", "doc", "token", "text", "peak", "tokens", "texts"):
            assert top[name] == same[name], name
        assert top["values"] == pytest.approx(same["values"], rel=2e-2, abs=2e-2)
    dead = int(table["count"].idxmin())
    if not table["count"][dead]:
        assert taken.examples(tiny_sae, dead).empty
    with pytest.raises(ValueError, match="no feature 512"):
        taken.examples(tiny_sae, 512)


def test_near_identical_windows_do_not_crowd_out_the_others(
    demo_model: Any, tiny_sae: sw.SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saewidgets.sae.strongest._FIRST", 2)  # the first group holds one window, over and over
    same = ["Once upon a time there was a cat."] * 20 + ["The old dog ran to the river."]
    found = TextSample(demo_model, pack(demo_model, same, 16), check_fits(tiny_sae, demo_model))
    x = found.examples(tiny_sae, 0, n=1)  # reads the text
    feature = int(tiny_sae.encode(found._vectors[:8].float()).amax(0).argmax())
    shown = found.examples(tiny_sae, feature, n=5, window=3)
    keys = [tuple(tokens) for tokens in shown["tokens"]]
    assert len(x) <= 1 and len(keys) == len(set(keys)) > 1


def test_position_0_is_shown_and_not_asked(taken: TextSample, tiny_sae: sw.SAE) -> None:
    assert not any(share < 1 for share in [*taken.read()][-1:])  # whichever test came first
    feature = int(tiny_sae.encode(taken._vectors[:1].float()).argmax())
    frame = taken.examples(tiny_sae, feature, n=20, window=None)
    assert len(frame) and all(np.array(values)[0] == 0 for values in frame["values"]) and frame["position"].min() > 0
    with pytest.raises(ValueError, match="n=0 examples are not possible"):
        taken.examples(tiny_sae, feature, n=0)


def test_only_the_tokens_of_the_text_are_decoded(demo_model: Any, tiny_sae: sw.SAE) -> None:
    found = TextSample(demo_model, pack(demo_model, ["A cat sat."], 16), check_fits(tiny_sae, demo_model))
    assert set(found._texts) == set(found._tokens.tolist()) and "A" in "".join(found._texts.values())


def test_threads_share_the_reading_and_the_model_stays_free(
    demo_model: Any, texts: list[str], tiny_sae: sw.SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = TextSample(demo_model, pack(demo_model, texts[:30], 64), check_fits(tiny_sae, demo_model))
    reads: list[int] = []
    read = TextSample._read_next
    monkeypatch.setattr(TextSample, "_read_next", lambda self, n: reads.append(self._n_read) or read(self, n))
    frames: list[Any] = []
    threads = [threading.Thread(target=lambda: frames.append(shared.examples(tiny_sae, 3, n=4))) for _ in range(3)]
    for thread in threads:
        thread.start()
    plain = demo_model(torch.arange(1, 9)[None])  # between two of their forwards
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert reads == sorted(set(reads)) and len(reads) == -(-len(shared._contexts) // 8)
    assert frames[0].equals(frames[1]) and frames[0].equals(frames[2])
    assert torch.equal(plain, demo_model(torch.arange(1, 9)[None]))
    alone = TextSample(demo_model, pack(demo_model, texts[:30], 64), check_fits(tiny_sae, demo_model))
    assert list(alone.read())[-1] == 1.0 and list(alone.read()) == []
    assert alone.examples(tiny_sae, 3, n=4).equals(frames[0])


def test_a_text_without_a_position_is_refused(demo_model: Any, tiny_sae: sw.SAE) -> None:
    bos_only = pack(demo_model, [[5]], 8, prepend_bos=False)
    with pytest.raises(ValueError, match="no position is left"):
        TextSample(demo_model, bos_only, check_fits(tiny_sae, demo_model))
