"""What a feature's weights say about it, before any text is read: norms, cosines, neighbours, effect on the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saewidgets.features.schema import N_LOGIT_BINS, N_NEIGHBOURS, N_TOP

_CHUNK = 512
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Unembedding:
    """The last linear step from the residual stream to logits."""

    W_U: Tensor
    """[d_model, d_vocab]."""
    gain: Tensor
    """[d_model] the final norm's weight."""
    centred: bool
    """Whether the final norm takes out the mean over d_model (LayerNorm does, RMSNorm does not)."""


def unembedding_of(model: Any) -> Unembedding:
    """Read W_U and the final norm's weight of a TransformerBridge, whatever its weights' processing was."""
    W_U = model.W_U.detach()
    gain = getattr(getattr(model, "ln_final", None), "weight", None)
    if gain is None:
        gain = torch.ones(W_U.shape[0])
    gain = gain.detach()
    if getattr(model.cfg, "rmsnorm_uses_offset", False):  # Gemma keeps weight - 1
        gain = gain + 1
    rms = getattr(model.cfg, "uses_rms_norm", False) or "RMS" in str(getattr(model.cfg, "normalization_type", ""))
    return Unembedding(W_U, gain, centred=not rms)


@dataclass(frozen=True)
class WeightNumbers:
    """What is known of each feature from its weights; arrays have a row per feature.

    The effect on the logits is W_dec[i] through the final norm's weight and W_U, less its mean over the
    vocabulary (softmax does not see a constant): (W_dec[i] * gain) @ W_U - mean. With a LayerNorm the mean over
    d_model is taken out of W_dec[i] first. The norm's division by the residual's size, which depends on the
    text, is left out, and so are the layers in between: this is the direct effect, in logits for one unit of
    activation on a residual of unit size (logit lens, nostalgebraist 2020; direct logit attribution, Elhage et
    al. 2021). Empty where d_in is not d_model: such vectors do not live in the residual stream.
    """

    decoder_norm: Array
    enc_dec_cosine: Array
    neighbours: Array
    """[d_sae, n] other features whose decoder rows are nearest by cosine, nearest first."""
    neighbour_cosines: Array
    positive_tokens: Array
    """[d_sae, N_TOP] tokens whose logit rises most."""
    positive_logits: Array
    negative_tokens: Array
    negative_logits: Array
    logit_histogram: Array
    """[d_sae, N_LOGIT_BINS] counts of tokens, bins linear from logit_min to logit_max."""
    logit_min: Array
    logit_max: Array


@torch.no_grad()
def weight_numbers(
    W_enc: Tensor, W_dec: Tensor, unembedding: Unembedding | None, report: Callable[[float], None]
) -> WeightNumbers:
    """Compute them all. W_enc [d_in, d_sae], W_dec [d_sae, d_in]; `report` hears the share done."""
    W_dec = W_dec.detach().float()
    W_enc = W_enc.detach().float().to(W_dec.device)
    d_sae, d_in = W_dec.shape
    norm = W_dec.norm(dim=1)
    cosine = (W_enc.T * W_dec).sum(1) / (W_enc.norm(dim=0) * norm).clamp_min(1e-12)
    unit = W_dec / norm.clamp_min(1e-12)[:, None]
    n_neighbours = min(N_NEIGHBOURS, d_sae - 1)

    through: Tensor | None = None
    if unembedding is not None and unembedding.W_U.shape[0] == d_in:
        through = unembedding.W_U.float().to(W_dec.device) * unembedding.gain.float().to(W_dec.device)[:, None]
        if unembedding.centred:
            through = through - through.mean(0)  # (d - mean(d)) @ A = d @ (A - mean over rows of A)
        through = through - through.mean(1, keepdim=True)
    n_top = 0 if through is None else min(N_TOP, through.shape[1])

    parts: dict[str, list[Array]] = {}

    def keep(name: str, value: Tensor) -> None:
        parts.setdefault(name, []).append(value.cpu().numpy())

    for start in range(0, d_sae, _CHUNK):
        rows = slice(start, min(start + _CHUNK, d_sae))
        similar = unit[rows] @ unit.T
        similar[torch.arange(len(similar)), torch.arange(rows.start, rows.stop)] = -torch.inf
        near = similar.topk(n_neighbours, dim=1)
        keep("neighbours", near.indices)
        keep("neighbour_cosines", near.values)
        if through is not None:
            effect = W_dec[rows] @ through
            top, bottom = effect.topk(n_top, dim=1), effect.topk(n_top, dim=1, largest=False)
            keep("positive_tokens", top.indices)
            keep("positive_logits", top.values)
            keep("negative_tokens", bottom.indices)
            keep("negative_logits", bottom.values)
            low, high = bottom.values[:, :1], top.values[:, :1]
            bins = ((effect - low) / (high - low).clamp_min(1e-12) * N_LOGIT_BINS).long().clamp_(0, N_LOGIT_BINS - 1)
            bins += torch.arange(len(bins), device=bins.device)[:, None] * N_LOGIT_BINS
            keep("logit_histogram", bins.flatten().bincount(minlength=len(bins) * N_LOGIT_BINS).view(-1, N_LOGIT_BINS))
            keep("logit_min", low[:, 0])
            keep("logit_max", high[:, 0])
        report(rows.stop / d_sae)

    def whole(name: str, width: int | None = None) -> Array:
        if name in parts:
            return np.concatenate(parts[name])
        return np.full(d_sae, np.nan, np.float32) if width is None else np.zeros((d_sae, width))

    return WeightNumbers(
        decoder_norm=norm.cpu().numpy(),
        enc_dec_cosine=cosine.cpu().numpy(),
        neighbours=whole("neighbours", 0),
        neighbour_cosines=whole("neighbour_cosines", 0),
        positive_tokens=whole("positive_tokens", 0),
        positive_logits=whole("positive_logits", 0),
        negative_tokens=whole("negative_tokens", 0),
        negative_logits=whole("negative_logits", 0),
        logit_histogram=whole("logit_histogram", 0),
        logit_min=whole("logit_min"),
        logit_max=whole("logit_max"),
    )
