"""What the views that run the model stand on: a model, an SAE that fits one of its hooks, and perhaps an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saewidgets.activations import check_fits
from saewidgets.models import share

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.features import FeatureIndex
    from saewidgets.sae import SAE


class ModelView:
    """The model, a copy of the SAE, the place where it belongs.

    Args:
        sae: The SAE whose features are meant; copied, since a run may be writing it.
        model: A bridge; its hook is `hook_name`, or the one the SAE was trained on.
        index: Where a feature's maximum, density and top tokens come from.

    Raises:
        ValueError: the hook does not exist, or the SAE's d_in does not fit it.
    """

    def __init__(
        self, sae: SAE, model: TransformerBridge, index: FeatureIndex | None = None, hook_name: str | None = None
    ) -> None:
        self.site = check_fits(sae, model, hook_name)
        self.sae = sae.clone()
        self.model = share(model)
        self.index = index
