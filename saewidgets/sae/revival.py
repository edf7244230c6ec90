"""AuxK: dead features learn to explain what the living ones leave over (Gao et al. 2024, section 2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.across import whole_batch

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.sae import SAE


def aux_k_loss(sae: SAE, x: Tensor, residual: Tensor, dead: Tensor, b_in: Tensor) -> Tensor:
    """How badly the dead features explain what is left over, as a share of its variance: a scalar.

        ehat  = relu(TopK_aux_k(h_dead)) W_dec[dead],   h = (x - b_in) W_enc + b_enc
        L_aux = ||e - ehat||^2 / ||e - mean(e)||^2,     e = `residual`, without gradient

    Its gradient goes to W_enc, b_enc and W_dec of the features `dead` [n_dead], and to nothing else.
    """
    aux_k = min(sae.cfg.aux_k or 1, dead.shape[0])
    h = (x - b_in.detach()) @ sae.W_enc.t()[dead].t() + sae.b_enc[dead]
    f = h.relu()
    if aux_k < dead.shape[0]:
        f = f * (h >= h.detach().topk(aux_k, dim=-1).values.amin(-1, keepdim=True))
    error = (residual - f @ sae.W_dec[dead]).square().sum(1).mean()
    # of the whole batch, where several processes share it
    mean = whole_batch().mean
    variance = mean((residual - mean(residual)).square().sum(1))
    # a perfect reconstruction leaves nothing to explain: 0, not 0 / 0
    explained = error / variance.clamp_min(torch.finfo(x.dtype).tiny)
    return torch.where(variance > 0, explained, torch.zeros_like(error))
