"""Finding features by the text they fire on.

For a token t and a feature f with n activations on it,

    share    = sum of f's activation on t / sum of f's activation everywhere   ("when it fires, is it on t?")
    coverage = n / positions where t stands                                    ("when t stands there, does it fire?")
    score    = closeness * 2 share coverage / (share + coverage) * n / (n + 1)

closeness is that of `features.matching`; the rest is the F1 of "f is active" as a predictor of t, with precision
weighted by activation, and halved for what was seen once. Share and coverage come from all activations of the scan, not
from the stored sample. A feature counts by the token that scores best for it, and equal ones stand by their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saewidgets.features.matching import Wanted
from saewidgets.features.query import Tables
from saewidgets.features.rows import IndexRows
from saewidgets.features.vocabulary import StoredVocabulary

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
COLUMNS = ["feature", "token", "score", "share", "coverage", "count", "max", "density"]
_LONGEST = 12
"""Most tokens that one searched text may be spelled with."""


def find(
    tables: Tables, vocabulary: StoredVocabulary, source: IndexRows, features: pd.DataFrame, text: str, n: int
) -> pd.DataFrame:
    """See `FeatureIndex.search`; `features` holds the rows of features.parquet by number."""
    import pandas as pd

    wanted = Wanted(text)
    number = wanted.number if wanted.number is not None and wanted.number < len(features) else None
    named = [] if number is None else [by_id(tables, vocabulary, features.iloc[number])]
    if wanted.is_number_only:
        return named[0]
    found = pd.concat([*named, by_token(tables, vocabulary, source, text, n)], ignore_index=True)
    found = found.drop_duplicates("feature").head(n).reset_index(drop=True)
    if not len(found):
        found.attrs["message"] = f"no feature is active on a token that says {text!r} in the scanned text"
    return found


def best_of_tokens(tables: Tables, vocabulary: StoredVocabulary, n: int, most: int) -> pd.DataFrame:
    """See `FeatureIndex.best_of_tokens`."""
    frame = _score(tables, vocabulary, {i: 1.0 for i, count in enumerate(vocabulary.counts) if count})
    frame = frame.sort_values(["score", "feature"], ascending=[False, True], kind="stable")
    # where that is too many, every token keeps its best before any has its second
    frame["place"] = frame.groupby("id", sort=False).cumcount()
    frame = frame[frame["place"] < n].sort_values("place", kind="stable").head(most)
    frame = frame.sort_values(["id", "place"], kind="stable")
    return frame[["id", "feature", "score"]].rename(columns={"id": "token"}).reset_index(drop=True)


def by_token(tables: Tables, vocabulary: StoredVocabulary, source: IndexRows, text: str, n: int) -> pd.DataFrame:
    """Features that fire on the tokens that say `text`, best first, each with its best token.

    A text that no single token says is looked for across tokens, and what fires on its last token is found.
    """
    close = vocabulary.closeness(text)
    frame = _score(tables, vocabulary, close)
    if not any(value >= 0.8 for value in close.values()):
        ends = spelled(source, vocabulary.texts, text)
        if len(ends):
            import pandas as pd

            frame = pd.concat([_score_items(tables, ends, text), frame], ignore_index=True)
    return best_first(frame).head(n)[COLUMNS]


def best_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of (feature, token) with a score: each feature once, by its best token, the best first."""
    frame = frame.sort_values(["score", "feature"], ascending=[False, True], kind="stable")
    return frame.drop_duplicates("feature").reset_index(drop=True)


def by_id(tables: Tables, vocabulary: StoredVocabulary, row: pd.Series) -> pd.DataFrame:
    """One feature, by its row of features.parquet, with the token it fires on most; score 1."""
    import pandas as pd

    feature = int(row["feature"])
    token, share, coverage, count = "", 0.0, 0.0, 0
    if len(row["top_tokens"]):
        best = int(row["top_tokens"][0])
        query = "select count from token_features where feature = ? and token = ?"
        count = int(tables.rows(query, [feature, best])[0][0])
        token, share = vocabulary.texts[best], float(row["top_shares"][0])
        coverage = count / vocabulary.counts[best]
    found = [feature, token, 1.0, share, coverage, count, float(row["max"]), float(row["density"])]
    return pd.DataFrame([found], columns=COLUMNS)


