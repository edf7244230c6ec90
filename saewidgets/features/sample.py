"""A little text as vectors in memory: what a feature of any SAE fires on most, without running the model again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from saewidgets.activations.contexts import Contexts
from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import HookSite
from saewidgets.features import examples
from saewidgets.features.rows import FeatureRows
from saewidgets.models.lock import lock_of
from saewidgets.models.tokens import device_of, vocabulary_of
from saewidgets.sae.strongest import active, strongest

if TYPE_CHECKING:
    import pandas as pd

    from saewidgets.sae import SAE

Array = npt.NDArray[Any]
_LARGEST = torch.finfo(torch.float16).max


class TextSample:
    """Contexts of a text and the model's vectors at one hook, read once, for SAEs that change while the text does not.

    An index answers far more, from far more text, but of one SAE, and takes a minute. This answers one question of each
    of a run's snapshots: `examples`. Of 20,000 tokens that takes 0.01 to 0.03 CPU-seconds for an SAE of d_in 288, d_sae
    2,304; for d_in 768, d_sae 16,384 0.08 (topk) to 0.3 (gated, half of the features active), and 0.17 for a feature
    of a topk that is active on 2 of them (tests/benchmarks/look_back.py). An architecture without an `upper_bound`
    (matching_pursuit) has the code of all tokens taken each time. Vectors are kept in half precision, n_tokens * d_in
    * 2 bytes (20,000 of width 768: 31 MB); what float16 cannot hold is cut to 65,504.

    Args:
        model: A `TransformerBridge`; it runs when the first question is asked.
        contexts: The text.
        site: The hook, as `check_fits` finds it.
        excluded_positions: Positions of a context at which no SAE is asked.

    Raises:
        ValueError: no position is left, or the model has no tokenizer.
    """

    def __init__(
        self, model: Any, contexts: Contexts, site: HookSite, excluded_positions: Sequence[int] = (0,)
    ) -> None:
        self.site = site
        self._model = model
        self._vocabulary = vocabulary_of(model)
        mask = contexts.mask.cpu()
        asked = torch.ones(mask.shape[1], dtype=torch.bool)
        asked[[p for p in excluded_positions if p < len(asked)]] = False
        self._contexts, self._asked = contexts, asked
        # items are the positions that hold text; rows are those of them at which an SAE is asked
        self._tokens = contexts.tokens.cpu()[mask].numpy()
        self._context_of = mask.nonzero()[:, 0].numpy()
        self.starts: Array = np.append(0, mask.sum(1).cumsum(0).numpy())
        scanned = (mask & asked)[mask].numpy()
        self._item_of_row = np.flatnonzero(scanned)
        self._row_of_item = np.where(scanned, np.cumsum(scanned) - 1, -1)
        self.n_tokens = len(self._item_of_row)
        """Positions at which an SAE is asked: every count refers to them."""
        if not self.n_tokens:
            raise ValueError("The text is too short: no position is left to look at. Pass longer texts.")
        self._vectors = torch.empty(self.n_tokens, site.d_in, dtype=torch.float16)
        self._n_read = 0  # contexts

    def __repr__(self) -> str:
        return f"TextSample({self.n_tokens:,} tokens at {self.site.hook_name!r})"

    def read(self) -> Iterator[float]:
        """Read what is not read yet, a forward a step; gives the share that is read, and nothing when all is.

        The model's lock is held for one forward at a time, and guards what is read: threads that ask at once share
        the work, and a run that trains on the same model goes on between two forwards.
        """
        per_forward = 8 if device_of(self._model).type == "cpu" else 32
        n = len(self._contexts)
        while self._n_read < n:
            with lock_of(self._model):
                if self._n_read < n:
                    self._read_next(per_forward)
                share = self._n_read / n
            yield share

    def _read_next(self, per_forward: int) -> None:
        some = self._contexts[slice(self._n_read, self._n_read + per_forward)]
        mask = some.mask.cpu()
        width = int(mask.sum(1).max())
        wanted = (mask & self._asked)[:, :width]
        x = harvest(self._model, some.tokens[:, :width], self.site)[wanted.to(device_of(self._model))]
        before = int((self._item_of_row < self.starts[self._n_read]).sum())
        self._vectors[before : before + len(x)] = x.float().clamp(-_LARGEST, _LARGEST).cpu().half()
        self._n_read += len(some)

    def examples(self, sae: SAE, feature: int, n: int = 8, window: int | None = 10) -> pd.DataFrame:
        """Windows of text around the n places where a feature of an SAE is most active, as `FeatureIndex.examples`.

        Reads the text first, where that is not done. `sae`: a frozen one, of this hook, as `run.sae_at(step)` gives.

        Raises ValueError for a feature that the SAE does not have, vectors that are not as wide as it reads, n below 1.
        """
        if n < 1:
            raise ValueError(f"n={n} examples are not possible; ask for at least 1.")
        for _ in self.read():
            pass
        items: list[int] = []
        values, rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        for more in strongest(sae, self._vectors, feature):
            values, rows = torch.cat([values, more[0]]), torch.cat([rows, more[1]])
            found = self._rows(rows, values)
            # near-identical windows are shown once, so that it may take more than n places
            items = examples.chosen_items(self, found, np.arange(len(found.items)), n, window, apart=True)
            if len(items) == n:
                break
        return examples.windows(self, self._around(sae, feature, items, window), items, window, self._texts)

    def _around(self, sae: SAE, feature: int, items: list[int], window: int | None) -> FeatureRows:
        """The feature's activations in the windows around some items."""
        spans = [np.arange(*examples.window_of(self, item, window)) for item in items]
        rows = self._row_of_item[np.unique(np.concatenate([*spans, np.zeros(0, np.int64)]).astype(np.int64))]
        asked = torch.from_numpy(rows[rows >= 0])
        values, which = active(sae, self._vectors[asked], feature)
        return self._rows(asked[which], values)

    def _rows(self, rows: torch.Tensor, values: torch.Tensor) -> FeatureRows:
        items = self._item_of_row[rows.numpy()]
        return FeatureRows(items, values.numpy(), np.ones(len(items)), np.argsort(items, kind="stable"))

    def tokens(self, first: int, last: int) -> Array:
        """Token ids of items first to last, `last` not included."""
        return self._tokens[first:last]

    def docs(self, items: Sequence[int] | Array) -> list[int]:
        """The text that each item comes from."""
        return [int(self._contexts.doc[int(self._context_of[item])]) for item in items]

    @cached_property
    def _texts(self) -> dict[int, str]:
        return {token: self._vocabulary.token(token).text for token in np.unique(self._tokens).tolist()}
