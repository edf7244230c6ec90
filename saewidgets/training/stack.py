"""The gradients of many SAEs of equal shape on the same batch, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, Losses
from saewidgets.sae.kernels import CHUNK_ELEMENTS, Places
from saewidgets.sae.revival import aux_k_loss
from saewidgets.sae.selection import MOST
from saewidgets.training.config import TrainConfig

STACKED = ("topk", "abstopk", "batchtopk")
"""Architectures that differ only in which preactivations stay, a number of them that is known beforehand."""


def stack_key(cfg: SAEConfig, config: TrainConfig) -> tuple[str, int, str] | None:
    """SAEs on the same vectors whose keys are equal can be stacked; None for one that is stepped by itself."""
    if cfg.architecture not in STACKED or cfg.multi_k is not None or config.precision != "float32" or config.compile:
        return None
    return cfg.architecture, cfg.d_sae, cfg.normalize


class Stack:
    """SAEs of one shape and one architecture of STACKED whose weights lie in one block: m of them, a weight [m, ...].

    The SAEs stay what they are; their parameters become views of the block. `gradients` gives what each would get by
    itself, in the same order of sums: on a CPU the same bits. Each SAE has its own k: the code is a list of places
    (`Places`), and one with a smaller k has fewer of them, so nothing is padded or masked.

        h     = (x - b_dec) W_enc + b_enc             one `baddbmm`; top-k over those of equal k at once
        f     = what stays of h                       by the rule of the architecture
        xhat  = f W_dec + b_dec                       one `embedding_bag`, feature j of SAE i having the id i d_sae + j
        L     = ||x - xhat||^2 / d_in + aux_coefficient * L_aux
    """

    def __init__(self, saes: Sequence[SAE]) -> None:
        self.saes = list(saes)
        self.d_sae, self.architecture = saes[0].cfg.d_sae, saes[0].cfg.architecture
        with torch.no_grad():
            # as the weights of one SAE lie, a row per feature
            self.W_enc = torch.stack([sae.W_enc.t() for sae in saes])
            self.W_dec, self.b_enc, self.b_dec = (
                torch.stack([sae.get_parameter(name) for sae in saes]) for name in ("W_dec", "b_enc", "b_dec")
            )
        for i, sae in enumerate(saes):
            sae.W_enc.data = self.W_enc[i].t()
            sae.W_dec.data, sae.b_enc.data, sae.b_dec.data = self.W_dec[i], self.b_enc[i], self.b_dec[i]

    def gradients(
        self, x: Tensor, knobs: Sequence[Knobs], dead: Sequence[Tensor | None]
    ) -> list[tuple[Losses, list[Tensor]]]:
        """Losses of the batch x [n, d_in] (scaled), and their gradients by the order of `named_parameters`, per SAE.

        `dead`: for each SAE, as in `Architecture.loss`.
        """
        with torch.no_grad():
            found = self._of_reconstruction(x, [knob.k for knob in knobs])
        for sae, features, (losses, by_name) in zip(self.saes, dead, found, strict=True):
            if features is not None:
                _add_aux(sae, x, features, losses, by_name)
        return [
            (losses, [by_name[name] for name, _ in sae.named_parameters()])
            for sae, (losses, by_name) in zip(self.saes, found, strict=True)
        ]

    def _of_reconstruction(self, x: Tensor, ks: Sequence[int]) -> list[tuple[Losses, dict[str, Tensor]]]:
        """Without AuxK. The backward pass is written out: what autograd gives for one SAE, see `sae.kernels`."""
        m, n, d_in = len(self.saes), *x.shape
        values, places, vectors = self._code(x, ks)
        flat = self.W_dec.view(-1, d_in)
        difference = x - places.sum_by_vector(values, flat).view(m, n, d_in).add_(self.b_dec.unsqueeze(1))
        loss = difference.square().mean((1, 2))
        g_xhat = (difference * (-2 / (n * d_in))).view(-1, d_in)
        active, g_h = values != 0, places.dot(g_xhat, flat)
        if self.architecture != "abstopk":  # the others are cut at 0, and so is their gradient
            g_h = torch.where(active, g_h, 0.0)
        g_b_enc = places.count(g_h).view(m, -1)
        g_W_enc = places.sum_by_feature(g_h, x, vectors).view(m, -1, d_in)
        g_W_enc.addcmul_(g_b_enc.unsqueeze(2), self.b_dec.unsqueeze(1), value=-1)
        g_b_dec = g_xhat.view(m, n, d_in).sum(1)
        g_b_dec -= torch.bmm(self.W_enc.transpose(1, 2), g_b_enc.unsqueeze(2)).squeeze(2)
        g_W_dec = places.sum_by_feature(values, g_xhat).view(m, -1, d_in)
        fired = places.count(active.to(x.dtype)).view(m, -1)
        extra: list[dict[str, Tensor]] = [{} for _ in ks]
        if self.architecture == "batchtopk":
            smallest = torch.where(active, values, torch.inf).split([n * k for k in ks])
            extra = [{"threshold": those.amin()} for those in smallest]
        return [
            (
                Losses(loss[i], difference[i], fired[i], extra[i]),
                {"W_enc": g_W_enc[i].t(), "b_enc": g_b_enc[i], "W_dec": g_W_dec[i], "b_dec": g_b_dec[i]},
            )
            for i in range(m)
        ]

    def _code(self, x: Tensor, ks: Sequence[int]) -> tuple[Tensor, Places, Tensor]:
        """What stays of all SAEs: the values, their places, and which row of x each place belongs to, all [places]."""
        n, device = len(x), x.device
        of_batch = self.architecture == "batchtopk"
        widths = [min(self.d_sae, MOST * k) if of_batch else k for k in ks]
        values, features = self._largest(x, widths)
        vectors = [torch.arange(n, device=device).repeat_interleave(width) for width in widths]
        if of_batch:
            # of what each vector gave up, the largest of the whole batch, as in `selection.batch_top`
            sizes = [n * width for width in widths]
            chosen = [
                of_one.topk(n * k, sorted=False).indices.sort().values
                for of_one, k in zip(values.split(sizes), ks, strict=True)
            ]
            vectors = [rows[those] for rows, those in zip(vectors, chosen, strict=True)]
            values = torch.cat([v[those] for v, those in zip(values.split(sizes), chosen, strict=True)])
            features = torch.cat([f[those] for f, those in zip(features.split(sizes), chosen, strict=True)])
        if self.architecture != "abstopk":
            values.relu_()
        rows = torch.cat([of_one + i * n for i, of_one in enumerate(vectors)])
        return values, Places.uneven(rows, features, len(ks) * n, len(ks) * self.d_sae), torch.cat(vectors)

    def _largest(self, x: Tensor, widths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The `widths` largest preactivations of each vector, and their ids, of one SAE behind the other: flat."""
        n = len(x)
        sizes = [n * width for width in widths]
        values, features = x.new_empty(sum(sizes)), torch.empty(sum(sizes), dtype=torch.int64, device=x.device)
        per_sae = list(zip(values.split(sizes), features.split(sizes), widths, strict=True))
        for first, row, h in self._preactivations(x):
            for width, same in groupby(range(first, first + len(h)), key=lambda i: widths[i]):
                some = list(same)
                theirs = h[some[0] - first : some[-1] + 1 - first]
                if self.architecture == "abstopk":
                    indices = theirs.abs().topk(width, dim=-1, sorted=False).indices
                    found = theirs.gather(-1, indices)
                else:
                    found, indices = theirs.topk(width, dim=-1, sorted=False)
                for i, value, index in zip(some, found, indices, strict=True):
                    own_values, own_features, _ = per_sae[i]
                    rows = slice(row, row + h.shape[1])
                    own_values.view(n, width)[rows] = value
                    own_features.view(n, width)[rows] = index + i * self.d_sae
        return values, features

    def _preactivations(self, x: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """(first SAE, first row, [SAEs, rows, d_sae]), as much at a time as CHUNK_ELEMENTS allows."""
        n, m = len(x), len(self.saes)
        rows = max(1, min(n, CHUNK_ELEMENTS // self.d_sae))
        at_once = max(1, min(m, CHUNK_ELEMENTS // (rows * self.d_sae))) if rows == n else 1
        memory = x.new_empty(at_once, rows, self.d_sae)
        for first in range(0, m, at_once):
            some = slice(first, min(first + at_once, m))
            for row in range(0, n, rows):
                centred = x[row : row + rows] - self.b_dec[some].unsqueeze(1)
                h = memory[: centred.shape[0], : centred.shape[1]]
                torch.baddbmm(self.b_enc[some].unsqueeze(1), centred, self.W_enc[some].transpose(1, 2), out=h)
                yield first, row, h


def _add_aux(sae: SAE, x: Tensor, dead: Tensor, losses: Losses, by_name: dict[str, Tensor]) -> None:
    """Add AuxK to one SAE's losses and gradients: its dead features are its own."""
    auxiliary = aux_k_loss(sae, x, losses.residual, dead, sae.b_dec)
    weighted = sae.cfg.aux_coefficient * auxiliary
    names = ("W_enc", "b_enc", "W_dec")
    more = torch.autograd.grad(weighted, [sae.get_parameter(name) for name in names])
    for name, gradient in zip(names, more, strict=True):
        by_name[name] = by_name[name] + gradient
    losses.loss = losses.loss + weighted.detach()
    losses.extra["aux_loss"] = auxiliary.detach()


def own_memory(sae: SAE) -> None:
    """Take an SAE out of the block that it was in, so that to keep it is not to keep all."""
    for parameter in sae.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.preserve_format)
