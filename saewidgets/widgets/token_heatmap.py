"""TokenHeatmap: a prompt, which features fire on which of its tokens, and how strongly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import traitlets

from saewidgets.activations import check_fits, harvest
from saewidgets.models import share, to_ids, vocabulary_of
from saewidgets.widgets._base import Answer, Params, SAEWidget, feature_in_range

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.features import FeatureIndex
    from saewidgets.sae import SAE

STRONGEST = 64
"""How many features of a token travel to the screen: more than k of any usual SAE, and the list below shows fewer."""


class TokenHeatmapView:
    """What a heatmap shows of one prompt. Plain Python: model, SAE and (for names and scales) an index.

    Args:
        sae: The SAE whose features are shown.
        model: A bridge; its hook is `hook_name`, or the one the SAE was trained on.
        index: Where a feature's maximum, density and top tokens come from; without it the scale is the prompt's own.

    Raises:
        ValueError: the hook does not exist, or the SAE's d_in does not fit it.
    """

    requests: ClassVar[tuple[str, ...]] = ("tokens",)

    def __init__(
        self, sae: SAE, model: TransformerBridge, index: FeatureIndex | None = None, hook_name: str | None = None
    ) -> None:
        self.site = check_fits(sae, model, hook_name)
        self.sae = sae.clone()
        self.model = share(model)
        self.index = index

    @torch.no_grad()
    def tokens(self, prompt: str) -> Answer:
        """The prompt's n tokens and the strongest features of each.

        Returns:
            `tokens` (text, special, hex), `k`, `labels` (feature -> top tokens, density, max in the index), and the
            buffers values float32 [n, k], features int32 [n, k] (strongest first, 0 where none is left) and
            probability float32 [n] of each token given those before it (NaN for the first).

        Raises:
            ValueError: the prompt is empty or longer than the model's context.
        """
        ids = to_ids(self.model, prompt)
        x = harvest(self.model, ids, self.site)[0]
        f = self.sae.encode(x)
        f[[at for at in self.sae.metadata.excluded_positions if at < len(f)]] = 0.0
        values, features = f.topk(min(STRONGEST, self.sae.cfg.d_sae), dim=-1)
        logits = self.model(ids, return_type="logits")[0]
        given = logits[:-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None].to(logits.device)).exp()
        probability = np.concatenate([[np.nan], given[:, 0].cpu().numpy()]).astype("<f4")
        shown = vocabulary_of(self.model).display(ids[0].tolist())
        active = torch.unique(features[values > 0]).tolist()
        result = {
            "tokens": [{"text": token.text, "special": token.special, "hex": token.hex} for token in shown],
            "k": values.shape[1],
            "labels": self.labels(active),
        }
        buffers = [
            values.cpu().numpy().astype("<f4").tobytes(),
            features.cpu().numpy().astype("<i4").tobytes(),
            probability.tobytes(),
        ]
        return result, buffers

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
        sae, model, index, hook_name: see `TokenHeatmapView`.
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

    prompt = traitlets.Unicode("", help="The text shown.").tag(sync=True)
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

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], self._d_sae)

    @traitlets.validate("features")
    def _features_exist(self, proposal: dict[str, Any]) -> list[int]:
        return [feature for feature in proposal["value"] if feature_in_range(feature, self._d_sae) is not None]

    @traitlets.validate("token")
    def _token_is_a_position(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        n = len(to_ids(self._view.model, self.prompt)[0]) if value else 1
        if value is not None and not 0 <= value < n:
            raise traitlets.TraitError(f"There is no token {value}: this prompt has tokens 0 to {n - 1}.")
        return value

    @traitlets.observe("prompt")
    def _let_go_of_the_token(self, _change: object) -> None:
        self.token = None

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "tokens", {"prompt": self.prompt}

    def shown(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "feature": self.feature}
