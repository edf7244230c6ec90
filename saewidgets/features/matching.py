"""What a searched text matches: one rule, for the live search and for the search of an exported page.

    closeness 1     the token says exactly this
              0.8   the same but for spaces around and case
              0.4   the token contains it, but for spaces around and case

A text of spaces alone matches only exactly, and so do special tokens and hex chips. Spaces around are what `str.strip`
takes, case is what `str.lower` takes. "#412" names the feature of this number and matches nothing else; "412" names it
first and is text as well.

A feature is ranked by the highest closeness * score over the tokens that it fires on (the score of `features.search`),
equal ones by their number.

js/src/feature_browser/matching.ts says the same in TypeScript, for the tokens and scores that a page carries. Both pass
the cases of tests/features/matching_cases.json.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(#?)([0-9]{1,15})")


class Wanted:
    """A searched text, as tokens are compared with it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._bare = text.strip().lower()

    def closeness(self, shown: str, whole: bool = False) -> float:
        """How closely a token that says `shown` matches, 0 if it does not; `whole` if only exactly (special, hex)."""
        if shown == self.text:
            return 1.0
        if whole or not self._bare or self._bare not in (said := shown.lower()):
            return 0.0
        return 0.8 if said.strip() == self._bare else 0.4

    @property
    def number(self) -> int | None:
        """The feature that it names, whether there is one or not."""
        named = _NUMBER.fullmatch(self._bare)
        return int(named[2]) if named else None

    @property
    def is_number_only(self) -> bool:
        """Whether it names a feature and is no text ("#412")."""
        return self._bare.startswith("#") and self.number is not None
