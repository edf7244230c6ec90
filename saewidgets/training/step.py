"""One training step, and the sums it leaves on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from saewidgets.sae import SAE
from saewidgets.sae.architectures import Knobs, Losses
from saewidgets.sae.normalize import geometric_median, own_size, shared_scale
from saewidgets.training.config import TrainConfig
from saewidgets.training.gradients import CompiledGradients, Gradients, clipped
from saewidgets.training.optimizers import Optimizer
from saewidgets.training.resample import resample

MAX_SKIPPED = 10
"""So many steps in a row with NaN or infinities fail the run."""


@dataclass(frozen=True)
class Readings:
    """Metrics of the steps since the last reading; `skipped` and `skipped_in_a_row` count from the start."""

    loss: float
    explained_variance: float
    l0: float
    dead_fraction: float
    deaths: int
    """Features found dead at a `find_dead` that were not at the one before."""
    births: int
    """Features found active again at a `find_dead` that were dead at the one before."""
    extra: dict[str, float]
    """What the architecture's `Losses.extra` hold: means over the steps that gave them."""
    skipped: int
    skipped_in_a_row: int


def warm_up(device: torch.device) -> None:
    """Take one step on nothing: the first step of an optimizer imports half of torch, which takes seconds."""
    nothing = torch.zeros(1, device=device)
    nothing.grad = torch.zeros(1, device=device)
    torch.optim.Adam([nothing], fused=True).step()


@torch.no_grad()
def prepare(sae: SAE, sample: Tensor, target: Tensor | None = None) -> Tensor:
    """Set the scales and b_dec from sample vectors [n, d_in]; give back the mean of the targets, scaled [d_out].

    `target` [n, d_out]: what a transcoder is to predict from the sample; None for an autoencoder. b_dec becomes the
    targets' mean or what else `cfg.init_b_dec` says. An SAE that has biases already keeps its function: its weights
    are only brought to the new scale. Decoder rows of another length than 1 are folded into the encoder, where the
    architecture wants unit rows: it then selects by what a feature adds, h ||W_dec||, which may be other features.
    """
    cfg, architecture = sae.cfg, sae.architecture
    finite = torch.isfinite(sample).all(1)
    if target is not None:
        finite &= torch.isfinite(target).all(1)
    sample = sample[finite]
    if not len(sample):
        raise ArithmeticError("All of the first activations hold NaN or infinities: there is nothing to train on.")
    own = own_size(sample, cfg.normalize)
    sample = sample if own is None else (sample - own.shift) / own.size
    scale = shared_scale(sample, cfg.normalize)
    goal, goal_scale = sample, scale
    if target is not None:
        goal = target[finite]
        goal_scale = shared_scale(goal, "none" if cfg.normalize == "none" else "expected_norm")
    centre = goal.mean(0) * goal_scale
    learned = bool(sae.b_enc.any() or sae.b_dec.any())
    if learned:
        sae.rescale_(scale, goal_scale)
    else:
        sae.output_scale.copy_(goal_scale)
        sae.input_scale.copy_(scale)
        if cfg.init_b_dec == "mean":
            sae.b_dec.copy_(centre)
        elif cfg.init_b_dec == "geometric_median":
            sae.b_dec.copy_(geometric_median(goal) * goal_scale)
    if architecture.unit_norm_decoder:
        architecture.scale_code(sae, sae.W_dec.norm(dim=1).clamp_min(torch.finfo(sae.dtype).tiny))
    if not learned:
        architecture.prepare(sae, sample * scale, goal * goal_scale)
    return centre


class Step(NamedTuple):
    """What one step is taken on, and how: what `Steps.take` is told."""

    x: Tensor
    target: Tensor
    knobs: Knobs
    lr: float
    revive: bool


