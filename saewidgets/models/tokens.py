"""Tokens exactly as the model sees them.

A tokenizer's own strings are not what it read: byte-level BPE writes a space as "Ġ" and every other byte as some
letter, sentencepiece writes a space as "▁" and lone bytes as "<0xC3>", and `to_str_tokens` loses sentencepiece's
spaces. `Vocabulary` undoes both to the byte.
"""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saewidgets.models.lock import lock_of

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_WORD_START = "\u2581"  # sentencepiece's "▁"


@dataclass(frozen=True)
class Token:
    """One token, as it is shown."""

    id: int
    """Its id in the vocabulary."""
    text: str
    """What it says exactly: a leading space kept, a newline real; hexadecimal bytes ("C3", "E2 80") if `hex`."""
    special: bool
    """Whether it is a control token (`<|endoftext|>`), whose text is a name and no text of the model."""
    hex: bool
    """Whether its bytes are no text of their own (a part of a character)."""


def _byte_alphabet() -> dict[str, int]:
    """The letters with which byte-level BPE writes bytes (GPT-2's `bytes_to_unicode`), read backwards."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet.update({chr(256 + i): byte for i, byte in enumerate(hidden)})
    return alphabet


_ALPHABET = _byte_alphabet()


def _kind_of(tokenizer: Any) -> str:
    """How a tokenizer writes its tokens: "byte-level", "sentencepiece" or "plain"."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return "sentencepiece" if hasattr(tokenizer, "sp_model") else "plain"
    form = json.loads(backend.to_str())
    written = json.dumps([form.get("decoder"), form.get("pre_tokenizer")])
    if '"ByteLevel"' in written:
        return "byte-level"
    if '"Metaspace"' in written or _WORD_START in json.dumps(form.get("decoder"), ensure_ascii=False):
        return "sentencepiece"
    return "plain"


class Vocabulary:
    """What every token of a tokenizer is, to the byte.

    `size` may be larger than the tokenizer's own number of tokens, since models pad their vocabulary.
    """

    def __init__(self, tokenizer: Any, size: int | None = None) -> None:
        n = max(size or 0, len(tokenizer))
        names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) + [None] * (n - len(tokenizer))
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        kind = _kind_of(tokenizer)
        self._special = [i in special or name is None for i, name in enumerate(names)]
        self._bytes = [
            f"<unused {i}>".encode()
            if name is None
            else _utf8(name)
            if self._special[i] or i in added
            else _bytes_of(name, kind)
            for i, name in enumerate(names)
        ]
        self.special_ids: frozenset[int] = frozenset(i for i, flag in enumerate(self._special) if flag)
        """The ids of control tokens."""

    def __len__(self) -> int:
        return len(self._bytes)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, {len(self.special_ids)} special)"

    def same_as(self, other: Vocabulary) -> bool:
        """Whether every id says the same in both."""
        return self._bytes == other._bytes and self.special_ids == other.special_ids

    def bytes_of(self, token_id: int) -> bytes:
        """The exact bytes of a token; a special token's are those of its name.

        Raises:
            ValueError: no such id.
        """
        return self._bytes[self._checked(token_id)]

    def token(self, token_id: int) -> Token:
        """One token as it is shown."""
        token_id = self._checked(token_id)
        raw = self._bytes[token_id]
        try:
            return Token(token_id, raw.decode("utf-8"), self._special[token_id], False)
        except UnicodeDecodeError:
            return Token(token_id, raw.hex(" ").upper(), self._special[token_id], True)

    def display(self, ids: Iterable[int] | Tensor) -> list[Token]:
        """The tokens of a sequence of ids as they are shown."""
        return [self.token(i) for i in (ids.flatten().tolist() if isinstance(ids, Tensor) else ids)]

    def text(self, ids: Iterable[int] | Tensor) -> str:
        """The text of a sequence of ids without its special tokens; broken characters become U+FFFD."""
        listed = ids.flatten().tolist() if isinstance(ids, Tensor) else list(ids)
        return b"".join(self.bytes_of(i) for i in listed if i not in self.special_ids).decode("utf-8", "replace")

    def find(self, text: str) -> list[int]:
        """Ids of the tokens that say `text`, best first: equal, equal but for spaces around, then containing it."""
        wanted, bare = text.casefold(), text.strip().casefold()
        found: list[tuple[int, int, int]] = []
        for i in range(len(self)):
            shown = self.token(i)
            said = shown.text.casefold()
            if wanted and not shown.hex and wanted in said or bare and said.strip() == bare:
                rank = 0 if shown.text == text else 1 if said == wanted else 2 if said.strip() == bare else 3
                found.append((rank, len(said), i))
        return [i for _, _, i in sorted(found)]

    def _checked(self, token_id: int) -> int:
        token_id = int(token_id)
        if not 0 <= token_id < len(self._bytes):
            raise ValueError(f"Token id {token_id} is out of range: the vocabulary has ids 0 to {len(self) - 1}.")
        return token_id


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _bytes_of(name: str, kind: str) -> bytes:
    if kind == "byte-level":
        return b"".join(bytes([_ALPHABET[c]]) if c in _ALPHABET else _utf8(c) for c in name)
    if kind == "sentencepiece":
        byte = _BYTE_TOKEN.match(name)
        return bytes([int(byte.group(1), 16)]) if byte else _utf8(name.replace(_WORD_START, " "))
    return _utf8(name)


