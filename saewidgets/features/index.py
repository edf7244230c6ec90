"""`FeatureIndex`: what an SAE's features do on a text, stored as Parquet and asked through DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saewidgets.features import examples, search, summary
from saewidgets.features.inputs import check_inputs
from saewidgets.features.matching import Wanted
from saewidgets.features.query import Tables
from saewidgets.features.rows import IndexRows
from saewidgets.features.schema import N_BINS, read_meta
from saewidgets.features.vocabulary import StoredVocabulary

if TYPE_CHECKING:
    import os

    import pandas as pd
    import plotly.graph_objects as go

    from saewidgets.models.tokens import Token
    from saewidgets.progress import Report
    from saewidgets.sae import SAE

Array = npt.NDArray[Any]


class FeatureIndex:
    """An opened index folder. Everything is a query; nothing of the model is needed; any thread may ask.

    Made by `FeatureIndex.build(sae, model, texts, path)` or `FeatureIndex.open(path)`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        """The folder."""
        self.meta: dict[str, Any] = read_meta(self.path)
        """What was indexed: model, hook, hashes of the inputs, SAE metadata, counts, seed."""
        self._tables = Tables(self.path)
        self._rows = IndexRows(self.path, self._tables, self.meta["n_items"])
        self._vocabulary = StoredVocabulary(self._tables)

    @classmethod
    def build(
        cls,
        sae: SAE,
        model: Any,
        texts: Any,
        path: str | os.PathLike[str],
        *,
        hook_name: str | None = None,
        context_size: int | None = None,
        max_tokens: int | None = 200_000,
        seed: int = 0,
        overwrite: bool = False,
        memory_limit: str = "2GB",
        row_cap: int = 20_000,
        on_progress: Report | None = None,
    ) -> FeatureIndex:
        """Run the model over texts once, and write which features are active where into the folder `path`.

        A folder that holds the same index (same weights, texts and options) is opened without work. The folder
        appears when it is whole: an interrupted build leaves nothing. A copy of the SAE is taken first, so that one
        that is being trained can be indexed.

        Args:
            texts: strings, token ids or a Hugging Face dataset, as `ActivationStream` takes them.
            hook_name: where the SAE reads, if its metadata do not say.
            context_size: tokens the model sees at once; default the SAE's own, else 128.
            max_tokens: positions to scan, whole contexts drawn from the texts by `seed`; None scans everything.
            seed: of that draw, and of the rows kept of very dense features.
            overwrite: replace another index in this folder.
            memory_limit: for DuckDB's sort, like "500MB"; what does not fit is sorted on disk.
            row_cap: activations stored of one feature; of a denser one its strongest contexts and a weighted draw of
                the others are stored (see `features.sort`). Counts, histograms and means are exact all the same.
            on_progress: called with (phase, share done); by default a bar is shown under IPython.

        Raises:
            ValueError: an SAE that does not fit the hook, empty texts, options out of range, NaN activations, and
                activations below 0: an index holds those above 0, so SAEs with signed codes (abstopk, linear dense)
                are indexed as `sw.split_signs(sae)`, a feature for each side with a maximum and a density of its own.
            FileExistsError: the folder holds another index, or anything that is none.
        """
        from saewidgets.features.build import build_index

        build_index(
            sae,
            model,
            texts,
            Path(path),
            hook_name=hook_name,
            context_size=context_size,
            max_tokens=max_tokens,
            seed=seed,
            overwrite=overwrite,
            memory_limit=memory_limit,
            row_cap=row_cap,
            on_progress=on_progress,
        )
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], sae: SAE | None = None, texts: Any = None) -> FeatureIndex:
        """Open an index folder; with `sae` or `texts`, check that it was built on just these.

        Raises FileNotFoundError where there is no finished index, ValueError where it is damaged, too new, or of
        another SAE or other texts.
        """
        index = cls(path)
        check_inputs(index.path, index.meta, sae, texts)
        return index

    # ── what it is ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def d_sae(self) -> int:
        """How many features there are, dead ones included."""
        return int(self.meta["d_sae"])

    @property
    def n_tokens(self) -> int:
        """How many token positions were scanned."""
        return int(self.meta["n_tokens"])

    @property
    def hook_name(self) -> str:
        """Where in the model the SAE reads."""
        return str(self.meta["hook_name"])

    @property
    def model_name(self) -> str:
        """The language model."""
        return str(self.meta["model_name"] or "model")

    @property
    def name(self) -> str:
        """What to call it in a list of indexes."""
        return f"{self.model_name} · {self.hook_name} · {self.d_sae:,} features"

    def __repr__(self) -> str:
        return (
            f"FeatureIndex({self.d_sae} features of {self.meta['architecture']} SAE on {self.hook_name}, "
            f"{self.n_tokens:,} tokens, path={str(self.path)!r})"
        )

    def check_feature(self, feature: Any) -> int:
        """The feature as an int; raises ValueError (TypeError for no whole number) if the index has none such."""
        if isinstance(feature, bool) or not isinstance(feature, int | np.integer):
            raise TypeError(f"a feature is a whole number, 0 to {self.d_sae - 1}, not {feature!r}")
        if not 0 <= feature < self.d_sae:
            raise ValueError(f"feature {feature} is not in this index: it holds 0 to {self.d_sae - 1}")
        return int(feature)

    def tokens(self, ids: Iterable[int]) -> list[Token]:
        """What tokens look like, from the vocabulary stored with the index."""
        return self._vocabulary.tokens(ids)

    # ── all features ──────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _features(self) -> pd.DataFrame:
        return self._tables.frame("select * from features order by feature")

    def table(self) -> pd.DataFrame:
        """A row per feature, dead ones included; lists are joined to text (`sql` gives them as lists).

        Columns: feature, density (share of scanned tokens), count, max, mean (over its activations), top_tokens (by
        summed activation), top_logits, bottom_logits (direct effect, see `logits`), decoder_norm, enc_dec_cosine,
        nearest (feature by decoder cosine), nearest_cosine, top_position, top_position_share, flags.
        """
        return summary.feature_table(self._features, self._vocabulary.texts)

    def sql(self, query: str) -> pd.DataFrame:
        """The answer to one SQL query that reads: over activations, items, features, token_features, vocabulary.

        Raises ValueError for anything that writes, reads other files, or is no single query.
        """
        return self._tables.read_only(query)

    def search(self, text: str | int, n: int = 50) -> pd.DataFrame:
        """Features that fire on a token, best first; or the feature with an id, as 412 or "#412".

        " bridge" finds the token that says exactly this before "Bridge" and before "bridges"; a text that takes
        several tokens is found by what fires on its last one. See `features.search` for the score. A text that is
        all digits is an id as well, and comes first.

        Columns: feature, token, score (0 to 1), share (of the feature's activation that is on the token), coverage
        (share of the token's places where it fires), count (of its activations there), max and density of the
        feature. Where nothing matches the frame is empty, and `.attrs["message"]` says so in a sentence.

        Raises ValueError for an empty text, or an id that the index does not hold.
        """
        if not isinstance(text, str):
            text = f"#{self.check_feature(text)}"
        if not text:
            raise ValueError("the text to search for is empty; give a token such as ' bridge', or an id such as '#412'")
        if (wanted := Wanted(text)).is_number_only:
            self.check_feature(wanted.number)
        return search.find(self._tables, self._vocabulary, self._rows, self._features, text, n)

    def best_of_tokens(self, n: int = 16, most: int = 40_000) -> pd.DataFrame:
        """The n best features of every scanned token, each with the `score` that a search for just this token gives it.

        Columns: token (its id), feature, score; by token, best first. At most `most` rows: where these are too few for
        all, every token keeps its best before any has its second. The first features of a `search` can be had from
        it without the index, unless no single token says the text.
        """
        return search.best_of_tokens(self._tables, self._vocabulary, n, most)

    def plot(self) -> go.Figure:
        """A histogram of log10 density over the features that are alive; the dead are counted in the title."""
        return summary.density_plot(self._features["density"].to_numpy(), self.n_tokens)

    # ── one feature ───────────────────────────────────────────────────────────────────────────────────────────

    def row(self, feature: int) -> dict[str, Any]:
        """Everything features.parquet holds of one feature, as plain Python values."""
        row = self._features.iloc[self.check_feature(feature)]
        return {name: summary.plain(value) for name, value in row.items()}

    def examples(
        self,
        feature: int,
        n: int = 20,
        kind: str | tuple[float, float] = "top",
        window: int | None = 10,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Windows of text around n places where a feature is active.

        Args:
            kind: "top", the strongest; "random", every activation equally likely; (lo, hi), a random choice of those
                with lo <= value < hi (an interval that reaches the maximum includes it), strongest first.
            window: tokens on each side, inside the same context; None for the whole context.
            seed: of the random choices.

        Near-identical windows (the same tokens around the peak) are shown once; "top" and intervals also leave out
        a peak that stands in a window shown already. Columns: rank, value (at the peak), item, context, position,
        doc (which text), token, text (of the peak), peak (its place in the window), and the window's tokens, texts
        and values (activations of this feature, 0 where it is silent).
        """
        feature = self.check_feature(feature)
        rows = self._rows.of_feature(feature)
        items = examples.chosen(self._rows, rows, kind, n, window, seed, feature)
        return examples.windows(self._rows, rows, items, window, self._vocabulary.texts)

    def windows(self, feature: int, places: Sequence[tuple[int, int]], window: int | None = 10) -> pd.DataFrame:
        """The windows around given places (context, position), with a feature's activations; as `examples`.

        A value is 0 as well where a row of a very dense feature was not stored. Raises ValueError for a place outside
        the index.
        """
        rows = self._rows.of_feature(self.check_feature(feature))
        items = [self._rows.item_at(context, position) for context, position in places]
        return examples.windows(self._rows, rows, items, window, self._vocabulary.texts)

    def histogram(self, feature: int) -> tuple[Array, Array]:
        """(counts [40], edges [41]): its activations in equal steps from 0 to its maximum; exact, nothing sampled."""
        row = self._features.iloc[self.check_feature(feature)]
        return np.asarray(row["histogram"], np.int64), np.linspace(0.0, float(row["max"]), N_BINS + 1)

    def intervals(self, feature: int, n: int = 5) -> pd.DataFrame:
        """n equal steps from 0 to the maximum, highest first: lo, hi, count (exact), share of its activations.

        `examples(feature, kind=(lo, hi))` shows one. Empty for a dead feature.
        """
        return summary.interval_table(*self.histogram(feature), n)

    def quantiles(self, feature: int, q: Sequence[float] = (0.5, 0.9, 0.99)) -> list[float]:
        """Values below which these shares of its activations lie; from the stored rows by weight. 0 for a dead one."""
        return self._rows.of_feature(self.check_feature(feature)).quantiles(q)

    def logits(self, feature: int, n: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(positive, negative): the tokens whose logit it raises and lowers most; at most 10 each.

        Columns token, text, value: direct effect in logits for one unit of activation, above the vocabulary's mean
        (see `features.weights`). Empty where the SAE does not read the residual stream's width.
        """
        row = self._features.iloc[self.check_feature(feature)]
        return summary.logit_tables(row, n, self._vocabulary.texts)

    def logit_histogram(self, feature: int) -> tuple[Array, Array]:
        """(counts [40], edges [41]) of the direct effect over all tokens; both empty where `logits` is."""
        return summary.logit_histogram(self._features.iloc[self.check_feature(feature)])

    def similar(self, feature: int, n: int = 5) -> pd.DataFrame:
        """Features like this one: relation, feature, value, top_tokens; at most 5 of each relation.

        "decoder": nearest by cosine of the decoder rows. "coactive": those active on the same tokens, by the cosine
        of their activity, n_ab / sqrt(n_a n_b), counted on a sample of the tokens (see `features.coactive`).
        """
        return summary.similar_table(self._features, self.check_feature(feature), n, self._vocabulary.texts)
