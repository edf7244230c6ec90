"""An SAE whose features are spread over several processes: for dictionaries that one GPU cannot hold.

Process r of N holds features r d_sae / N to (r + 1) d_sae / N: their columns of W_enc, rows of W_dec, moments, counts.
b_dec is everyone's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, Losses
from saewidgets.sae.architectures.topk import TopK
from saewidgets.sae.initial import unit_rows
from saewidgets.sae.kernels import decode, encode_topk
from saewidgets.training.distributed import Ranks, RankSAE
from saewidgets.training.step import Readings, Steps

_FEATURES_AT = {"W_enc": 1, "W_dec": 0, "b_enc": 0}
"""Where the features are in a weight; b_dec and the scales have none."""


class _SumOverRanks(torch.autograd.Function):
    """y = sum of everyone's x. Everyone goes on with the same y, so the gradient of y is that of each x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        return ranks.sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        return gradients[0], None


class _SumGradients(torch.autograd.Function):
    """y = x, used by everyone for something else: the gradient of x is the sum of everyone's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        return ctx.ranks.sum(gradients[0]), None


class ShardedTopK(TopK):
    """`TopK`, AuxK included, with the features spread over processes; the same equations.

    Each process takes its own k best features of a vector; the k-th best of all is looked up among these, and what is
    below it is dropped. Reconstructions are sums of everyone's part. A step sends n k values from all to all and sums
    [n, d_out] once, with AuxK twice; no gradient of a weight is ever sent.

    Not for multi_k. Features that tie with the k-th best stay, which makes more than k of them.
    """

    def __init__(self, cfg: SAEConfig, ranks: Ranks) -> None:
        self.whole, self.ranks = cfg, ranks

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        # NaN in any process's gradient of b_enc is NaN in everyone's of b_dec: all skip a bad step, or none
        b_in = _SumGradients.apply(sae.b_dec, self.ranks)
        values, _, places = encode_topk(x, sae.W_enc, sae.b_enc, b_in, min(knobs.k, sae.cfg.d_sae))
        values = values * (values.detach() >= self._kth_best(values.detach(), knobs.k))
        nothing = torch.zeros_like(sae.b_dec)
        xhat = _SumOverRanks.apply(decode(values, places, sae.W_dec, nothing), self.ranks) + sae.b_dec
        difference = target - xhat
        residual = difference.detach()
        loss, extra = difference.square().mean(), {}
        if dead is not None:
            auxiliary = self._auxiliary_loss(sae, x, residual, dead)
            loss, extra["aux_loss"] = loss + self.whole.aux_coefficient * auxiliary, auxiliary.detach()
        return Losses(loss, residual, places.count((values.detach() > 0).to(x.dtype)), extra)

    def _auxiliary_loss(self, sae: SAE, x: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        """`revival.aux_k_loss`; some processes may have no dead feature at all."""
        aux_k = self.whole.aux_k or 1
        h = (x - sae.b_dec.detach()) @ sae.W_enc.t()[dead].t() + sae.b_enc[dead]
        best = h.detach().topk(min(aux_k, len(dead)), dim=-1).values
        best = torch.nn.functional.pad(best, (0, aux_k - best.shape[1]), value=-torch.inf)
        f = h.relu() * (h.detach() >= self._kth_best(best, aux_k))
        ehat = _SumOverRanks.apply(f @ sae.W_dec[dead], self.ranks)
        error = (residual - ehat).square().sum()
        variance = (residual - residual.mean(0)).square().sum()
        explained = error / variance.clamp_min(torch.finfo(x.dtype).tiny)
        return torch.where(variance > 0, explained, torch.zeros_like(error))

    def _kth_best(self, candidates: Tensor, k: int) -> Tensor:
        """Of each process's best [n, m], the k-th best of all, [n, 1]."""
        everyones = self.ranks.gather(candidates).movedim(0, 1).flatten(1)
        return everyones.topk(min(k, everyones.shape[1]), dim=-1).values.amin(-1, keepdim=True)


