"""What a dashboard shows of a feature of an index: numbers, histograms, examples, related features. Plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from saewidgets.features import FLAGS
from saewidgets.widgets._base import Answer, Params, finite, source_line, token_as_json
from saewidgets.widgets._examples import packed

if TYPE_CHECKING:
    import pandas as pd

    from saewidgets.features import FeatureIndex

INTERVALS = 5
"""Into how many intervals of equal width, 0 to its maximum, a feature's activations are divided."""
EXAMPLES = {"top": 20, "random": 12}
"""Examples shown of a group; an interval shows `PER_INTERVAL`, a brushed range as many as "top"."""
PER_INTERVAL = 8
GROUPS: tuple[str | int, ...] = (*EXAMPLES, *range(INTERVALS))
"""What examples may be asked for by name: "top", "random", and the intervals by number, 0 being the highest."""
WINDOW = 256
"""Tokens on each side of a peak that travel to the screen: the whole context of any usual SAE."""
FROM_ITEMS = 200_000
"""Tokens that are read to see which of them are whole words."""


def most_telling(index: FeatureIndex, n: int) -> list[int]:
    """The n features that are best looked at first: those active on several whole words, often enough to prove it.

        score = count / (count + 100) * sum over its top tokens that are whole words of min(share, 1/4)

    share is of the feature's summed activation, so that no word alone makes a feature telling. A token is a whole word
    where it is a space and at least three letters and is mostly not followed by a token that goes on with a letter.
    Features with a flag, active fewer than 20 times or on more than 1 % of tokens come after all others; equal ones in
    the order of how often they are active.
    """
    found = index.sql(
        f"""
        with pairs as (
            select token, lead(token) over (order by item) as next from items where item < {FROM_ITEMS}
        ), words as (
            select pairs.token
            from pairs join vocabulary word using (token) join vocabulary follows on follows.token = next
            where regexp_full_match(word.text, '\\s\\p{{L}}{{3,}}') group by pairs.token
            having avg((not follows.hex and regexp_matches(follows.text, '^\\p{{L}}'))::int) < 0.5
        ), tops as (
            select feature, unnest(top_tokens) as token, unnest(top_shares) as share from features
        ), scores as (
            select feature, sum(least(share, 0.25)) as on_words from tops semi join words using (token) group by feature
        )
        select feature from features left join scores using (feature)
        order by len(flags) = 0 and count >= 20 and density <= 0.01 desc,
            count / (count + 100) * on_words desc nulls last, count desc, feature
        limit {int(n)}
        """
    )
    return [int(feature) for feature in found["feature"]]


