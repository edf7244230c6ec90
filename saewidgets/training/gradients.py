"""The gradient of a batch: in the precision asked for, and in parts where the whole does not fit into memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from saewidgets.sae import SAE
from saewidgets.sae.architectures import Knobs, Losses

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says, in one of these forms on each device, when memory has run out."""


def check_precision(precision: str, sae: SAE) -> None:
    """ValueError, as a sentence, if the SAE or its device does not compute in this precision."""
    if precision != "bf16":
        return
    if not _has_bf16(sae.device):
        raise ValueError(
            f"TrainConfig(precision='bf16') needs a device with bfloat16 arithmetic, and {str(sae.device)!r} has none. "
            "Leave precision out: float32 runs everywhere."
        )
    if sae.dtype != torch.float32:
        raise ValueError(
            f"TrainConfig(precision='bf16') is for an SAE in float32, and this one is in {sae.cfg.dtype}. "
            "Leave precision out."
        )


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
    return False


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device has no memory left."""
    return isinstance(error, RuntimeError | MemoryError) and any(said in str(error) for said in OUT_OF_MEMORY)


class Gradients:
    """Losses of a batch and their gradients for `parameters`.

    `micro_batch`: None, or how many vectors are worked on at once, after the device once had no memory for more. Their
    gradients are added, weighted by their number: those of the whole batch, but for what an architecture does across
    a batch (the threshold of batchtopk, the normalisation of AuxK), which it then does across a part.
    """

    def __init__(self, sae: SAE, parameters: Sequence[Tensor], precision: str) -> None:
        check_precision(precision, sae)
        self.sae, self.parameters, self.precision = sae, list(parameters), precision
        self.micro_batch: int | None = None

    def of(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> tuple[Losses, list[Tensor]]:
        """For scaled vectors x [n, d_in] and targets [n, d_out]. Halves `micro_batch` when memory runs out."""
        while True:
            try:
                return self._in_parts(x, target, knobs, dead)
            except (RuntimeError, MemoryError) as error:
                size = min(self.micro_batch or len(x), len(x))
                if not out_of_memory(error) or size == 1:
                    raise
            # out of the except clause: it would hold on to the tensors of the failed attempt
            self.micro_batch = (size + 1) // 2
            if x.is_cuda:
                torch.cuda.empty_cache()

    def _in_parts(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> tuple[Losses, list[Tensor]]:
        size = self.micro_batch or len(x)
        if size >= len(x):
            return self._of_part(x, target, knobs, dead)
        parts: list[Losses] = []
        total: list[Tensor] = []
        shares: list[float] = []
        for start in range(0, len(x), size):
            some = x[start : start + size]
            goal = some if target is x else target[start : start + size]
            losses, gradients = self._of_part(some, goal, knobs, dead)
            shares.append(len(some) / len(x))
            if total:
                torch._foreach_add_(total, gradients, alpha=shares[-1])
            else:
                total = [gradient * shares[-1] for gradient in gradients]
            parts.append(dataclasses.replace(losses, loss=losses.loss.detach()))
        return _together(parts, shares), total

    def _of_part(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> tuple[Losses, list[Tensor]]:
        with self._cast():
            losses = self._loss(x, target, knobs, dead)
        gradients = torch.autograd.grad(losses.loss, self.parameters, materialize_grads=True, allow_unused=True)
        return losses, list(gradients)

    def _loss(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        return self.sae.architecture.loss(self.sae, x, target, knobs, dead)

    def _cast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.sae.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


class CompiledGradients(Gradients):
    """`Gradients` whose loss, and with it its backward pass, `torch.compile` has made into fewer kernels."""

    def __init__(self, sae: SAE, parameters: Sequence[Tensor], precision: str) -> None:
        super().__init__(sae, parameters, precision)
        self._compiled: Callable[..., Losses] = torch.compile(sae.architecture.loss)

    def _loss(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        return self._compiled(self.sae, x, target, knobs, dead)

    def _of_part(self, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> tuple[Losses, list[Tensor]]:
        try:
            return super()._of_part(x, target, knobs, dead)  # the backward pass is compiled when it is first taken
        except torch._dynamo.exc.TorchDynamoException as error:
            raise RuntimeError(
                "torch.compile cannot compile the loss here "
                f"({str(error).strip().splitlines()[0]}). Leave TrainConfig(compile=True) out: the run is the same."
            ) from error


def _together(parts: Sequence[Losses], shares: Sequence[float]) -> Losses:
    """The losses of a batch from those of its parts."""
    extra = {
        name: torch.stack([part.extra[name] * share for part, share in zip(parts, shares, strict=True)]).sum(0)
        for name in parts[0].extra
    }
    return dataclasses.replace(
        parts[-1],
        loss=torch.stack([part.loss * share for part, share in zip(parts, shares, strict=True)]).sum(),
        residual=torch.cat([part.residual for part in parts]),
        fired=torch.stack([part.fired for part in parts]).sum(0),
        extra=extra,
    )


def clipped(gradients: list[Tensor], clip_norm: float | None) -> list[Tensor]:
    """Gradients whose norm together is at most `clip_norm`, decided on the device."""
    if clip_norm is None:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = (clip_norm / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
    return [gradient * factor for gradient in gradients]