class Steps:
    """The trainable state of a run: optimizer, dead features, sums. Nothing here reads the device in `take`.

    Each step: gradients of the architecture's loss for all parameters of the SAE; for a unit-norm decoder, the part of
    each row's gradient along the row is taken out, and the rows are brought back to length 1 after Adam. A step whose
    gradients hold NaN or infinities changes nothing but the count of skipped steps, decided on the device
    (`found_inf`).
    """

    def __init__(self, sae: SAE, config: TrainConfig, n_steps: int, centre: Tensor) -> None:
        self.sae, self.config, self.centre = sae, config, centre
        self.architecture = sae.architecture
        with torch.no_grad():
            # the gradient of W_enc comes a row per feature: keep the weight so in memory too
            sae.W_enc.data = sae.W_enc.t().contiguous().t()
        self.names, self.parameters = map(list, zip(*sae.named_parameters(), strict=True))
        self.flat = [p.detach().t() if p is sae.W_enc else p.detach() for p in self.parameters]
        rates = [self.architecture.lr_scale.get(name, 1.0) for name in self.names]
        self.optimizer = Optimizer(config.optimizer, self.flat, n_steps, rates)
        gradients = CompiledGradients if config.compile else Gradients
        self.gradients = gradients(sae, self.parameters, config.precision)
        device, d_sae = sae.device, sae.cfg.d_sae
        self.silent = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.dead: Tensor | None = None
        self.last: tuple[Tensor, Tensor] | None = None  # scaled vectors of the last step, and what was left over
        self.generator = torch.Generator().manual_seed(sae.cfg.seed)
        self.was_dead = torch.zeros(d_sae, dtype=torch.bool, device=device)
        self.deaths, self.births = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
        self.skipped, self.in_a_row, self.worst_row = (torch.zeros((), device=device) for _ in range(3))
        self.wide = torch.float32 if device.type == "mps" else torch.float64
        self._clear()

    def _clear(self) -> None:
        device = self.sae.device
        # loss, squared error, squares, L0, vectors and steps that counted
        self.sums = torch.zeros(6, dtype=self.wide, device=device)
        self.sum_x = torch.zeros(len(self.centre), dtype=self.wide, device=device)
        self.extra: dict[str, Tensor] = {}
        self.deaths.zero_()
        self.births.zero_()

    def take(self, x: Tensor, target: Tensor, knobs: Knobs, lr: float, revive: bool) -> None:
        """Train on vectors x [n, d_in] with what they are to give [n, d_out]: x itself for an autoencoder.

        `knobs`, `lr`: what the schedules say for this step. `revive`: whether dead features are worked on.
        """
        scaled, goal = self.scaled(x, target)
        losses, gradients = self.gradients.of(scaled, goal, knobs, self.dead if revive else None)
        self.apply(scaled, goal, losses, gradients, lr)

    @torch.no_grad()
    def scaled(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and what they are to give, in the units of the weights; one tensor for an autoencoder."""
        scaled = self.sae.scaled(x)
        return scaled, scaled if target is x else target * self.sae.output_scale

    @torch.no_grad()
    def apply(self, scaled: Tensor, goal: Tensor, losses: Losses, gradients: list[Tensor], lr: float) -> None:
        """Change the SAE by a batch's gradients, one for each of `parameters`, and add the batch to the sums."""
        bad = ~torch.isfinite(torch.stack([g.sum() for g in gradients]).sum() + losses.loss)
        self._update(clipped(gradients, self.config.clip_norm), bad, lr)
        self._count(goal, losses, bad)
        self.architecture.after_step(self.sae, losses, ~bad)
        self.last = (scaled, losses.residual)

    def _update(self, gradients: list[Tensor], bad: Tensor, lr: float) -> None:
        W_dec = self.sae.W_dec
        unit = self.architecture.unit_norm_decoder
        flat = []
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            if parameter is self.sae.W_enc:
                gradient = gradient.t().contiguous()
            if parameter is W_dec and unit:
                along = (gradient * W_dec).sum(1, keepdim=True)
                gradient = torch.addcmul(gradient, along, W_dec, value=-1)
            flat.append(gradient)
        self.optimizer.step(flat, lr, bad)
        if unit:
            norms = torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
            W_dec.div_(norms.clamp_min(torch.finfo(W_dec.dtype).tiny))  # a pruned row of zeros stays one

    def _count(self, target: Tensor, losses: Losses, bad: Tensor) -> None:
        good, n, loss = ~bad, target.shape[0], losses.loss.detach()
        self.silent = torch.where((losses.fired > 0) & good, 0, self.silent + n * good)
        centred = target - self.centre
        one = torch.ones_like(loss)
        error, squares = losses.residual.square().sum(), centred.square().sum()
        sums = torch.stack([loss, error, squares, losses.fired.sum(), one * n, one]).to(self.wide)
        self.sums += torch.where(good, sums, 0.0)
        self.sum_x += torch.where(good, centred.sum(0), 0.0)
        for name, value in losses.extra.items():
            counted = torch.where(good, torch.stack([value, torch.ones_like(value)]), 0.0).to(self.wide)
            self.extra[name] = self.extra[name] + counted if name in self.extra else counted
        self.skipped += bad
        self.in_a_row = (self.in_a_row + 1) * bad
        self.worst_row = torch.maximum(self.worst_row, self.in_a_row)

    def find_dead(self) -> None:
        """Look up which features are dead now (reads the device), and count who died and who came back."""
        is_dead = self.silent >= cast(int, self.config.dead_window)
        self.deaths += (is_dead & ~self.was_dead).sum()
        self.births += (~is_dead & self.was_dead).sum()
        self.was_dead = is_dead
        dead = is_dead.nonzero().squeeze(1)
        self.dead = dead if len(dead) else None

    def resample(self) -> None:
        """Give the features that are dead now new directions, from the vectors of the last step (reads the device).

        Only where the architecture asks for it. They count as dead again if they stay silent for another window.
        """
        if not self.architecture.resamples or self.last is None:
            return
        self.find_dead()
        if self.dead is None:
            return
        state = dict(zip(self.names, self.optimizer.moments(), strict=True))
        resample(self.sae, self.dead, *self.last, state, self.generator)
        self.silent[self.dead] = 0

    def state(self) -> dict[str, Tensor]:
        """All that a later step depends on beside the SAE, by name: what `load` takes."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        generators = {name: value for name, value in vars(self).items() if isinstance(value, torch.Generator)}
        return {
            **own,
            **{f"extra.{name}": value for name, value in self.extra.items()},
            **{f"optimizer.{name}": value for name, value in self.optimizer.state().items()},
            **{f"generator.{name}": generator.get_state() for name, generator in generators.items()},
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.optimizer.load({n.removeprefix("optimizer."): t for n, t in state.items() if n.startswith("optimizer.")})
        for name, tensor in state.items():
            room, _, inner = name.partition(".")
            if room == "extra":
                self.extra[inner] = tensor.to(self.sae.device)
            elif room == "generator":
                getattr(self, inner).set_state(tensor.cpu())
            elif room != "optimizer":
                setattr(self, name, tensor.to(self.sae.device))

    def read(self) -> Readings:
        """Metrics since the last reading (reads the device)."""
        loss, error, squares, l0, n, steps = self.sums.tolist()
        about_mean = squares - float(self.sum_x.square().sum()) / n if n else 0.0
        dead = float((self.silent >= cast(int, self.config.dead_window)).to(torch.float32).mean())
        nan = float("nan")
        extra = {name: value.tolist() for name, value in self.extra.items()}
        readings = Readings(
            loss=loss / steps if steps else nan,
            explained_variance=1 - error / about_mean if about_mean > 0 else nan,
            l0=l0 / n if n else nan,
            dead_fraction=dead,
            deaths=int(self.deaths),
            births=int(self.births),
            extra={name: total / count if count else nan for name, (total, count) in extra.items()},
            skipped=int(self.skipped),
            skipped_in_a_row=int(self.worst_row),
        )
        self._clear()
        return readings