class ShardedSteps(Steps):
    """`Steps` on a part of the features: what is said of all of them is added up."""

    def find_dead(self) -> None:
        counts = self.deaths.clone(), self.births.clone()
        super().find_dead()
        here = self.dead if self.dead is not None else self.silent.new_zeros(0)
        new = torch.stack([self.deaths - counts[0], self.births - counts[1], self.silent.new_tensor(len(here))])
        deaths, births, n_dead = _ranks(self.sae).sum(new)
        self.deaths, self.births = counts[0] + deaths, counts[1] + births
        # AuxK is the work of all, or of none
        self.dead = here if int(n_dead) else None

    def read(self) -> Readings:
        ranks, said = _ranks(self.sae), super().read()
        share = torch.tensor(said.dead_fraction / ranks.size, dtype=self.wide, device=self.sae.device)
        return dataclasses.replace(said, dead_fraction=float(ranks.sum(share)))

    def _count(self, target: Tensor, losses: Losses, bad: Tensor) -> None:
        super()._count(target, losses, bad)
        here = losses.fired.sum().to(self.wide)
        self.sums[3] += torch.where(bad, 0.0, _ranks(self.sae).sum(here) - here)


def check_spreads(cfg: SAEConfig, size: int) -> None:
    """ValueError, as a sentence, if the features of such an SAE cannot be spread over so many processes."""
    if cfg.architecture != "topk" or cfg.multi_k is not None:
        raise ValueError(
            "Features can be spread over processes for architecture='topk' without multi_k, got "
            f"{cfg.architecture!r}{' with multi_k' if cfg.multi_k is not None else ''}. Take split='data'."
        )
    if cfg.d_sae % size or cfg.k > cfg.d_sae // size:
        raise ValueError(
            f"d_sae={cfg.d_sae} cannot be spread over {size} processes: it must be a multiple of their number, "
            f"with at least k={cfg.k} features on each."
        )


def feature_sharded(cfg: SAEConfig, ranks: Ranks, device: str | torch.device = "cpu") -> RankSAE:
    """This process's part of an SAE: with `cfg.seed`, the same initial weights as those of an SAE in one piece.

    Raises what `check_spreads` raises: for another architecture than topk, for a d_sae that cannot be spread evenly.
    """
    check_spreads(cfg, ranks.size)
    n = cfg.d_sae // ranks.size
    part = dataclasses.replace(cfg, d_sae=n, aux_k=min(cfg.aux_k or 1, n))
    sae = RankSAE(part, ShardedTopK(cfg, ranks), None, device)
    rows, _ = unit_rows(cfg, ranks.rank * n, (ranks.rank + 1) * n)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.t())
    return sae


def whole_cfg(sae: SAE) -> SAEConfig:
    """The config of the SAE of which this is a part, or of one that is whole; with the k that is trained with now."""
    architecture = sae.architecture
    return dataclasses.replace(architecture.whole, k=sae.cfg.k) if isinstance(architecture, ShardedTopK) else sae.cfg


def whole_sae(sae: SAE) -> SAE | None:
    """An SAE of `feature_sharded` in one piece, on the CPU of process 0, and None in the others; another one as it is.

    All processes must ask. Process 0 needs memory for the whole and for one part more.
    """
    architecture = sae.architecture
    if not isinstance(architecture, ShardedTopK):
        return sae
    ranks, n = architecture.ranks, sae.cfg.d_sae
    whole = SAE(whole_cfg(sae), sae.metadata) if ranks.rank == 0 else None
    weights = {} if whole is None else whole.state_dict()
    for name, part in sae.state_dict().items():
        if name in _FEATURES_AT:
            at = _FEATURES_AT[name]
            for rank, rows in enumerate(ranks.in_turn(part.movedim(at, 0).cpu().contiguous())):
                weights[name].movedim(at, 0)[rank * n : (rank + 1) * n] = rows
        elif whole is not None:
            weights[name].copy_(part)
    return whole


def as_part(tensor: Tensor, features_at: int | None) -> DTensor:
    """A tensor as the part of a whole: features lie in dimension `features_at`; None: everyone has the same."""
    mesh = init_device_mesh(tensor.device.type, (Ranks().size,))
    placement: Placement = Replicate() if features_at is None else Shard(features_at)
    return DTensor.from_local(tensor, mesh, [placement], run_check=False)


def features_at(name: str, parameters: list[str]) -> int | None:
    """Where the features are in a tensor of a checkpoint: `sae.W_dec`, `steps.silent`, `steps.optimizer.0.exp_avg`."""
    room, _, rest = name.partition(".")
    if room == "sae":
        return _FEATURES_AT.get(rest)
    if rest in ("silent", "was_dead"):
        return 0
    kind, _, rest = rest.partition(".")
    number, _, moment = rest.partition(".")
    # the optimizer's W_enc lies [d_sae, d_in], as in memory
    moments = kind == "optimizer" and moment != "step"
    return 0 if moments and parameters[int(number)] in _FEATURES_AT else None


def _ranks(sae: SAE) -> Ranks:
    ranks: Ranks = sae.architecture.ranks  # type: ignore[attr-defined]
    return ranks
