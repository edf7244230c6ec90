"""TokenHeatmap: a prompt, which features fire on which of its tokens, and how strongly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import traitlets
from torch import Tensor

from saewidgets.activations import harvest
from saewidgets.models import to_ids, vocabulary_of
from saewidgets.widgets._base import (
    Answer,
    Params,
    SAEWidget,
    Text,
    feature_in_range,
    source_line,
    token_as_json,
)
from saewidgets.widgets._on_model import ModelView

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.features import FeatureIndex
    from saewidgets.sae import SAE

STRONGEST = 64
"""How many features of a token travel to the screen at least; all k where an SAE has a larger k."""


class TokenHeatmapView(ModelView):
    """What a heatmap shows of one prompt. Plain Python; without an index the scale is the prompt's own."""

    requests: ClassVar[tuple[str, ...]] = ("tokens", "values")

    @property
    def width(self) -> int:
        """How many features of each token travel to the screen."""
        return min(max(STRONGEST, self.sae.cfg.k), self.sae.cfg.d_sae)

    def ids(self, prompt: str) -> Tensor:
        """The prompt's tokens [1, n], begun as the SAE's training contexts were.

        Raises:
            ValueError: the prompt is empty or longer than the model's context.
        """
        return to_ids(self.model, prompt, prepend_bos=self.sae.metadata.prepend_bos)

    def excluded(self, n: int) -> list[int]:
        """The positions of n tokens that this SAE leaves out."""
        return [at for at in self.sae.metadata.excluded_positions if at < n]

    @torch.no_grad()
    def tokens(self, prompt: str) -> Answer:
        """The prompt's n tokens and the strongest features of each.

        Returns:
            `tokens` (text, special, hex), `k`, `whole` (whether these k are all that are active), `excluded`
            (positions that the SAE leaves out), `source` (which SAE it is, in a line), `labels` (feature -> top tokens,
            density, max in the index), and the buffers values float32 [n, k], features int32 [n, k] (strongest first,
            0 where none is left) and probability float32 [n] of each token given those before it (NaN for the first).

        Raises:
            ValueError: the prompt is empty or longer than the model's context.
        """
        ids = self.ids(prompt)
        f = self.sae.encode(harvest(self.model, ids, self.site)[0])
        excluded = self.excluded(len(f))
        f[excluded] = 0.0
        values, features = f.topk(self.width, dim=-1)
        logits = self.model(ids, return_type="logits")[0]
        given = logits[:-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None].to(logits.device)).exp()
        probability = np.concatenate([[np.nan], given[:, 0].cpu().numpy()]).astype("<f4")
        cfg, metadata = self.sae.cfg, self.sae.metadata
        result = {
            "tokens": [token_as_json(token) for token in vocabulary_of(self.model).display(ids[0].tolist())],
            "k": values.shape[1],
            "whole": bool((f > 0).sum() == (values > 0).sum()),
            "excluded": excluded,
            "source": source_line(cfg.architecture, self.site.hook_name, metadata.extra.get("step")),
            "labels": self.labels(torch.unique(features[values > 0]).tolist()),
        }
        buffers = [
            values.cpu().numpy().astype("<f4").tobytes(),
            features.cpu().numpy().astype("<i4").tobytes(),
            probability.tobytes(),
        ]
        return result, buffers

    @torch.no_grad()
    def values(self, prompt: str, features: list[int]) -> Answer:
        """The activations of some features on each of the prompt's n tokens, whether among the strongest or not.

        Returns:
            `features`, as asked, `labels`, and the buffer float32 [features, n].

        Raises:
            ValueError: the prompt is empty or longer than the model's context, or there is no such feature.
        """
        f = self.sae.encode_features(harvest(self.model, self.ids(prompt), self.site)[0], torch.tensor(features))
        f[self.excluded(len(f))] = 0.0
        return {"features": features, "labels": self.labels(features)}, [f.T.cpu().numpy().astype("<f4").tobytes()]

    def labels(self, features: Sequence[int]) -> dict[str, dict[str, Any]]:
        """What the index knows of some features, by id; empty without an index."""
        if self.index is None or not features:
            return {}
        table = self.index.table().set_index("feature").loc[list(features)]
        return {
            str(feature): {"top_tokens": str(row.top_tokens), "density": float(row.density), "max": float(row["max"])}
            for feature, row in table.iterrows()
        }


class TokenHeatmap(SAEWidget):
    """A prompt with one colour scale over its tokens; click a token for its features, a feature to colour by it.

    Args:
        sae, model, index, hook_name: see `ModelView`.
        prompt: The text. Typing another one on the screen sets it here, and setting it here moves the screen.
        feature: The feature that gives the colour; None colours each token by its strongest one.
        features: Features that get a line of their own, all on the same text.
        token: The selected token's position in the prompt, BOS being 0.

    Raises:
        ValueError: the hook does not exist, or the SAE's d_in does not fit it.
        traitlets.TraitError: a feature that the SAE does not have, a token that the prompt does not have.
        TypeError: an unknown option, by name.
    """

    bundle_name: ClassVar[str] = "token_heatmap"

    prompt = Text("", help="The text shown.").tag(sync=True)
    feature = traitlets.Int(None, allow_none=True, help="The feature that gives the colour.").tag(sync=True)
    features = traitlets.List(traitlets.Int(), help="Features with a line of their own.").tag(sync=True)
    token = traitlets.Int(None, allow_none=True, help="The selected position.").tag(sync=True)

    _view: TokenHeatmapView

    def __init__(
        self,
        sae: SAE,
        model: TransformerBridge,
        prompt: str = "Once upon a time",
        *,
        index: FeatureIndex | None = None,
        hook_name: str | None = None,
        **options: Any,
    ) -> None:
        self._d_sae = sae.cfg.d_sae
        super().__init__(TokenHeatmapView(sae, model, index, hook_name), prompt=prompt, **options)
        self.observe(self._let_go_of_the_token, "prompt")

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], self._d_sae)

    @traitlets.validate("features")
    def _features_exist(self, proposal: dict[str, Any]) -> list[int]:
        return [feature for feature in proposal["value"] if feature_in_range(feature, self._d_sae) is not None]

    @traitlets.validate("token")
    def _token_is_a_position(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        n = len(self._view.ids(self.prompt)[0]) if value else 1
        if value is not None and not 0 <= value < n:
            raise traitlets.TraitError(f"There is no token {value}: this prompt has tokens 0 to {n - 1}.")
        return value

    def _let_go_of_the_token(self, _change: object) -> None:
        self.token = None

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "tokens", {"prompt": self.prompt}
        if chosen := sorted({*self.features, *([] if self.feature is None else [self.feature])}):
            yield "values", {"prompt": self.prompt, "features": chosen}

    def shown(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "feature": self.feature}
