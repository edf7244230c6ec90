"""Tokens to the byte, for a byte-level and for a sentencepiece vocabulary."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import saewidgets as sw
from saewidgets.models import Token, Vocabulary, fingerprint, to_ids, vocabulary_of
from saewidgets.models.tokens import bos_id, tokenizer_of

DEMO = Path(sw.__file__).parent / "models" / "demo" / "data" / "model"
STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories15M"
NASTY = [
    "<script>alert(1)</script>",
    "</style>",
    " " * 10_000,
    "שלום عالم",
    "a\r\n\tb",
    "é",
    "👩‍👩‍👧",
    "\x00",
    "<0x41>",
    "Ġ",
]

# every character but lone surrogates, which no tokenizer reads
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def byte_level() -> tuple[Any, Vocabulary]:
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    return tokenizer, Vocabulary(tokenizer)


@pytest.fixture(scope="module")
def sentencepiece() -> tuple[Any, Vocabulary]:
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is not laid beside this checkout")
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    return tokenizer, Vocabulary(tokenizer)


def with_leading_space(text: str) -> bytes:
    """What this sentencepiece vocabulary makes of a text before it looks at it."""
    return (text if text.startswith(" ") else " " + text).encode()


def spelled(pair: tuple[Any, Vocabulary], text: str) -> bytes:
    tokenizer, vocabulary = pair
    return b"".join(vocabulary.bytes_of(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"])


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_byte_level_tokens_spell_any_text(byte_level: tuple[Any, Vocabulary], text: str) -> None:
    assert spelled(byte_level, text) == text.encode()


@settings(max_examples=200, deadline=None)
@given(text=TEXT.filter(lambda text: "\u2581" not in text))
def test_sentencepiece_tokens_spell_any_text_after_its_leading_space(
    sentencepiece: tuple[Any, Vocabulary], text: str
) -> None:
    assert spelled(sentencepiece, text) == with_leading_space(text)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_are_spelled_too(
    byte_level: tuple[Any, Vocabulary], sentencepiece: tuple[Any, Vocabulary], text: str
) -> None:
    assert spelled(byte_level, text) == text.encode()
    assert spelled(sentencepiece, text) == with_leading_space(text)


def test_a_shown_token_is_text_or_bytes(sentencepiece: tuple[Any, Vocabulary]) -> None:
    tokenizer, vocabulary = sentencepiece
    assert vocabulary.token(1) == Token(1, "<s>", special=True, hex=False)
    bridge = tokenizer.convert_tokens_to_ids("▁bridge")
    assert vocabulary.token(bridge) == Token(bridge, " bridge", special=False, hex=False)
    assert vocabulary.token(tokenizer.convert_tokens_to_ids("<0xC3>")).text == "C3"
    assert vocabulary.token(tokenizer.convert_tokens_to_ids("<0xC3>")).hex
    assert vocabulary.token(tokenizer.convert_tokens_to_ids("<0x0A>")) == Token(13, "\n", False, False)


def test_broken_characters_become_hex_chips(byte_level: tuple[Any, Vocabulary]) -> None:
    tokenizer, vocabulary = byte_level
    shown = vocabulary.display(tokenizer("漢", add_special_tokens=False)["input_ids"])
    assert bytes.fromhex("".join(token.text for token in shown if token.hex)) == "漢".encode()
    assert vocabulary.text(torch.tensor([0, *(token.id for token in shown)])) == "漢"


def test_tokens_are_found_by_what_they_say(byte_level: tuple[Any, Vocabulary]) -> None:
    _, vocabulary = byte_level
    found = [vocabulary.token(i).text for i in vocabulary.find(" time")]
    assert found[0] == " time"
    assert all("time" in text.lower() for text in found)
    assert vocabulary.find("no such token at all") == []


def test_unknown_ids_get_a_sentence(byte_level: tuple[Any, Vocabulary]) -> None:
    _, vocabulary = byte_level
    with pytest.raises(ValueError, match=f"ids 0 to {len(vocabulary) - 1}"):
        vocabulary.bytes_of(len(vocabulary))
    with pytest.raises(ValueError, match="Token id -1 is out of range"):
        vocabulary.token(-1)
    padded = Vocabulary(byte_level[0], size=len(vocabulary) + 3)
    assert padded.token(len(vocabulary) + 1).special


def test_a_prompt_begins_with_bos_once(demo_model: Any) -> None:
    bos = demo_model.tokenizer.bos_token_id
    ids = to_ids(demo_model, "Once upon a time")
    assert ids.shape[0] == 1 and ids.dtype == torch.long
    assert ids[0, 0] == bos and bos not in ids[0, 1:]
    assert torch.equal(to_ids(demo_model, ids), ids)
    assert torch.equal(to_ids(demo_model, ids[0, 1:].tolist()), ids)
    assert torch.equal(to_ids(demo_model, "Once upon a time", prepend_bos=False), ids[:, 1:])
    assert torch.equal(demo_model.to_tokens("Once upon a time"), ids)


def test_lone_surrogates_do_not_crash(demo_model: Any) -> None:
    ids = to_ids(demo_model, "a\ud83cb\ud83d\ude00")[0]
    assert vocabulary_of(demo_model).text(ids) == "a\ufffdb😀"


def test_bad_prompts_get_a_sentence(demo_model: Any) -> None:
    with pytest.raises(ValueError, match="text is empty"):
        to_ids(demo_model, "")
    with pytest.raises(ValueError, match="text is empty"):
        to_ids(demo_model, [])
    n_ctx = demo_model.cfg.n_ctx
    with pytest.raises(ValueError, match=rf"has \d+ tokens, but at most {n_ctx} fit into the context"):
        to_ids(demo_model, "word " * 1000)
    with pytest.raises(ValueError, match="at most 4 fit into max_length"):
        to_ids(demo_model, "one two three four five", max_length=4)
    with pytest.raises(ValueError, match="Token id 999999 is out of range"):
        to_ids(demo_model, np.array([1, 999_999]))
    with pytest.raises(ValueError, match="Token id -3 is out of range"):
        to_ids(demo_model, torch.tensor([1, -3]))


def test_the_vocabulary_is_made_once_for_a_model(demo_model: Any) -> None:
    assert vocabulary_of(demo_model) is vocabulary_of(demo_model)
    assert len(vocabulary_of(demo_model)) == demo_model.cfg.d_vocab


def test_the_fingerprint_is_of_the_weights(demo_model: Any) -> None:
    before = fingerprint(demo_model)
    twin = copy.deepcopy(demo_model)
    assert fingerprint(twin) == before
    with torch.no_grad():
        next(twin.original_model.parameters()).mul_(1.001)
    assert fingerprint(twin) != before == fingerprint(demo_model)


@pytest.mark.parametrize("made_up", [None, 100])
def test_a_model_without_bos_is_told_how_to_go_on(made_up: int | None) -> None:
    cfg = SimpleNamespace(model_name="plain", d_vocab=100, n_ctx=8)
    model = SimpleNamespace(cfg=cfg, tokenizer=SimpleNamespace(bos_token_id=made_up))
    with pytest.raises(ValueError, match="'plain' has no BOS token. Pass prepend_bos=False"):
        bos_id(model)
    with pytest.raises(ValueError, match="'plain' has no tokenizer"):
        tokenizer_of(SimpleNamespace(cfg=cfg, tokenizer=None))
