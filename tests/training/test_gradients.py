"""The gradient of a batch: in parts it is the same, it is clipped on the device, and bf16 only runs where it can."""

from __future__ import annotations

import importlib
import shutil
from typing import Any

import pytest
import torch

from saewidgets.sae.architectures import Knobs, architectures
from saewidgets.training import TrainConfig, train
from saewidgets.training.gradients import CompiledGradients, Gradients, check_precision, clipped, out_of_memory

from .toy import ToyStream, toy_sae

X = ToyStream(n=300).vectors / 10
ACROSS_A_BATCH = {"batchtopk", "matryoshka", "p_anneal", "relu_kl"}
"""Architectures whose code or loss of one vector depends on the others of its batch."""


def gradients(sae: Any, precision: str = "float32") -> Gradients:
    return Gradients(sae, list(sae.parameters()), precision)


def sae_of(architecture: str, **options: Any) -> Any:
    k = {} if architecture in ("dense", "relu", "relu_kl", "jumprelu", "gated", "p_anneal") else {"k": 4}
    from saewidgets.sae import SAE, SAEConfig

    return SAE(SAEConfig(d_in=X.shape[1], d_sae=64, architecture=architecture, **k, **options))


def knobs(sae: Any) -> Knobs:
    return Knobs(sae.cfg.sparsity_coefficient or 0.0, 4, 0.5)


@pytest.mark.parametrize("architecture", sorted(set(architectures()) - ACROSS_A_BATCH))
def test_parts_add_up_to_the_whole(architecture: str) -> None:
    sae = sae_of(architecture, dtype="float64")
    x = X.double()
    whole, expected = gradients(sae).of(x, x, knobs(sae), None)
    parted = gradients(sae)
    parted.micro_batch = 77  # 300 = 3 * 77 + 69
    losses, found = parted.of(x, x, knobs(sae), None)
    assert torch.allclose(losses.loss, whole.loss.detach(), rtol=1e-12) and torch.equal(losses.fired, whole.fired)
    assert torch.allclose(losses.residual, whole.residual)
    assert losses.extra.keys() == whole.extra.keys()
    for name, value in whole.extra.items():
        assert torch.allclose(losses.extra[name], value, rtol=1e-9)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-14)


def limited(sae: Any, most: int) -> None:
    """Let the device have memory for no more than `most` vectors at once."""
    architecture = sae.architecture
    loss = architecture.loss

    def allocate(sae: Any, x: torch.Tensor, *rest: Any) -> Any:
        if len(x) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return loss(sae, x, *rest)

    class Limited:
        def __getattr__(self, name: str) -> Any:
            return allocate if name == "loss" else getattr(architecture, name)

    type(sae).architecture = property(lambda self: Limited())


@pytest.fixture
def unlimited() -> Any:
    from saewidgets.sae import SAE

    before = SAE.architecture
    yield
    SAE.architecture = before  # type: ignore[method-assign]


def test_without_memory_the_batch_is_halved_and_the_run_goes_on(unlimited: None) -> None:
    plain = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=20_000, dead_window=10**6))
    plain.wait()
    sae = toy_sae()
    limited(sae, most=70)
    run = train(sae, ToyStream(), TrainConfig(n_tokens=20_000, dead_window=10**6))
    run.wait()
    assert run.state == "finished" and run.step == plain.step
    assert run.events.values.tolist() == [[1, 256, "micro_batch", 256, 64]]
    assert run.metrics.loss.tolist() == pytest.approx(plain.metrics.loss.tolist(), rel=1e-3)
    assert run.metrics.explained_variance.iloc[-1] == pytest.approx(plain.metrics.explained_variance.iloc[-1], abs=1e-3)


def test_memory_for_not_even_one_vector_fails_with_what_the_device_said(unlimited: None) -> None:
    sae = toy_sae()
    limited(sae, most=0)
    run = train(sae, ToyStream(), TrainConfig(n_tokens=20_000))
    with pytest.raises(RuntimeError, match="The run failed at step 0: CUDA out of memory"):
        run.wait()


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


def test_clipping_scales_all_gradients_together_and_only_if_they_are_long() -> None:
    given = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]  # norm 5
    assert [g.tolist() for g in clipped(given, 1.0)] == [pytest.approx([0.6, 0.0]), [pytest.approx([0.8])]]
    assert all(torch.equal(a, b) for a, b in zip(clipped(given, 6.0), given, strict=True))
    assert clipped(given, None) is given
    zeros = clipped([torch.zeros(3)], 1.0)[0]
    assert torch.equal(zeros, torch.zeros(3))


