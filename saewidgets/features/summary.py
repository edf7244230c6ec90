"""Tables, a plot, and lists of features, made from the rows of features.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saewidgets.features.schema import N_BINS, N_LOGIT_BINS

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

Array = npt.NDArray[Any]


def word(text: str) -> str:
    """A token in a list of tokens: without the spaces around it, whitespace alone made visible."""
    return text.strip() or text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def words(tokens: Sequence[int], texts: list[str]) -> str:
    """A list of tokens as one text."""
    return ", ".join(word(texts[token]) for token in tokens)


def plain(value: Any) -> Any:
    """A cell as plain Python: lists for arrays, None for what is missing."""
    if isinstance(value, np.ndarray | list):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is None or value != value else value  # NaN is a missing number


def feature_table(features: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """See `FeatureIndex.table`."""
    import pandas as pd

    table = features[["feature", "density", "count", "max", "mean"]].copy()
    for name, column in (
        ("top_tokens", "top_tokens"),
        ("top_logits", "positive_tokens"),
        ("bottom_logits", "negative_tokens"),
    ):
        table[name] = [words(row, texts) for row in features[column]]
    table["decoder_norm"] = features["decoder_norm"]
    table["enc_dec_cosine"] = features["enc_dec_cosine"]
    table["nearest"] = pd.array([row[0] if len(row) else None for row in features["neighbours"]], dtype="Int64")
    table["nearest_cosine"] = [row[0] if len(row) else np.nan for row in features["neighbour_cosines"]]
    table["top_position"] = features["top_position"].astype("Int64")
    table["top_position_share"] = features["top_position_share"]
    table["flags"] = [", ".join(row) for row in features["flags"]]
    return table


def density_plot(density: Array, n_tokens: int) -> go.Figure:
    """See `FeatureIndex.plot`."""
    import plotly.graph_objects as go

    alive = density[density > 0]
    figure = go.Figure(go.Histogram(x=np.log10(alive), nbinsx=60, marker_color="#d9730d", name="features"))
    figure.update_layout(
        title=f"{len(alive):,} features, {len(density) - len(alive):,} dead on {n_tokens:,} tokens",
        xaxis_title="log10 density (share of tokens a feature is active on)",
        yaxis_title="features",
        bargap=0.02,
        template="simple_white",
        height=320,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
    )
    return figure


def interval_table(counts: Array, edges: Array, n: int) -> pd.DataFrame:
    """See `FeatureIndex.intervals`."""
    import pandas as pd

    if not 1 <= n <= N_BINS:
        raise ValueError(f"n={n} intervals cannot be made; give 1 to {N_BINS}")
    cuts = np.linspace(0, N_BINS, n + 1).round().astype(int)  # at the bins' edges, so that counts are exact
    total = counts.sum()
    rows = [
        (edges[a], edges[b], counts[a:b].sum(), counts[a:b].sum() / total)
        for a, b in reversed(list(zip(cuts[:-1], cuts[1:], strict=True)))
        if total
    ]
    return pd.DataFrame(rows, columns=["lo", "hi", "count", "share"]).astype({"count": "int64"})


def logit_tables(row: pd.Series, n: int, texts: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """See `FeatureIndex.logits`."""
    import pandas as pd

    def side(name: str) -> pd.DataFrame:
        ids = [int(token) for token in row[f"{name}_tokens"][:n]]
        values = [float(value) for value in row[f"{name}_logits"][:n]]
        return pd.DataFrame({"token": ids, "text": [texts[token] for token in ids], "value": values})

    return side("positive"), side("negative")


def logit_histogram(row: pd.Series) -> tuple[Array, Array]:
    """See `FeatureIndex.logit_histogram`."""
    counts = np.asarray(row["logit_histogram"], np.int64)
    if not len(counts):
        return counts, np.zeros(0)
    return counts, np.linspace(float(row["logit_min"]), float(row["logit_max"]), N_LOGIT_BINS + 1)


def similar_table(features: pd.DataFrame, feature: int, n: int, texts: list[str]) -> pd.DataFrame:
    """See `FeatureIndex.similar`."""
    import pandas as pd

    row = features.iloc[feature]
    found = [
        (relation, int(other), float(value), words(features["top_tokens"].iloc[int(other)], texts))
        for relation, names, values in (
            ("decoder", row["neighbours"], row["neighbour_cosines"]),
            ("coactive", row["coactive"], row["coactive_cosines"]),
        )
        for other, value in list(zip(names, values, strict=True))[:n]
    ]
    return pd.DataFrame(found, columns=["relation", "feature", "value", "top_tokens"])