_vocabularies: weakref.WeakKeyDictionary[Any, tuple[int, Vocabulary]] = weakref.WeakKeyDictionary()


def vocabulary_of(model: Any) -> Vocabulary:
    """The vocabulary of a bridge; made once, and anew if its tokenizer is exchanged.

    Raises:
        ValueError: the model has no tokenizer.
    """
    tokenizer = tokenizer_of(model)
    known = _vocabularies.get(model)
    if known is None or known[0] != id(tokenizer):
        known = (id(tokenizer), Vocabulary(tokenizer, size=model.cfg.d_vocab))
        _vocabularies[model] = known
    return known[1]


def tokenizer_of(model: Any) -> Any:
    """The tokenizer of a bridge.

    Raises:
        ValueError: it has none.
    """
    if getattr(model, "tokenizer", None) is None:
        raise ValueError(
            f"The model {model.cfg.model_name!r} has no tokenizer. Set model.tokenizer to the Hugging Face tokenizer "
            "it was trained with."
        )
    return model.tokenizer


def clean(text: str) -> str:
    """The text with lone surrogates, which no tokenizer can read, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode(model: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without any special token in front or behind."""
    tokenizer = tokenizer_of(model)
    ids: list[list[int]] = []
    for start in range(0, len(texts), 256):  # the tokenizer isn't thread-safe; a slider waits for 256 texts at most
        with lock_of(model):
            batch = [clean(text) for text in texts[start : start + 256]]
            ids += tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def check_ids(model: Any, ids: Tensor) -> Tensor:
    """The same ids, or a sentence if some of them are no tokens of the model.

    Raises:
        ValueError: ids out of range.
    """
    n = int(model.cfg.d_vocab)
    wrong = ids[(ids < 0) | (ids >= n)]
    if wrong.numel():
        raise ValueError(
            f"Token id {int(wrong.flatten()[0])} is out of range: the model {model.cfg.model_name!r} has ids 0 to "
            f"{n - 1}. Were these tokens made by another model's tokenizer?"
        )
    return ids


def bos_id(model: Any) -> int:
    """The id of the token that begins every text of the model.

    Raises:
        ValueError: the model knows no such token.
    """
    found = tokenizer_of(model).bos_token_id
    # TransformerLens gives a tokenizer that lacks one a made-up BOS, for which the model has no embedding
    if found is None or found >= int(model.cfg.d_vocab):
        raise ValueError(f"The model {model.cfg.model_name!r} has no BOS token. Pass prepend_bos=False.")
    return int(found)


def to_ids(
    model: Any, text: str | Sequence[int] | Tensor, prepend_bos: bool = True, max_length: int | None = None
) -> Tensor:
    """The tokens of a prompt, `[1, n]` on the model's device; ids are taken as they are.

    Args:
        prepend_bos: Put the BOS token in front, unless it is there already.
        max_length: Longest allowed number of tokens; the model's context by default.

    Raises:
        ValueError: the text is empty, is longer than `max_length`, or has ids that are out of range.
    """
    if isinstance(text, str):
        ids = torch.tensor(encode(model, [text])[0], dtype=torch.long)
    else:
        ids = check_ids(model, torch.as_tensor(text).detach().cpu().flatten().long())
    if ids.numel() == 0:
        raise ValueError("The text is empty: it gives no tokens. Write at least one character.")
    if prepend_bos and int(ids[0]) != bos_id(model):
        ids = torch.cat([torch.tensor([bos_id(model)]), ids])
    limit = max_length or int(model.cfg.n_ctx)
    if ids.numel() > limit:
        raise ValueError(
            f"The text has {ids.numel()} tokens, but at most {limit} fit into "
            f"{'max_length' if max_length else 'the context of ' + repr(model.cfg.model_name)}. Shorten it."
        )
    return ids[None].to(device_of(model))


def device_of(model: Any) -> torch.device:
    """Where the model's weights are."""
    device: torch.device = next(model.original_model.parameters()).device
    return device


def fingerprint(model: Any) -> str:
    """A hash of the model's weights: names, shapes, and 64 values evenly spaced in each tensor."""
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, weight in sorted(model.original_model.named_parameters(), key=lambda item: item[0]):
            sample = weight.detach().flatten()[:: max(1, weight.numel() // 64)]
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()
