"""What a run takes before it starts: memory, arithmetic, time, number of GPUs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from saewidgets.sae.architectures import get_architecture
from saewidgets.sae.kernels import CHUNK_ELEMENTS, CHUNK_ELEMENTS_GPU
from saewidgets.sae.options import check_count
from saewidgets.training.config import PRECISIONS
from saewidgets.training.machines import CARDS, Machine, measure

SPARSE = ("topk", "batchtopk", "abstopk")
"""Architectures whose step holds no [batch, d_sae] tensor after the selection. The others are planned as if all of
their step were dense: five matrix products, a bound from above."""

PLACE_BYTES = 64
"""Of memory for one active feature of one vector: value, gradient, index, row, order, sorted index, and copies."""

ROW_COPIES = 8
"""Tensors [batch, d_in] alive at once: the batch, its scaled copy, target, reconstruction, residual, gradients."""

AUX_EVERY = 4
"""AuxK works on every so many-th step (`TrainConfig.aux_every`)."""

FILL = 0.9
"""Share of a GPU's memory that is planned with."""


@dataclass(frozen=True)
class Plan:
    """What `plan` says. Bytes are per GPU (or of the machine), seconds are of the whole run."""

    machine: Machine
    """What it is planned for, and where its rates are from."""
    n_gpus: int
    """Devices that share the run."""
    split: str
    """How they share it: "none", "data" (a whole SAE on each) or "features" (a part of the features on each)."""
    n_steps: int
    weights_bytes: float
    gradients_bytes: float
    adam_bytes: float
    """First and second moment."""
    code_bytes: float
    """The batch, its code, and what the gradients need for a moment."""
    aux_bytes: float
    """AuxK's activations [batch, dead features], dense, with their gradient."""
    flops: float
    """Floating-point operations of the whole run."""
    step_seconds: float
    """Of training, without waiting for activations."""
    seconds: float
    """Of the run: the slower of training and of the activations' coming."""
    waits: bool
    """Whether the activations come more slowly than the training takes them."""

    @property
    def memory_bytes(self) -> float:
        """All of it, per GPU."""
        return self.weights_bytes + self.gradients_bytes + self.adam_bytes + self.code_bytes + self.aux_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits into the memory, as far as that is known."""
        return self.machine.memory is None or self.memory_bytes <= FILL * self.machine.memory

    def __repr__(self) -> str:
        machine, gpus = self.machine, f"{self.n_gpus} x " if self.n_gpus > 1 else ""
        how = {"none": "", "data": ", a whole SAE on each", "features": ", a part of the features on each"}[self.split]
        known = (
            "" if machine.memory is None else f" of {_bytes(machine.memory)}" + ("" if self.fits else ": too little")
        )
        memory = {
            "weights": self.weights_bytes,
            "gradients": self.gradients_bytes,
            "Adam": self.adam_bytes,
            "batch and code": self.code_bytes,
            "AuxK": self.aux_bytes,
        }
        rows = [
            ("device", f"{gpus}{machine.name}{how}"),
            ("memory", f"{_bytes(self.memory_bytes)}{' on each' if gpus else ''}{known}"),
            *((f"  {name}", _bytes(size)) for name, size in memory.items()),
            ("arithmetic", f"{self.flops:.2g} FLOP in {self.n_steps:,} steps"),
            ("step", _time(self.step_seconds)),
            ("run", _time(self.seconds) + (", waiting for activations" if self.waits else "")),
            ("rates", machine.source),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def plan(
    d_in: int,
    d_sae: int,
    k: int,
    n_tokens: int,
    batch_size: int = 2048,
    architecture: str = "topk",
    device: str | Machine = "cpu",
    n_gpus: int | None = None,
    vectors_per_second: float | None = None,
    precision: str = "float32",
    dead_fraction: float = 0.05,
    d_out: int | None = None,
) -> Plan:
    """Memory, arithmetic, time and number of GPUs of a training run, before it starts.

    A step of a sparse architecture is one dense product for the encoder (2 n d_in d_sae), a top-k over its n d_sae
    results, four passes over the n k active rows (decoding, and the gradients of values, encoder and decoder) and the
    update of all parameters; AuxK, each fourth step, five products with the dead features. Each part's amount is
    divided by a rate of the machine, and the times are added. tests/benchmarks/plan.py compares this with measured runs
    on a CPU; no GPU was at hand to check the cards.

    Args:
        k: Active features per vector; for an architecture without k, how many you expect (L0).
        device: "cpu", "cuda" or "mps": a device that is here, of which the rates are measured (two seconds); or the
            name of a card, "t4", "a100", "h100" or "h200", whose data sheet is taken; or a `Machine`.
        n_gpus: How many share the run; None is the fewest that it fits on.
        vectors_per_second: How fast the activations come (measure your stream); None: they are never waited for.
        precision: Of the encoder's product on a named card: "float32" or "bf16", as in `TrainConfig`.
        dead_fraction: Share of dead features that AuxK is planned with.
        d_out: Width of the output, for a transcoder.

    Raises:
        ValueError: an unknown device or architecture, a number out of range.
    """
    d_out = d_in if d_out is None else d_out
    numbers = {"d_in": d_in, "d_sae": d_sae, "k": k, "n_tokens": n_tokens, "batch_size": batch_size, "d_out": d_out}
    for name, number in numbers.items():
        check_count("plan", name, number)
    if n_gpus is not None:
        check_count("plan", "n_gpus", n_gpus)
    if k > d_sae:
        raise ValueError(f"plan: k is {k}, but there are only {d_sae} features (d_sae).")
    if not 0 <= dead_fraction <= 1:
        raise ValueError(f"plan: dead_fraction must be from 0 to 1, got {dead_fraction!r}.")
    if vectors_per_second is not None and not vectors_per_second > 0:
        raise ValueError(f"plan: vectors_per_second must be above 0, got {vectors_per_second!r}.")
    get_architecture(architecture)
    machine = _machine(device, precision, d_in, d_sae, k)
    chunk = CHUNK_ELEMENTS if machine.name in ("cpu", "mps") else CHUNK_ELEMENTS_GPU
    step = _Step(d_in, d_out, d_sae, k, batch_size, architecture in SPARSE, dead_fraction, chunk)
    room = FILL * (machine.memory or math.inf)
    split = "none"
    if n_gpus is None:
        n_gpus = 1
        while step.share(n_gpus, "features").n_bytes > room and n_gpus < d_sae:
            n_gpus *= 2
        n_gpus = min(n_gpus, d_sae)
    if n_gpus > 1:
        split = "data" if step.share(n_gpus, "data").n_bytes <= room else "features"
    share = step.share(n_gpus, split)
    n_steps = math.ceil(n_tokens / batch_size)
    seconds = share.seconds(machine) + step.exchanged(n_gpus, split) / machine.link
    waiting = n_tokens / vectors_per_second if vectors_per_second else 0.0
    return Plan(
        machine=machine,
        n_gpus=n_gpus,
        split=split,
        n_steps=n_steps,
        **share.memory,
        flops=n_steps * step.flops,
        step_seconds=seconds,
        seconds=max(n_steps * seconds, waiting),
        waits=waiting > n_steps * seconds,
    )


def _machine(device: str | Machine, precision: str, d_in: int, d_sae: int, k: int) -> Machine:
    if isinstance(device, Machine):
        return device
    if precision not in PRECISIONS:
        raise ValueError(f"plan: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if device.lower() in CARDS:
        return CARDS[device.lower()][precision]
    try:
        return measure(device, d_in, d_sae, k)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"plan: there is no device {device!r} here ({str(error).splitlines()[0]}). Name one that is, "
            f"such as 'cpu', or a card: {', '.join(CARDS)}."
        ) from None


@dataclass(frozen=True)
class _Step:
    """One training step, or a GPU's share of one."""

    d_in: int
    d_out: int
    d_sae: int
    k: float
    rows: float
    sparse: bool
    dead_fraction: float
    chunk_elements: int

    def share(self, n: int, split: str) -> _Step:
        """What one of n GPUs does of it."""
        if split == "data":
            return replace(self, rows=self.rows / n)
        if split == "features":
            return replace(self, d_sae=-(-self.d_sae // n), k=self.k / n)
        return self

    @property
    def n_parameters(self) -> float:
        return (self.d_in + self.d_out + 1) * self.d_sae + self.d_out

    @property
    def memory(self) -> dict[str, float]:
        """Bytes, by the names that `Plan` gives them."""
        weights = 4.0 * self.n_parameters
        batch = 4.0 * ROW_COPIES * self.rows * max(self.d_in, self.d_out)
        if self.sparse:
            chunk = 4.0 * max(self.d_sae, min(self.chunk_elements, self.rows * self.d_sae))
            code = chunk + PLACE_BYTES * self.rows * self.k
        else:
            code = 4.0 * 4 * self.rows * self.d_sae
        return {
            "weights_bytes": weights,
            # the decoder's is copied once, when the part along each row is taken out
            "gradients_bytes": weights + 4.0 * self.d_out * self.d_sae,
            "adam_bytes": 2 * weights,
            "code_bytes": batch + code,
            # preactivations, activations, and a gradient of each
            "aux_bytes": 4.0 * 4 * self.rows * self.n_dead if self.sparse else 0.0,
        }

    @property
    def n_bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def n_dead(self) -> float:
        return self.dead_fraction * self.d_sae

    @property
    def products(self) -> float:
        """Floating-point operations in dense products."""
        n, encoder = self.rows, 2.0 * self.rows * self.d_in * self.d_sae
        if not self.sparse:
            return 2.5 * (encoder + 2.0 * n * self.d_out * self.d_sae)
        return encoder + n * self.n_dead * (4.0 * self.d_in + 6.0 * self.d_out) / AUX_EVERY

    @property
    def gathered(self) -> float:
        """Numbers read in passes over the active rows: decode, and the gradients of values, decoder, encoder."""
        return self.rows * self.k * (3.0 * self.d_out + self.d_in) if self.sparse else 0.0

    @property
    def flops(self) -> float:
        return self.products + 2.0 * self.gathered

    def seconds(self, machine: Machine) -> float:
        selected = self.rows * (self.d_sae + self.n_dead / AUX_EVERY)
        return (
            self.products / machine.matmul
            + selected / machine.top_k
            + 4.0 * self.gathered / machine.gather
            + self.n_parameters / machine.update
        )

    def exchanged(self, n: int, split: str) -> float:
        """Bytes that each GPU sends and receives."""
        if split == "data":  # all gradients, summed
            return 2 * (n - 1) / n * 4.0 * self.n_parameters
        if split == "features":  # candidates for the top-k, from all to all; reconstructions, summed, AuxK's too
            candidates = 12.0 * self.rows * self.k * (n - 1)
            return candidates + 2 * (n - 1) / n * 4.0 * self.rows * self.d_out * (1 + 1 / AUX_EVERY)
        return 0.0


def _bytes(n: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:,.3g} {unit}"
    return f"{n / 1e3:,.3g} kB"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.2g} seconds"
