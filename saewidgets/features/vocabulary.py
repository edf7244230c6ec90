"""The words of an index's tokens, stored with it: an opened index shows text without the model."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from saewidgets.features.matching import Wanted
from saewidgets.features.query import Tables
from saewidgets.models.tokens import Token


class StoredVocabulary:
    """What each token looks like, and how often it was scanned."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def _columns(self) -> tuple[list[str], list[bool], list[bool], list[int]]:
        rows = self._tables.rows('select text, special, hex, "count" from vocabulary order by token')
        return (
            [row[0] for row in rows],
            [row[1] for row in rows],
            [row[2] for row in rows],
            [row[3] for row in rows],
        )

    @property
    def texts(self) -> list[str]:
        """By token id: the exact text, or hex digits of a token that is not text alone."""
        return self._columns[0]

    @property
    def counts(self) -> list[int]:
        """By token id: on how many scanned positions it stands."""
        return self._columns[3]

    def tokens(self, ids: Iterable[int]) -> list[Token]:
        """The tokens of these ids; raises ValueError for an id that the vocabulary lacks."""
        texts, special, hexes, _ = self._columns
        found = []
        for i in map(int, ids):
            if not 0 <= i < len(texts):
                raise ValueError(f"token {i} is not in this index: its vocabulary holds 0 to {len(texts) - 1}")
            found.append(Token(i, texts[i], special[i], hexes[i]))
        return found

    def closeness(self, text: str) -> dict[int, float]:
        """Scanned tokens that match a text, and how closely (see `features.matching`)."""
        texts, special, hexes, counts = self._columns
        wanted = Wanted(text)
        close = {
            i: wanted.closeness(shown, whole=special[i] or hexes[i]) for i, shown in enumerate(texts) if counts[i]
        }
        return {i: value for i, value in close.items() if value > 0}
