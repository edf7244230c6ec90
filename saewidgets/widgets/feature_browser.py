"""FeatureBrowser: a table of all features of an index, or of one of several, and the selected one's dashboard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import traitlets

from saewidgets.features import FLAGS
from saewidgets.widgets._base import Answer, Params, Text, feature_in_range
from saewidgets.widgets.feature_dashboard import DashboardTraits
from saewidgets.widgets.feature_dashboard_view import FeatureDashboardView, most_telling

if TYPE_CHECKING:
    from saewidgets.features import FeatureIndex

SPARK_BINS = 20
"""Bars of a row's small histogram: two of the index's bins each."""
TOKENS_IN_A_ROW = 6
MOST_FOUND = 1000
"""Features that a search gives, best first."""
RECORDED = 90
"""Features that an exported page carries whole: at 29 kB each, 3.6 MB with the table and scores of the embedded SAE."""
FOUND_RECORDED = 16
"""Features of each token that a search without a kernel can find: its first are those that the index finds."""
SCORES_RECORDED = 40_000
"""Of all tokens together; 8 bytes each; beyond it each token has fewer than the above."""
RECORDED_WINDOW = 24
"""Tokens on each side of a peak that an exported page carries; with 32 a feature takes a third more."""
SORTS = ("match", "feature", "density", "max", "mean", "cosine")
"""What rows may be sorted by; "match" is best match first while something is searched, by number otherwise."""


class FeatureBrowserView:
    """What a browser shows. Plain Python: one dashboard view per index, and the tables.

    Args:
        indexes: One or more; each is called by its `name`, with a number behind it where two are called the same.

    Raises:
        ValueError: no index is given.
    """

    requests: ClassVar[tuple[str, ...]] = ("table", "search", "matches", "feature", "related", "examples")

    def __init__(self, indexes: Sequence[FeatureIndex]) -> None:
        if not indexes:
            raise ValueError("A FeatureBrowser needs at least one index: FeatureBrowser(index).")
        self.dashboards: dict[str, FeatureDashboardView] = {}
        for index in indexes:
            name, number = index.name, 1
            while name in self.dashboards:
                number += 1
                name = f"{index.name} ({number})"
            self.dashboards[name] = FeatureDashboardView(index)

    @property
    def names(self) -> list[str]:
        """What the indexes are called."""
        return list(self.dashboards)

    def dashboard(self, index: str) -> FeatureDashboardView:
        """The dashboard view of the index of this name.

        Raises:
            ValueError: no index is called so.
        """
        if index not in self.dashboards:
            raise ValueError(index_sentence(index, self.names))
        return self.dashboards[index]

    def table(self, index: str) -> Answer:
        """All features of an index, column by column.

        Returns:
            `d_sae`, `n_tokens`, `flags` (names, bit 0 first) with `meanings`, `bars`; and the buffers density
            float32 [d_sae], count int32, max float32, mean float32, encoder/decoder cosine float32, flags uint8 (a
            bit each), small histograms uint8 [d_sae, bars] (heights on a log scale, 255 the feature's tallest),
            number of top tokens uint8, their lengths in bytes uint16, their texts in UTF-8 one after the other, their
            kinds uint8 (0 text, 1 special, 2 hex).

        Raises:
            ValueError: no index is called so.
        """
        source, rows = self.dashboard(index).index, self.dashboard(index).features
        names = list(FLAGS)
        flags = np.array([sum(1 << names.index(flag) for flag in row if flag in names) for row in rows["flags"]])
        tops = [[int(token) for token in row[:TOKENS_IN_A_ROW]] for row in rows["top_tokens"]]
        result = {
            "d_sae": source.d_sae,
            "n_tokens": source.n_tokens,
            "flags": names,
            "meanings": [FLAGS[name] for name in names],
            "bars": SPARK_BINS,
        }
        return result, [
            *(rows[name].to_numpy().astype(kind).tobytes() for name, kind in (("density", "<f4"), ("count", "<i4"))),
            *(rows[name].to_numpy().astype("<f4").tobytes() for name in ("max", "mean", "enc_dec_cosine")),
            flags.astype("u1").tobytes(),
            spark_heights(np.stack(rows["histogram"].to_list())).tobytes(),
            np.array([len(row) for row in tops]).astype("u1").tobytes(),
            *_written(source, [token for row in tops for token in row]),
        ]

    def search(self, index: str, query: str) -> Answer:
        """The features that fire on a token that says `query` (or the feature "#412"), best first.

        Returns:
            `message` (a sentence where nothing is found, else None), and the buffer features int32.

        Raises:
            ValueError: the query is empty, names a feature that does not exist, or no index is called so.
        """
        found = self.dashboard(index).index.search(query, n=MOST_FOUND)
        return {"message": found.attrs.get("message")}, [found["feature"].to_numpy().astype("<i4").tobytes()]

    def matches(self, index: str) -> Answer:
        """What a page without a kernel searches in: the best features of every token (`FeatureIndex.best_of_tokens`).

        Returns:
            `n` (features of a token, at most), and the buffers features of each token uint16, features int32, their
            scores float32 (token after token, best first), and the tokens as in `table`: lengths in bytes uint16,
            texts, kinds.

        Raises:
            ValueError: no index is called so.
        """
        source = self.dashboard(index).index
        best = source.best_of_tokens(FOUND_RECORDED, SCORES_RECORDED)
        tokens, counts = np.unique(best["token"].to_numpy(), return_counts=True)
        return {"n": FOUND_RECORDED}, [
            counts.astype("<u2").tobytes(),
            best["feature"].to_numpy().astype("<i4").tobytes(),
            best["score"].to_numpy().astype("<f4").tobytes(),
            *_written(source, tokens.tolist()),
        ]

    def feature(self, index: str, feature: int) -> Answer:
        """See `FeatureDashboardView.feature`."""
        return self.dashboard(index).feature(feature)

    def related(self, index: str, feature: int) -> Answer:
        """See `FeatureDashboardView.related`."""
        return self.dashboard(index).related(feature)

    def examples(self, index: str, feature: int, **which: Any) -> Answer:
        """See `FeatureDashboardView.examples`."""
        return self.dashboard(index).examples(feature, **which)


class FeatureBrowser(DashboardTraits):
    """All features in a table to sort, filter and search; the selected one's dashboard beside it.

    Args:
        index: An index, or a list of them: then the first step is to choose one, by its name.
        feature: The selected feature; without one, the most telling of the index.
        index_name: Which index, where there are several.
        sort, descending: What the rows are sorted by: "match", "feature", "density", "max", "mean" or "cosine".
        query: A token, or "#412"; only features that fire on it are listed.
        hide_dead, hide_dense: Leave out features that are never active, or on more than 10 % of tokens.
        recorded: How many features an exported page carries with their examples (see `most_telling`).
        range, group, context: What the dashboard shows of it, see `FeatureDashboard`.

    Raises:
        ValueError: no index is given.
        traitlets.TraitError: a feature, index or order that does not exist.
        TypeError: an unknown option, by name.
    """

    bundle_name: ClassVar[str] = "feature_browser"

    index_name = traitlets.Unicode(help="The name of the index shown.").tag(sync=True)
    sort = traitlets.Enum(SORTS, "match", help="What the rows are sorted by.").tag(sync=True)
    descending = traitlets.Bool(False, help="Largest first.").tag(sync=True)
    query = Text("", help="What is searched.").tag(sync=True)
    hide_dead = traitlets.Bool(True, help="Leave out features that are never active.").tag(sync=True)
    hide_dense = traitlets.Bool(False, help="Leave out features active on more than 10 % of tokens.").tag(sync=True)
    recorded = traitlets.Int(RECORDED, min=0, help="How many features an exported page carries whole.")

    _names = traitlets.List(traitlets.Unicode(), help="What the indexes are called.").tag(sync=True)

    _view: FeatureBrowserView

    def __init__(
        self, index: FeatureIndex | Sequence[FeatureIndex], feature: int | None = None, **options: Any
    ) -> None:
        indexes = list(index) if isinstance(index, (list, tuple)) else [index]
        view = FeatureBrowserView(indexes)  # type: ignore[arg-type]
        name = options.setdefault("index_name", view.names[0])
        if name not in view.dashboards:
            raise traitlets.TraitError(index_sentence(name, view.names))
        given = most_telling(view.dashboard(name).index, 1)[0] if feature is None else feature
        super().__init__(view, feature=given, **options)
        self.observe(self._let_go_of_the_range, "feature")
        self.observe(self._begin_anew, "index_name")

    @traitlets.default("_names")
    def _default_names(self) -> list[str]:
        return self._view.names

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], self._view.dashboard(self.index_name).d_sae)

    @traitlets.validate("index_name")
    def _index_exists(self, proposal: dict[str, Any]) -> str:
        name: str = proposal["value"]
        if name not in self._view.dashboards:
            raise traitlets.TraitError(index_sentence(name, self._view.names))
        return name

    def _begin_anew(self, change: object) -> None:
        """Another index has other features: neither the number nor the range of the old one means anything in it."""
        self._let_go_of_the_range(change)
        self.feature = most_telling(self._view.dashboard(self.index_name).index, 1)[0]

    def recorded_features(self) -> list[int]:
        """The features that an exported page carries: the selected one, those it is linked to, and the most telling."""
        dashboard = self._view.dashboard(self.index_name)
        first = [self.feature, *dashboard.linked(self.feature), *most_telling(dashboard.index, self.recorded)]
        return sorted(list(dict.fromkeys(first))[: self.recorded + 1])

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        name = self.index_name
        yield "table", {"index": name}
        yield "matches", {"index": name}
        for feature in self.recorded_features():
            for method, params in self._view.dashboard(name).recorded(feature, RECORDED_WINDOW):
                yield method, {"index": name, **params}

    def snapshot(self) -> dict[str, Any]:
        taken = super().snapshot()
        recorded = self.recorded_features()
        taken["state"].update(_names=self._view.names, _recorded=recorded, _window=RECORDED_WINDOW)
        return taken

    def shown(self) -> dict[str, Any]:
        return {"index_name": self.index_name, "feature": self.feature}


def spark_heights(histograms: np.ndarray) -> np.ndarray:
    """Heights of the small histograms, uint8 [n, SPARK_BINS]: log(1 + count) as a share of each row's tallest bar.

    Args:
        histograms: Counts [n, bins], bins a multiple of SPARK_BINS.
    """
    n, bins = histograms.shape
    logs = np.log1p(histograms.reshape(n, SPARK_BINS, bins // SPARK_BINS).sum(2, dtype=np.float64))
    tallest = logs.max(1, keepdims=True)
    # What is there stays visible: one activation among a million is a bar of one step.
    return np.ceil(255 * np.divide(logs, tallest, out=np.zeros_like(logs), where=tallest > 0)).astype("u1")


def index_sentence(name: str, names: Sequence[str]) -> str:
    """Which indexes there are, said where one is asked for that is none."""
    return f"There is no index {name!r} in this browser: it holds {', '.join(map(repr, names))}."


def _written(source: FeatureIndex, tokens: Sequence[int]) -> list[bytes]:
    """Tokens one after the other: lengths in bytes uint16, texts in UTF-8, kinds uint8 (0 text, 1 special, 2 hex)."""
    known = {token.id: token for token in source.tokens(sorted(set(tokens)))}
    texts = [known[token].text.encode("utf-8", "replace") for token in tokens]
    kinds = [2 if known[token].hex else int(known[token].special) for token in tokens]
    return [np.array([len(text) for text in texts]).astype("<u2").tobytes(), b"".join(texts), bytes(kinds)]
