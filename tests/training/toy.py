"""Activations with known features, as an in-memory stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.training import TrainingRun

D_IN, N_TRUE = 24, 40


def directions() -> Tensor:
    """The true features, [N_TRUE, D_IN], unit norm."""
    rows = torch.randn(N_TRUE, D_IN, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(rows, dim=1)


class ToyStream:
    """Each vector is a sum of a few true features, around a mean that is not zero; a new order each epoch."""

    d_in = D_IN

    def __init__(self, n: int = 8192, batch_size: int = 256, scale: float = 3.0) -> None:
        generator = torch.Generator().manual_seed(1)
        active = (torch.rand(n, N_TRUE, generator=generator) < 0.08).float()
        strength = 1 + torch.rand(n, N_TRUE, generator=generator)
        self.vectors = scale * ((active * strength) @ directions() + 1.5)
        self.n_vectors, self.batch_size = n, batch_size
        self.metadata = SAEMetadata(model_name="toy", hook_name="toy.hook", context_size=32, extra={"source": "test"})
        self.before_batch: Callable[[int], None] = lambda index: None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        order = torch.randperm(self.n_vectors, generator=torch.Generator().manual_seed(epoch))
        for index, rows in enumerate(order.split(self.batch_size)[start:]):
            self.before_batch(index)
            yield self.vectors[rows]


class Gate:
    """Lets a stream give a set number of batches, then holds it until opened."""

    def __init__(self, stream: ToyStream, after: int) -> None:
        self.reached, self._open, self._left = threading.Event(), threading.Event(), after
        stream.before_batch = self._pass

    def _pass(self, index: int) -> None:
        self._left -= 1
        if self._left < 0:
            self.reached.set()
            self._open.wait(30)

    def open(self) -> None:
        self._open.set()


def toy_sae(seed: int = 0, **options: object) -> SAE:
    return SAE(SAEConfig(**{"d_in": D_IN, "d_sae": 64, "k": 4, "seed": seed, **options}))  # type: ignore[arg-type]


class Then:
    """What to do with a run after each row, in its thread: `then.of(train(..., on_metrics=then))`. It misses no row."""

    def __init__(self, do: Callable[[TrainingRun, dict[str, float]], object]) -> None:
        self._do, self._known = do, threading.Event()

    def of(self, run: TrainingRun) -> TrainingRun:
        self._run = run
        self._known.set()
        return run

    def __call__(self, row: dict[str, float]) -> None:
        self._known.wait(30)
        self._do(self._run, row)


def stop_when(condition: Callable[[dict[str, float]], bool]) -> Then:
    """Stop a run at the first row that a condition holds of, with no further step."""

    def stop(run: TrainingRun, row: dict[str, float]) -> None:
        if condition(row):
            run._stopping = True

    return Then(stop)
