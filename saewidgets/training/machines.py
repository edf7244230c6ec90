"""How fast a machine does what a training step consists of: measured here, or from a card's data sheet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from saewidgets.sae.kernels import CHUNK_ELEMENTS

_REACHED_MATMUL, _REACHED_MEMORY = 0.6, 0.7
"""Shares of a data sheet's numbers that large matrix products and streams through memory reach in practice; an
assumption (no card was measured for it), 0.5 to 0.75 and 0.6 to 0.9 being what is commonly seen."""

UPDATE_PASSES = 14
"""Times a step goes through a parameter's memory: fused Adam reads 4 numbers and writes 3; for the decoder, the part of
the gradient along each row (4 reads, 1 write) and the row's length (3 reads, 1 write), and half of the parameters are
the decoder's; gradients are written once and read once for the check for NaN. 7 + 9 / 2 + 2, rounded up."""

_TRY_SECONDS = 0.4
"""So long each of the four rates is measured."""

SORT_PASSES = 3
"""Times top-k goes through the preactivations: written, read to find the k-th, read to select."""


@dataclass(frozen=True)
class Machine:
    """Rates of one device."""

    name: str
    matmul: float
    """Floating-point operations a second of the encoder's matrix product."""
    top_k: float
    """Preactivations a second that top-k gets through."""
    gather: float
    """Bytes a second of decoder rows summed by `embedding_bag`."""
    update: float
    """Parameters a second that the optimizer updates, the decoder's rows brought to length 1."""
    memory: float | None
    """Bytes that fit; None where nothing is known."""
    link: float
    """Bytes a second between two of it."""
    source: str
    """Where these numbers are from."""


def _card(
    name: str, float32: float, bfloat16: float, bandwidth: float, memory: float, link: float
) -> dict[str, Machine]:
    reached = _REACHED_MEMORY * bandwidth
    return {
        precision: Machine(
            name,
            _REACHED_MATMUL * flops,
            reached / (4 * SORT_PASSES),
            reached,
            reached / (4 * UPDATE_PASSES),
            memory,
            _REACHED_MEMORY * link,
            f"NVIDIA's data sheet, {precision} products: {_REACHED_MATMUL:.0%} of {flops / 1e12:,.0f} TFLOP/s, "
            f"{_REACHED_MEMORY:.0%} of {bandwidth / 1e12:.2f} TB/s",
        )
        for precision, flops in (("float32", float32), ("bf16", bfloat16))
    }


CARDS: dict[str, dict[str, Machine]] = {
    # float32 without tensor cores, bfloat16 (T4: float16) dense with them; memory; both directions of NVLink, or PCIe
    "t4": _card("T4", 8.1e12, 65e12, 0.32e12, 16e9, 32e9),
    "a100": _card("A100 80 GB SXM", 19.5e12, 312e12, 2.039e12, 80e9, 600e9),
    "h100": _card("H100 SXM", 67e12, 989e12, 3.35e12, 80e9, 900e9),
    "h200": _card("H200 SXM", 67e12, 989e12, 4.8e12, 141e9, 900e9),
}
"""By name, then by the precision of the encoder's product."""


def measure(device: str | torch.device, d_in: int, d_sae: int, k: int) -> Machine:
    """The rates of a device that is here, on tensors shaped like the run's; takes about two seconds."""
    device = torch.device(device)
    width = min(d_sae, 8192)
    rows, k = CHUNK_ELEMENTS // 8192, min(k, width)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, d_in, generator=generator).to(device)
    weight = torch.randn(width, d_in, generator=generator).to(device)
    out, zeros = x.new_empty(rows, width), x.new_zeros(width)
    product = _rate(lambda: torch.addmm(zeros, x, weight.t(), out=out), 2.0 * rows * d_in * width, device)
    top = _rate(lambda: out.topk(k, dim=-1, sorted=False), float(out.numel()), device)
    indices = torch.randint(0, width, (rows, k), generator=generator).to(device)
    values = x.new_ones(rows, k)
    gather = _rate(
        lambda: functional.embedding_bag(indices, weight, mode="sum", per_sample_weights=values),
        4.0 * rows * k * d_in,
        device,
    )
    return Machine(
        str(device),
        product,
        top,
        gather,
        _rate(_update(weight), 2.0 * weight.numel(), device),
        float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else _ram(device),
        1e9,
        f"measured just now, float32, {torch.get_num_threads()} threads"
        if device.type == "cpu"
        else "measured just now, float32",
    )


def _update(weight: Tensor) -> Callable[[], object]:
    """What a step does to an encoder and a decoder of this shape: gradients in fresh memory, and the update."""
    parameters = [weight.clone(), torch.nn.functional.normalize(weight, dim=1)]
    decoder = parameters[1]
    written = [torch.randn_like(p) for p in parameters]
    optimizer = torch.optim.Adam(parameters, fused=True)

    def update() -> None:
        gradients = [g.clone() for g in written]
        torch.stack([g.sum() for g in gradients])
        along = (gradients[1] * decoder).sum(1, keepdim=True)
        parameters[0].grad = gradients[0]
        decoder.grad = torch.addcmul(gradients[1], along, decoder, value=-1)
        optimizer.step()
        decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True))

    return update


def _rate(work: Callable[[], object], amount: float, device: torch.device) -> float:
    """Amount a second: the best of many tries, for whatever else the machine does only makes it slower."""

    def now() -> float:
        if device.type == "cpu":  # what others do on the same cores is not this machine's slowness
            return time.process_time() / torch.get_num_threads()
        getattr(torch, device.type).synchronize()
        return time.perf_counter()

    def seconds() -> float:
        start = now()
        work()
        return now() - start

    seconds()
    tries = [seconds() for _ in range(3)]
    while sum(tries) < _TRY_SECONDS and len(tries) < 100:
        tries.append(seconds())
    return amount / min(tries)


def _ram(device: torch.device) -> float | None:
    import os

    if device.type != "cpu" or not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
