"""A step never makes the host wait for the device. Seen on a CPU by the operations that a step is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, architectures, get_architecture
from saewidgets.sae.selection import everywhere
from saewidgets.training import TrainConfig
from saewidgets.training.data import TensorStream
from saewidgets.training.step import Steps, prepare

WAITS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_unique2", "unique_dim", "unique_consecutive",
    "masked_select", "bincount", "lift_fresh", "item",
}  # fmt: skip
"""Operations whose result the host needs to go on; `lift_fresh` is torch.tensor(...), a copy that is waited for."""


class Waits(TorchDispatchMode):
    """Collects the operations that would make the host wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITS or masked or str(func) == "aten.repeat_interleave.Tensor":
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_waits_is_seen() -> None:
    x = torch.arange(4.0)
    for work in (lambda: float(x.sum()), lambda: x[x > 1], lambda: torch.tensor([1.0, 2.0]), lambda: x.nonzero()):
        with Waits() as waits:
            work()
        assert waits.seen
    with Waits() as waits:
        x[torch.arange(2)].sum() + torch.where(x > 1, x, 0.0).topk(2).values
    assert not waits.seen


def step_of(name: str, monkeypatch: pytest.MonkeyPatch, optimizer: str = "adam") -> list[str]:
    """What a step waits for after the first one, AuxK included."""
    reads = get_architecture(name).reads or frozenset()
    own: dict[str, Any] = {"k": 3} if "k" in reads else {}
    if name == "matryoshka":
        own["matryoshka_widths"] = (10, 40)
    sae = SAE(SAEConfig(d_in=6, d_sae=40, architecture=name, **own))
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    module = __import__(type(sae.architecture).__module__, fromlist=["above"])
    if hasattr(module, "above"):  # what is taken on a GPU
        monkeypatch.setattr(module, "above", lambda x, W_enc, b_enc, b_in, threshold: everywhere(x, W_enc, b_enc, b_in))
    centre = prepare(sae, x, x if sae.architecture.predicts_target else None)
    steps = Steps(sae, TrainConfig(n_tokens=1000, optimizer=optimizer, clip_norm=1.0), 100, centre)
    steps.dead = torch.tensor([1, 2, 5])
    knobs = Knobs(0.1, 3, 0.5)
    steps.take(x, x, knobs, 1e-3, revive=True)
    with Waits() as waits:
        steps.take(x, x, knobs, 1e-3, revive=True)
    return waits.seen


@pytest.mark.parametrize("name", [name for name in architectures() if name in (
    "abstopk", "batchtopk", "dense", "gated", "jumprelu", "matching_pursuit", "matryoshka", "p_anneal", "relu",
    "relu_kl", "skip_transcoder", "topk", "transcoder",
)])  # fmt: skip
def test_no_step_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert step_of(name, monkeypatch) == []


@pytest.mark.parametrize("optimizer", ["signum", "muon"])
def test_no_optimizer_waits_for_the_device(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert step_of("topk", monkeypatch, optimizer) == []


def test_a_tensor_s_batches_are_taken_without_waiting() -> None:
    batches = TensorStream(torch.randn(64, 4), batch_size=16).batches()
    with Waits() as waits:
        assert [len(x) for x in batches] == [16] * 4
    assert not waits.seen
