"""What edits do to the next token of a prompt: the fast path of a slider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.activations.hooks import check_fits
from saewidgets.activations.resume import run_halfway, run_on
from saewidgets.interventions.edits import Edits
from saewidgets.interventions.steering import edit_hooks
from saewidgets.models.tokens import to_ids

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE


class NextToken:
    """The next-token distribution of one prompt under edits; only the layers after the hook run for each.

    The prompt is run once, when this is made. Its answers are exactly those of a full forward under `steering`.
    """

    def __init__(
        self, model: Any, sae: SAE, prompt: str | Sequence[int] | Tensor, hook_name: str | None = None
    ) -> None:
        """Run the prompt.

        Args:
            prompt: Text, or token ids that are taken as they are (but for BOS in front, as the SAE was trained).

        Raises:
            ValueError: an SAE that does not fit, or a prompt that is empty or too long.
        """
        self.model = model
        self.site = check_fits(sae, model, hook_name)
        self.sae = sae.clone() if any(weight.requires_grad for weight in sae.parameters()) else sae
        self.tokens = to_ids(model, prompt, prepend_bos=sae.metadata.prepend_bos)
        """The prompt's token ids, `[1, n]`."""
        self._halfway = run_halfway(model, self.tokens, self.site)

    @property
    def baseline(self) -> Tensor:
        """The model's own probabilities `[vocabulary]`, float32 on the CPU."""
        return _probabilities(self._halfway.logits)

    def probabilities(self, edits: Edits) -> Tensor:
        """Probabilities `[vocabulary]` of the next token under edits, float32 on the CPU.

        Raises:
            ValueError: a feature id out of range.
        """
        return _probabilities(self._logits(edits))

    def kl(self, edits: Edits) -> float:
        """KL(baseline || edited) of the next token, in nats."""
        clean, edited = (
            logits[0, -1].float().log_softmax(-1) for logits in (self._halfway.logits, self._logits(edits))
        )
        return float((clean.exp() * (clean - edited)).sum().clamp_min(0))

    def activations(self, features: Sequence[int] | Tensor) -> Tensor:
        """Activations `[n, len(features)]` of some features on the prompt's tokens, before any edit.

        At positions that the SAE leaves out (BOS) they are 0.

        Raises:
            ValueError: a feature id out of range.
        """
        with torch.no_grad():
            f = self.sae.encode_features(self._halfway.vectors[0].float(), torch.as_tensor(features).long()).cpu()
        f[[p for p in self.sae.metadata.excluded_positions if p < len(f)]] = 0.0
        return f

    def _logits(self, edits: Edits) -> Tensor:
        hooks = edit_hooks(self.sae, self.model, edits, self.site.hook_name)
        return run_on(self.model, self._halfway, hooks[0][1]) if hooks else self._halfway.logits


def _probabilities(logits: Tensor) -> Tensor:
    return logits[0, -1].float().softmax(-1).cpu()
