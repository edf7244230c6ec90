"""Transcoders: read one hook, predict another (Dunefsky et al. 2024; with a skip connection, Paulo et al. 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.architectures.topk import check_k
from saewidgets.sae.kernels import decode, encode_topk, topk_code
from saewidgets.sae.revival import aux_k_loss
from saewidgets.sae.selection import column, outdone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("transcoder")
class Transcoder(Architecture):
    """A sparse stand-in for a part of the model: x goes into it (as of an MLP), y [d_out] comes out of it:

        f    = relu(TopK_k((x - centre) W_enc + b_enc))
        yhat = f W_dec + b_dec
        L    = ||y - yhat||^2 / d_out  +  aux_coefficient * L_aux          (L_aux as in `topk`, with e = y - yhat)

    Mean over the batch. centre is the mean of the first x and not trained: what `b_dec` is for an autoencoder's input
    (saving folds it into b_enc). x and y are scaled each by their own factor. Decoder rows have length 1 and begin at
    random, for where a feature writes has nothing to do with what it reads. TopK as in the second source; the first
    has ReLU and L1. (SAELens has no TopK transcoder, so its library cannot read one that is saved.)
    """

    reads = frozenset({"k", "aux_k", "aux_coefficient", "d_out"})
    predicts_target = True

    def validate(self, cfg: SAEConfig) -> None:
        check_k(cfg)

    def buffers(self, cfg: SAEConfig) -> dict[str, Tensor]:
        return {"centre": torch.zeros(cfg.d_in, dtype=getattr(torch, cfg.dtype))}

    def prepare(self, sae: SAE, x: Tensor, target: Tensor) -> None:
        centre(sae).copy_(x.mean(0))

    def rescale(self, sae: SAE, read: Tensor, write: Tensor) -> None:
        centre(sae).div_(read)

    def save(self, sae: SAE) -> dict[str, Tensor]:
        tensors = super().save(sae)
        b_in = tensors.pop("centre")
        folded = {**tensors, "b_enc": tensors["b_enc"] - b_in @ tensors["W_enc"]}
        if self.skips:
            folded["b_dec"] = folded["b_dec"] - b_in @ folded["W_skip"]
            folded["W_skip"] = folded["W_skip"].t()
        return folded

    def load(self, sae: SAE, tensors: Mapping[str, Tensor]) -> None:
        skip = {"W_skip": tensors["W_skip"].t()} if self.skips else {}
        super().load(sae, {**tensors, **skip, "centre": torch.zeros_like(centre(sae))})

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() and (x.requires_grad or sae.W_enc.requires_grad):
            values, indices, _ = encode_topk(x, sae.W_enc, sae.b_enc, centre(sae), sae.cfg.k)
            return values, indices
        return topk_code(x, sae.W_enc, sae.b_enc, centre(sae), sae.cfg.k)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return column(x, sae.W_enc, sae.b_enc, centre(sae), feature).relu()

    def outdone(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return outdone(x, sae.W_enc, sae.b_enc, centre(sae), sae.cfg.k, feature)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        f, _, places = encode_topk(x, sae.W_enc, sae.b_enc, centre(sae), knobs.k)
        predicted = decode(f, places, sae.W_dec, sae.b_dec)
        skipped = self.skip(sae, x)
        difference = target - (predicted if skipped is None else predicted + skipped)
        residual = difference.detach()
        losses = Losses(difference.square().mean(), residual, places.count((f.detach() > 0).to(x.dtype)))
        if dead is not None:
            auxiliary = aux_k_loss(sae, x, residual, dead, centre(sae))
            losses.loss = losses.loss + sae.cfg.aux_coefficient * auxiliary
            losses.extra["aux_loss"] = auxiliary.detach()
        return losses


@register("skip_transcoder")
class SkipTranscoder(Transcoder):
    """`transcoder` with what is linear taken off the features:

        yhat = f W_dec + b_dec + (x - centre) W_skip

    W_skip [d_in, d_out] begins with zeros (Paulo et al. 2025).
    """

    skips = True

    def parameters(self, cfg: SAEConfig, generator: Generator) -> dict[str, Tensor]:
        return {"W_skip": torch.zeros(cfg.d_in, cfg.d_out or cfg.d_in, dtype=getattr(torch, cfg.dtype))}

    def rescale(self, sae: SAE, read: Tensor, write: Tensor) -> None:
        super().rescale(sae, read, write)
        sae.get_parameter("W_skip").mul_(read * write)

    def skip(self, sae: SAE, x: Tensor) -> Tensor:
        return (x - centre(sae)) @ sae.get_parameter("W_skip")


def centre(sae: SAE) -> Tensor:
    """What is taken off the input, [d_in]."""
    return sae.get_buffer("centre")