def _score(tables: Tables, vocabulary: StoredVocabulary, close: dict[int, float]) -> pd.DataFrame:
    tokens = list(close)
    frame = tables.frame(
        """
        select t.feature, t.token as id, t.share, t.count, f.max, f.density
        from token_features t join features f using (feature)
        where t.token in (select unnest(?::int[])) order by t.token, t.feature
        """,
        [tokens],
    )
    ids = frame["id"].to_numpy()
    frame["token"] = [vocabulary.texts[i] for i in ids]
    frame["coverage"] = frame["count"] / [vocabulary.counts[i] for i in ids]
    frame["score"] = [close[i] for i in ids] * _f1(frame)
    return frame


def _score_items(tables: Tables, ends: Array, text: str) -> pd.DataFrame:
    frame = tables.frame(
        """
        with found as (
            select feature, sum(value * weight) as total, sum(weight) as "count" from activations
            where item in (select unnest(?::bigint[])) group by feature
        )
        select feature, least(total / sum, 1) as share, found."count", max, density
        from found join features using (feature) order by feature
        """,
        [ends.tolist()],
    )
    frame["token"] = text
    frame["count"] = frame["count"].round().astype("int64")
    frame["coverage"] = np.minimum(frame["count"] / max(len(ends), 1), 1.0)
    frame["score"] = _f1(frame)
    return frame


def _f1(frame: pd.DataFrame) -> Array:
    share, coverage, n = (frame[name].to_numpy(np.float64) for name in ("share", "coverage", "count"))
    return 2 * share * coverage / np.maximum(share + coverage, 1e-12) * n / (n + 1)


def spelled(source: IndexRows, texts: list[str], text: str) -> Array:
    """Items that end an occurrence of `text` written with several tokens, whatever its case.

    The text of the first token may begin earlier, that of the last may go on; nothing is looked for across contexts.
    """
    wanted = text.strip().lower()
    if not wanted:
        return np.zeros(0, np.int64)
    said = [shown.lower() for shown in texts]
    begins = np.array([_overlap(shown, wanted) for shown in said], np.int64)
    after: dict[int, Array] = {}  # by characters read so far: how many are read after each token; 0 is a miss
    found: list[Array] = []
    for first, tokens in source.all_tokens():
        start = np.flatnonzero(begins[tokens])
        read = begins[tokens[start]]
        for step in range(1, _LONGEST):
            # An occurrence that runs over the end of a block is missed: at most one in 65,536 tokens.
            going = (read < len(wanted)) & (start + step < len(tokens))
            start, read = start[going], read[going]
            if not len(start):
                break
            new = np.zeros(len(start), np.int64)
            for state in np.unique(read).tolist():
                if state not in after:
                    after[state] = np.array([_follow(shown, wanted, state) for shown in said], np.int64)
                new[read == state] = after[state][tokens[start[read == state] + step]]
            start, read = start[new > 0], new[new > 0]
            whole = first + start[read == len(wanted)]
            inside = source.contexts_of(whole)[0] == source.contexts_of(whole + step)[0]
            found.append(whole[inside] + step)
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def _follow(shown: str, wanted: str, read: int) -> int:
    """How much of `wanted` is read when a token follows its first `read` characters; 0 if it cannot."""
    rest = wanted[read:]
    if shown.startswith(rest):
        return len(wanted)
    return read + len(shown) if shown and rest.startswith(shown) else 0


def _overlap(shown: str, wanted: str) -> int:
    """How much of the beginning of `wanted` the end of a token is, as a word's beginning; 0 if it holds all of it."""
    for length in range(min(len(shown), len(wanted) - 1), 0, -1):
        if shown.endswith(wanted[:length]) and not shown[: len(shown) - length].strip():
            return length
    return 0
