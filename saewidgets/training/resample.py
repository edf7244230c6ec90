"""New directions for dead features (Bricken et al. 2023, "Towards Monosemanticity", appendix on resampling)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from saewidgets.sae import SAE

ENCODER_SHARE = 0.2
"""Length of a new encoder direction, as a share of the living ones' mean."""

SHARED = ("b_dec", "W_skip")
"""Parameters without a row per feature."""


@torch.no_grad()
def resample(
    sae: SAE,
    dead: Tensor,
    x: Tensor,
    residual: Tensor,
    state: Mapping[str, Mapping[str, Tensor]],
    generator: torch.Generator,
) -> None:
    """Point the features `dead` [n_dead] at vectors that the SAE explains badly.

    A vector of the batch x [n, d_in] (scaled) is chosen with a probability proportional to the square of its loss,
    ||residual||^4. The feature's decoder row becomes the direction of x - b_dec, as long as the living rows are on
    average; its encoder the same direction, a fifth as long as theirs; its bias 0, and other parameters what they began
    with. `state`: the optimizer's moments by parameter name, a row per feature, which are forgotten for these features.
    """
    alive = torch.ones(sae.cfg.d_sae, dtype=torch.bool, device=sae.device)
    alive[dead] = False
    # with no living feature, every length is as good as another
    weight = alive / alive.sum().clamp_min(1)
    loss = residual.square().sum(1).double().cpu()
    chances = loss.square()
    if not (torch.isfinite(chances).all() and chances.sum() > 0):
        return
    chosen = torch.multinomial(chances, len(dead), replacement=True, generator=generator).to(x.device)
    directions = torch.nn.functional.normalize(x[chosen] - sae.b_dec, dim=1)
    sae.W_enc.t()[dead] = directions * (ENCODER_SHARE * (sae.W_enc.norm(dim=0) * weight).sum())
    sae.W_dec[dead] = directions * (sae.W_dec.norm(dim=1) * weight).sum()
    sae.b_enc[dead] = 0.0
    initial = sae.architecture.parameters(sae.cfg, torch.Generator().manual_seed(sae.cfg.seed))
    for name, value in initial.items():
        if name not in SHARED:
            sae.get_parameter(name)[dead] = value.to(sae.device)[dead]
    for name, moments in state.items():
        if name not in SHARED:
            for moment in moments.values():
                if moment.ndim:  # not the count of steps
                    moment[dead] = 0.0