def test_clipping_reaches_the_training() -> None:
    losses = []
    for clip_norm in (None, 1e9, 1e-9):
        config = TrainConfig(n_tokens=20_000, clip_norm=clip_norm, optimizer="adam")
        run = train(toy_sae(), ToyStream(), config)
        run.wait()
        losses.append(run.metrics.loss.tolist())
    assert losses[0] == losses[1]
    assert losses[2][-1] > 1.5 * losses[0][-1]  # below Adam's epsilon almost nothing is learned


@pytest.mark.parametrize("architecture", architectures())
def test_bf16_gives_gradients_near_those_of_float32(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saewidgets.training.gradients._has_bf16", lambda device: True)
    sae = sae_of(architecture)
    whole, expected = gradients(sae).of(X, X, knobs(sae), None)
    losses, found = gradients(sae, "bf16").of(X, X, knobs(sae), None)
    assert losses.loss.dtype == torch.float32 and all(g.dtype == torch.float32 for g in found)
    assert torch.allclose(losses.loss, whole.loss, rtol=0.02)
    assert not all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)), "nothing was cast"
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 0.35 * other.norm()  # which features are active differs in places


def test_bf16_is_refused_where_the_device_or_the_sae_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    with pytest.raises(ValueError, match="needs a device with bfloat16 arithmetic, and 'cpu' has none"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=1000, precision="bf16"))
    check_precision("float32", toy_sae())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    check_precision("bf16", toy_sae())
    with pytest.raises(ValueError, match="this one is in float64"):
        gradients(toy_sae(dtype="float64"), "bf16")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_gradients_are_the_same() -> None:
    sae = sae_of("relu_kl")
    compiled = CompiledGradients(sae, list(sae.parameters()), "float32")
    for progress in (0.1, 0.2, 0.3):  # the knobs move with each step
        moving = Knobs(progress, 4, progress)
        whole, expected = gradients(sae).of(X, X, moving, None)
        losses, found = compiled.of(X, X, moving, None)
        assert torch.allclose(losses.loss, whole.loss, rtol=1e-5)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_trains() -> None:
    sae = sae_of("dense")
    run = train(sae, ToyStream(n=300), TrainConfig(n_tokens=3_000, compile=True, n_logs=4))
    run.wait()
    assert run.metrics.loss.iloc[-1] < 0.8 * run.metrics.loss.iloc[0]


def test_without_a_compiler_the_sentence_says_what_to_leave_out() -> None:
    inductor = importlib.import_module("torch._inductor.config")
    torch.compiler.reset()
    sae = sae_of("dense")
    none = inductor.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True})
    sentence = r"cannot compile the loss here .*Leave TrainConfig\(compile=True\) out"
    with none, pytest.raises(RuntimeError, match=sentence):
        CompiledGradients(sae, list(sae.parameters()), "float32").of(X, X, knobs(sae), None)


def test_a_backward_pass_that_cannot_be_compiled_gets_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = sae_of("dense")
    compiled = CompiledGradients(sae, list(sae.parameters()), "float32")
    monkeypatch.setattr(compiled, "_compiled", sae.architecture.loss)
    inductor = importlib.import_module("torch._inductor.exc")

    def grad(*_: Any, **__: Any) -> Any:  # what torch raises there without a compiler
        raise inductor.InductorError(RuntimeError("No working C++ compiler found"), None)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    with pytest.raises(RuntimeError, match=r"cannot compile the loss here .*Leave TrainConfig\(compile=True\) out"):
        compiled.of(X, X, knobs(sae), None)


@pytest.mark.parametrize("architecture", ["batchtopk", "p_anneal"])
def test_what_a_loss_asks_of_the_whole_batch_is_compiled_too(architecture: str) -> None:
    torch.compiler.reset()
    sae = sae_of(architecture)
    told = torch._dynamo.explain(sae.architecture.loss)(sae, X, X, knobs(sae), torch.arange(3))
    asked = [frame.filename for reason in told.break_reasons for frame in reason.user_stack]
    assert not any(name.endswith("across.py") for name in asked)


def test_compile_is_yes_or_no() -> None:
    with pytest.raises(TypeError, match="compile must be True or False, got 'max-autotune'"):
        TrainConfig(n_tokens=1, compile="max-autotune")  # type: ignore[arg-type]