class FeatureDashboardView:
    """What a dashboard shows of a feature. Plain Python: everything is a question to the index.

    Args:
        index: The index; no model is needed.
    """

    requests: ClassVar[tuple[str, ...]] = ("feature", "related", "examples")

    def __init__(self, index: FeatureIndex) -> None:
        self.index = index

    @property
    def d_sae(self) -> int:
        """How many features there are."""
        return self.index.d_sae

    @property
    def source(self) -> str:
        """Which SAE was indexed, in a line."""
        step = self.index.meta["sae"].get("metadata", {}).get("step")
        return source_line(self.index.meta["architecture"], self.index.hook_name, step)

    @cached_property
    def features(self) -> pd.DataFrame:
        """What the index holds of all features, a row each; lists stay lists."""
        return self.index.sql(
            """
            select density, count, max, mean, decoder_norm, enc_dec_cosine, histogram, top_tokens, top_shares, flags,
                positive_tokens, positive_logits, negative_tokens, negative_logits
            from features order by feature
            """
        )

    def row(self, feature: int) -> dict[str, Any]:
        """One row of `features`. Raises ValueError if the index has no such feature."""
        row: dict[str, Any] = self.features.iloc[self.index.check_feature(feature)].to_dict()
        return row

    def feature(self, feature: int) -> Answer:
        """Its measures, intervals and logit effects.

        Returns:
            The numbers, `tokens` (its top tokens) with their `shares` of its activation, `flags` (sentences),
            `intervals` (low, high, share; highest first), `positive` and `negative` (tokens with `value`), `source`
            (which SAE it is, in a line), and the buffers activation counts int32 [n], edges float32 [n + 1], logit
            counts int32 [m], edges float32 [m + 1] (both empty where the index holds no effect on logits).

        Raises:
            ValueError: the index has no such feature.
        """
        row = self.row(feature)
        intervals = self.index.intervals(feature, INTERVALS)
        counts, edges = self.index.histogram(feature)
        logit_counts, logit_edges = self.index.logit_histogram(feature)
        numbers = ("density", "max", "mean", "decoder_norm", "enc_dec_cosine")
        result = {
            "feature": int(feature),
            "source": self.source,
            "n_tokens": self.index.n_tokens,
            "count": int(row["count"]),
            **{name: finite(row[name]) for name in numbers},
            "tokens": self._tokens(row["top_tokens"]),
            "shares": [float(share) for share in row["top_shares"]],
            "flags": [f"{flag}: {FLAGS.get(flag, flag)}" for flag in row["flags"]],
            "intervals": [
                {"low": float(each.lo), "high": float(each.hi), "share": float(each.share)}
                for each in intervals.itertuples()
            ],
            "positive": self._effects(row["positive_tokens"], row["positive_logits"]),
            "negative": self._effects(row["negative_tokens"], row["negative_logits"]),
        }
        buffers = [
            np.asarray(counts).astype("<i4").tobytes(),
            np.asarray(edges).astype("<f4").tobytes(),
            np.asarray(logit_counts).astype("<i4").tobytes(),
            np.asarray(logit_edges if len(logit_counts) else []).astype("<f4").tobytes(),
        ]
        return result, buffers

    def related(self, feature: int) -> Answer:
        """Features like it: `decoder` (nearest by cosine of decoder rows) and `coactive` (active on the same tokens).

        Raises:
            ValueError: the index has no such feature.
        """
        result: dict[str, Any] = {"decoder": [], "coactive": []}
        for each in self.index.similar(feature).itertuples():
            tokens = self._tokens(self.row(int(each.feature))["top_tokens"][:4])
            result[each.relation].append({"feature": int(each.feature), "value": float(each.value), "tokens": tokens})
        return result, []

    def linked(self, feature: int) -> list[int]:
        """The features that its dashboard links to, each once: the nearest, then those active together with it."""
        return list(dict.fromkeys(self.index.similar(feature)["feature"].tolist()))

    def examples(
        self,
        feature: int,
        group: str | int = "top",
        range: Sequence[float] | None = None,
        window: int = WINDOW,
    ) -> Answer:
        """Texts where it is active, each with the place of its peak.

        Args:
            feature: Which one.
            group: "top" (the strongest), "random" (any of its activations), or an interval, 0 being the highest.
            range: (low, high): activations in here instead, strongest first.
            window: Tokens on each side of a peak, as far as its context goes.

        Returns:
            `texts`, `special`, `hex`: the distinct tokens; `lengths`, `peaks`, `positions`, `contexts` of the
            examples; and the buffers tokens uint16 (all examples one after the other, by place in `texts`), the
            places of active tokens int32 among them, and their activations float32.

        Raises:
            ValueError: the index has no such feature, the group is unknown, or the range is empty.
        """
        kind, n = self._kind(feature, group, range)
        return packed([self.index.examples(feature, n=n, kind=kind, window=window)], self.index.tokens)

    def _kind(self, feature: int, group: str | int, bounds: Sequence[float] | None) -> tuple[Any, int]:
        if bounds is not None:
            low, high = bounds
            return (float(low), float(high)), EXAMPLES["top"]
        if isinstance(group, str):
            if group not in EXAMPLES:
                raise ValueError(group_sentence(group))
            return group, EXAMPLES[group]
        intervals = self.index.intervals(feature, INTERVALS)
        if not 0 <= group < len(intervals):
            raise ValueError(f"Feature #{feature} has no interval {group}: it has {len(intervals)}.")
        return (float(intervals["lo"].iloc[group]), float(intervals["hi"].iloc[group])), PER_INTERVAL

    def _tokens(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        return [token_as_json(token) for token in self.index.tokens(ids)]

    def _effects(self, ids: Sequence[int], values: Sequence[float]) -> list[dict[str, Any]]:
        return [{**token, "value": float(value)} for token, value in zip(self._tokens(ids), values, strict=True)]

    def recorded(self, feature: int, window: int = WINDOW) -> Iterable[tuple[str, Params]]:
        """What a page without a kernel must carry to show this feature."""
        yield "feature", {"feature": feature}
        yield "related", {"feature": feature}
        if self.row(feature)["count"] > 0:
            for group in GROUPS:
                yield "examples", {"feature": feature, "group": group, "window": window}


def group_sentence(value: object) -> str:
    """What a group of examples may be, said of one that is none."""
    return (
        f"There is no group {value!r} of examples: it is 'top', 'random', or the number of an interval, "
        f"0 (the highest) to {INTERVALS - 1}."
    )
