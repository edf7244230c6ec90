"""A TransformerLens bridge, its one lock, its tokens; the embedded demo model and its text.

`load_model` boots a bridge that several threads may share, `load_texts` gives the embedded stories,
`Vocabulary` says what a token really is. Nothing here knows a sparse autoencoder.
"""

from __future__ import annotations

from saewidgets.models.load import load_model
from saewidgets.models.lock import forward_hooks, lock_of, share
from saewidgets.models.texts import load_texts
from saewidgets.models.tokens import Token, Vocabulary, fingerprint, to_ids, vocabulary_of

__all__ = [
    "Token",
    "Vocabulary",
    "fingerprint",
    "forward_hooks",
    "load_model",
    "load_texts",
    "lock_of",
    "share",
    "to_ids",
    "vocabulary_of",
]
