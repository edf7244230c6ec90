"""Codes with signs, as a feature for each sign."""

from __future__ import annotations

import torch

from saewidgets.sae.sae import SAE


@torch.no_grad()
def split_signs(sae: SAE) -> SAE:
    """The same SAE with a feature for each sign of a feature, whose activations are all 0 or more; frozen.

        f' = (relu(f), relu(-f)),   W_dec' = (W_dec; -W_dec),   W_enc' = (W_enc, -W_enc),   b_enc' = (b_enc, -b_enc)

    So feature i is the positive side of feature i, feature d_sae + i its negative side, and f' W_dec' = f W_dec. The
    two are never active on the same vector, so the density of the signed feature is the sum of theirs. An `abstopk`
    SAE becomes a `topk` SAE of the same k, a linear `dense` one a `dense` one with relu: both exactly.

    Raises ValueError for an SAE whose activations have no signs.
    """
    cfg = sae.architecture.without_signs(sae.cfg)
    if cfg is None:
        raise ValueError(f"The activations of {sae.cfg.architecture!r} have no signs to split: use the SAE as it is.")
    signed = sae.clone()
    both = SAE(cfg, signed.metadata, signed.device)
    for parameter, value in (
        (both.W_enc, torch.cat([signed.W_enc, -signed.W_enc], dim=1)),
        (both.W_dec, torch.cat([signed.W_dec, -signed.W_dec])),
        (both.b_enc, torch.cat([signed.b_enc, -signed.b_enc])),
        (both.b_dec, signed.b_dec),
    ):
        parameter.copy_(value)
    return both.requires_grad_(False).eval()
