"""The optimizers that a name stands for. All of them decide on the device whether a step counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BETA1, EPS = 0.9, 6.25e-10
"""Adam's constants, those of Gao et al. 2024."""

MUON_MOMENTUM, SIGNUM_MOMENTUM = 0.95, 0.9


def beta2_of(n_steps: int) -> float:
    """Adam's second moment remembers a fifth of the run, from 100 to 1000 steps."""
    return 1 - 1 / min(1000.0, max(100.0, n_steps / 5))


def check_optimizer(name: str) -> None:
    """ValueError, as a sentence, if this torch does not have it."""
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"TrainConfig(optimizer='muon') needs torch 2.9 or newer, and this is {torch.__version__}. "
            "Install a newer torch, or choose 'adam'."
        )


class Signum(torch.optim.Optimizer):
    """m = beta m + (1 - beta) g, w = w - lr sign(m): Bernstein et al. 2018, "signSGD", algorithm 2."""

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = SIGNUM_MOMENTUM) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                weight.add_(momentum.sign(), alpha=-group["lr"])


class Optimizer:
    """Updates tensors in place from gradients, by the optimizer of that name.

    `n_steps`: of the run, for Adam's memory. `rates`: a factor for each tensor's learning rate. A step with `bad` true
    changes neither weights nor moments, and nothing is read from the device to find out.
    """

    def __init__(self, name: str, tensors: Sequence[Tensor], n_steps: int, rates: Sequence[float]) -> None:
        check_optimizer(name)
        self.tensors, self.rates = list(tensors), list(rates)
        self._parts: list[torch.optim.Optimizer] = []
        groups = self._groups(range(len(self.tensors)))
        adam = {"lr": 1.0, "betas": (BETA1, beta2_of(n_steps)), "eps": EPS, "fused": True}
        if name == "adam":
            self._parts = [torch.optim.Adam(groups, **adam)]  # type: ignore[arg-type]
        elif name == "signum":
            self._parts = [Signum(groups)]
        else:
            matrices = self._groups(i for i, tensor in enumerate(self.tensors) if tensor.ndim == 2)
            vectors = self._groups(i for i, tensor in enumerate(self.tensors) if tensor.ndim != 2)
            muon: Any = torch.optim.Muon  # type: ignore[attr-defined,unused-ignore]
            # updates as large as Adam's, so that rates carry over (Liu et al. 2025, arXiv 2502.16982)
            self._parts = [
                muon(matrices, lr=1.0, weight_decay=0.0, momentum=MUON_MOMENTUM, adjust_lr_fn="match_rms_adamw"),
                torch.optim.Adam(vectors, **adam),  # type: ignore[arg-type]
            ]

    def _groups(self, which: Any) -> list[dict[str, Any]]:
        """Tensors of equal rate, together: one fused kernel for them."""
        by_rate: dict[float, list[Tensor]] = {}
        for i in which:
            by_rate.setdefault(self.rates[i], []).append(self.tensors[i])
        return [{"params": tensors, "rate": rate} for rate, tensors in by_rate.items()]

    def step(self, gradients: Sequence[Tensor], lr: float, bad: Tensor) -> None:
        for tensor, gradient in zip(self.tensors, gradients, strict=True):
            tensor.grad = gradient
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr * group["rate"]
            if isinstance(part, torch.optim.Adam):
                part.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
                part.step()
            else:
                self._guarded(part, bad)
        for tensor in self.tensors:
            tensor.grad = None

    def _guarded(self, part: torch.optim.Optimizer, bad: Tensor) -> None:
        """A step that is taken back on the device if it was bad: these optimizers know no `found_inf`."""
        weights = [weight for group in part.param_groups for weight in group["params"]]
        changed = weights + [part.state[w]["momentum_buffer"] for w in weights if part.state[w]]
        before = [tensor.clone() for tensor in changed]
        part.step()
        for tensor, old in zip(changed, before, strict=True):
            torch.where(bad, old, tensor, out=tensor)
        if len(changed) == len(weights):  # the first step, which made the moments
            for weight in weights:
                moment = part.state[weight]["momentum_buffer"]
                torch.where(bad, torch.zeros_like(moment), moment, out=moment)

    def moments(self) -> list[dict[str, Tensor]]:
        """What is remembered of each tensor, by its names, to be changed in place; empty before the first step."""
        return [
            next((part.state[tensor] for part in self._parts if tensor in part.state), {}) for tensor in self.tensors
        ]

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, by the tensor's number and their names."""
        return {f"{i}.{name}": value for i, moments in enumerate(self.moments()) for name, value in moments.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for i, tensor in enumerate(self.tensors):
            part = next(p for p in self._parts if any(tensor is w for g in p.param_groups for w in g["params"]))
            own = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{i}.")}
            for name, value in own.items():
                # a moment lies in memory as its weight does; fused Adam takes no other layout
                moment = torch.empty_like(tensor) if value.shape == tensor.shape else torch.empty_like(value)
                part.state[tensor][name] = moment.to(tensor.device).copy_(value)
