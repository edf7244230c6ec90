"""One training step, and the sums it leaves on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from saewidgets.sae import SAE
from saewidgets.sae.architectures import get_architecture
from saewidgets.training.config import TrainConfig

BETA1, EPS = 0.9, 6.25e-10
"""Adam's constants, those of Gao et al. 2024."""

MAX_SKIPPED = 10
"""So many steps in a row with NaN or infinities fail the run."""


@dataclass(frozen=True)
class Readings:
    """Metrics of the steps since the last reading; `skipped` and `skipped_in_a_row` count from the start."""

    loss: float
    explained_variance: float
    l0: float
    dead_fraction: float
    skipped: int
    skipped_in_a_row: int


def warm_up(device: torch.device) -> None:
    """Take one step on nothing: the first step of an optimiser imports half of torch, which takes seconds."""
    nothing = torch.zeros(1, device=device)
    nothing.grad = torch.zeros(1, device=device)
    torch.optim.Adam([nothing], fused=True).step()


@torch.no_grad()
def prepare(sae: SAE, sample: Tensor) -> Tensor:
    """Set the input scale from sample vectors [n, d_in], and b_dec to their mean; give back that mean, scaled.

    An SAE that has biases already keeps its function: its weights are only brought to the new scale. Decoder rows of
    another length than 1 are folded into the encoder, where the architecture wants unit rows.
    """
    sample = sample[torch.isfinite(sample).all(1)]
    if not len(sample):
        raise ArithmeticError("All of the first activations hold NaN or infinities: there is nothing to train on.")
    length = sample.norm(dim=1).mean()
    scale = torch.where(length > 0, sae.cfg.d_in**0.5 / length, torch.ones_like(length))
    centre = sample.mean(0) * scale
    if sae.b_enc.any() or sae.b_dec.any():
        sae.W_enc.mul_(sae.input_scale / scale)
        sae.W_dec.mul_(scale / sae.input_scale)
        sae.b_dec.mul_(scale / sae.input_scale)
    else:
        sae.b_dec.copy_(centre)
    sae.input_scale.copy_(scale)
    if get_architecture(sae.cfg.architecture).unit_norm_decoder:
        norms = sae.W_dec.norm(dim=1).clamp_min(torch.finfo(sae.dtype).tiny)
        sae.W_enc.mul_(norms)
        sae.b_enc.mul_(norms)
        sae.W_dec.div_(norms.unsqueeze(1))
    return centre


class Steps:
    """The trainable state of a run: optimiser, dead features, sums. Nothing here reads the device in `take`.

    Each step: gradients of the architecture's loss; for a unit-norm decoder, the part of each row's gradient
    along the row is taken out, and the rows are brought back to length 1 after Adam. A step whose gradients hold
    NaN or infinities changes nothing but the count of skipped steps, decided on the device (`found_inf`).
    """

    def __init__(self, sae: SAE, config: TrainConfig, n_steps: int, centre: Tensor) -> None:
        self.sae, self.config, self.centre = sae, config, centre
        self.architecture = get_architecture(sae.cfg.architecture)
        with torch.no_grad():
            # the gradient of W_enc comes a row per feature: keep the weight so in memory too
            sae.W_enc.data = sae.W_enc.t().contiguous().t()
        self.parameters = [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec]
        flat = [p.detach().t() if p is sae.W_enc else p.detach() for p in self.parameters]
        self.peak_lr = config.peak_lr(sae.cfg.d_sae, n_steps)
        # the second moment remembers a fifth of the run, from 100 to 1000 steps
        beta2 = 1 - 1 / min(1000.0, max(100.0, n_steps / 5))
        self.optimiser = torch.optim.Adam(flat, lr=self.peak_lr, betas=(BETA1, beta2), eps=EPS, fused=True)
        device, d_sae = sae.device, sae.cfg.d_sae
        self.silent = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.dead: Tensor | None = None
        self.skipped, self.in_a_row, self.worst_row = (torch.zeros((), device=device) for _ in range(3))
        self.wide = torch.float32 if device.type == "mps" else torch.float64
        self._clear()

    def _clear(self) -> None:
        device = self.sae.device
        # loss, squared error, squares, L0, vectors and steps that counted
        self.sums = torch.zeros(6, dtype=self.wide, device=device)
        self.sum_x = torch.zeros(self.sae.cfg.d_in, dtype=self.wide, device=device)

    def take(self, x: Tensor, progress: float, revive: bool) -> None:
        """Train on vectors x [n, d_in], `progress` (0 to 1) of the way through the run."""
        sae, n = self.sae, x.shape[0]
        with torch.no_grad():
            x = x * sae.input_scale
        losses = self.architecture.loss(sae, x, self.dead if revive else None)
        gradients = torch.autograd.grad(losses.loss, self.parameters)
        with torch.no_grad():
            bad = ~torch.isfinite(torch.stack([g.sum() for g in gradients]).sum() + losses.loss)
            self._update(gradients, bad, progress)
            self._count(x, losses.loss, losses.residual, losses.fired, bad, n)

    def _update(self, gradients: tuple[Tensor, ...], bad: Tensor, progress: float) -> None:
        W_dec = self.sae.W_dec
        unit = self.architecture.unit_norm_decoder
        group = self.optimiser.param_groups[0]
        for flat, parameter, gradient in zip(group["params"], self.parameters, gradients, strict=True):
            if parameter is self.sae.W_enc:
                gradient = gradient.t().contiguous()
            if parameter is W_dec and unit:
                along = (gradient * W_dec).sum(1, keepdim=True)
                gradient = torch.addcmul(gradient, along, W_dec, value=-1)
            flat.grad = gradient
        group["lr"] = self.peak_lr * self.config.lr_factor(progress)
        self.optimiser.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if unit:
            W_dec.div_(torch.linalg.vector_norm(W_dec, dim=1, keepdim=True))

    def _count(self, x: Tensor, loss: Tensor, residual: Tensor, fired: Tensor, bad: Tensor, n: int) -> None:
        good = ~bad
        self.silent = torch.where((fired > 0) & good, 0, self.silent + n * good)
        centred = x - self.centre
        one = torch.ones_like(loss)
        error, squares = residual.square().sum(), centred.square().sum()
        sums = torch.stack([loss, error, squares, fired.sum(), one * n, one]).to(self.wide)
        self.sums += torch.where(good, sums, 0.0)
        self.sum_x += torch.where(good, centred.sum(0), 0.0)
        self.skipped += bad
        self.in_a_row = (self.in_a_row + 1) * bad
        self.worst_row = torch.maximum(self.worst_row, self.in_a_row)

    def find_dead(self) -> None:
        """Look up which features are dead now (reads the device)."""
        dead = (self.silent >= cast(int, self.config.dead_window)).nonzero().squeeze(1)
        self.dead = dead if len(dead) else None

    def read(self) -> Readings:
        """Metrics since the last reading (reads the device)."""
        loss, error, squares, l0, n, steps = self.sums.tolist()
        about_mean = squares - float(self.sum_x.square().sum()) / n if n else 0.0
        dead = float((self.silent >= cast(int, self.config.dead_window)).to(torch.float32).mean())
        nan = float("nan")
        readings = Readings(
            loss=loss / steps if steps else nan,
            explained_variance=1 - error / about_mean if about_mean > 0 else nan,
            l0=l0 / n if n else nan,
            dead_fraction=dead,
            skipped=int(self.skipped),
            skipped_in_a_row=int(self.worst_row),
        )
        self._clear()
        return readings
