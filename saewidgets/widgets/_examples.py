"""Examples on their way to the screen: windows of text with a feature's activations, as JSON and raw arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saewidgets.widgets._base import Answer

if TYPE_CHECKING:
    import pandas as pd

    from saewidgets.models import Token


def packed(tables: Sequence[pd.DataFrame], tokens_of: Callable[[list[int]], Sequence[Token]]) -> Answer:
    """Tables of examples, one after the other, as `FeatureDashboardView.examples` gives them.

    `tokens_of`: the tokens of some ids.
    """

    def column(name: str) -> list[Any]:
        return [value for table in tables for value in table[name]]

    parts = [np.asarray(tokens, dtype=np.int64) for tokens in column("tokens")]
    ids, places = np.unique(np.concatenate([*parts, np.zeros(0, np.int64)]), return_inverse=True)
    lines = [np.asarray(line, dtype=np.float32) for line in column("values")]
    values = np.concatenate([*lines, np.zeros(0, np.float32)])
    active = np.flatnonzero(values > 0)
    tokens = tokens_of(ids.tolist())
    result = {
        "texts": [token.text for token in tokens],
        "special": [i for i, token in enumerate(tokens) if token.special],
        "hex": [i for i, token in enumerate(tokens) if token.hex],
        "lengths": [len(part) for part in parts],
        "peaks": [int(peak) for peak in column("peak")],
        "positions": [int(position) for position in column("position")],
        "contexts": [int(context) for context in column("context")],
    }
    buffers = [
        places.astype("<u2").tobytes(),
        active.astype("<i4").tobytes(),
        values[active].astype("<f4").tobytes(),
    ]
    return result, buffers
