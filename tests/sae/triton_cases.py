"""What the Triton kernels must give, in float32 against torch's: a script that `test_kernels_triton.py` runs.

    TRITON_INTERPRET=1 python tests/sae/triton_cases.py interpret     # on this CPU
    python tests/sae/triton_cases.py compile                          # for an H100, without having one
    python tests/sae/triton_cases.py gpu                              # on a GPU: the cases of the interpreter

Prints, as JSON, a name for each case and null, or the traceback of what was wrong.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig, kernels
from saewidgets.sae.architectures import Knobs
from saewidgets.sae.kernels import Places, decode, encode_topk, largest
from saewidgets.training.gradients import Gradients

INTERPRETED: dict[str, Callable[[], None]] = {}
COMPILED = {
    "sum_rows": torch.bfloat16,
    "sum_rows_float32": torch.float32,
    "dot_rows": torch.bfloat16,
    "top": torch.float32,
    "top_of_magnitudes_with_bias": torch.bfloat16,
}
"""What is compiled, and the type of the rows that it reads."""

DEVICE = "cuda" if __name__ == "__main__" and sys.argv[1:] == ["gpu"] else "cpu"
"""Where the cases make their tensors."""

CHUNK = 32
"""Instead of 4096: three rounds of selection over few numbers. The interpreter takes a millisecond for a line."""


def interpreted(case: Callable[[], None]) -> Callable[[], None]:
    INTERPRETED[case.__name__] = case
    return case


def torch_s() -> Any:
    """Context in which torch's kernels are taken."""
    return mock.patch.object(kernels, "triton_for", lambda x: None)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu").to(DEVICE)


def close(ours: Tensor, reference: Tensor, what: str = "", tolerance: float = 1e-5) -> None:
    assert ours.dtype == reference.dtype and ours.shape == reference.shape, what
    size = max(1.0, float(reference.detach().abs().max())) if reference.numel() else 1.0
    assert torch.allclose(ours, reference, rtol=0, atol=tolerance * size), (what, float((ours - reference).abs().max()))


# ── what the interpreter runs ────────────────────────────────────────────────────────────────────────────────────────


@interpreted
def the_code_and_all_gradients_equal_torch_s() -> None:
    n, d_in, d_sae, k = 7, 13, 71, 5
    leaves = [normal(*s).requires_grad_() for s in [(n, d_in), (d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]]

    def run(shift: float) -> list[Tensor]:
        x, W_enc, b_enc, W_dec, b_dec = leaves
        values, indices, places = encode_topk(x, W_enc, b_enc - shift, b_dec, k)
        out = decode(values, places, W_dec, b_dec)
        gradients = torch.autograd.grad((out - normal(n, d_in, seed=1)).square().sum(), leaves)
        return [values.sum(1), indices.sort().values.float(), out, *gradients]

    names = ("values", "indices", "out", "x", "W_enc", "b_enc", "W_dec", "b_dec")
    for shift in (0.0, 7.0):  # with the second one, some of the k best are below zero
        ours = run(shift)
        with torch_s():
            reference = run(shift)
        for name, a, b in zip(names, ours, reference, strict=True):
            close(a, b, f"{name}, shift {shift}", 2e-5)
        assert ours[4].abs().sum() > 0
        assert (ours[6].abs().sum(1) == 0).any(), "there should be features that nothing activates"


@interpreted
def a_feature_twice_in_one_vector_and_vectors_without_any() -> None:
    d_sae, d = 6, 300  # more than one program wide, and no multiple of its width
    twice = Places.even(torch.tensor([[3, 3, 1], [4, 1, 1]]), d_sae)
    rows = torch.tensor([1, 1, 1, 1, 3])
    uneven = Places.uneven(rows, torch.tensor([5, 2, 2, 0, 2]), 5, d_sae)
    nothing = Places.uneven(rows[:0], rows[:0], 3, d_sae)
    for places in (twice, uneven, nothing):
        weights = normal(len(places.rows), seed=2)
        if len(weights):
            weights[0] = 0.0
        vectors, features, centre = normal(places.n, d), normal(d_sae, d, seed=1), normal(d, seed=3)

        def all_of(places: Places = places, w: Tensor = weights, v: Tensor = vectors, f: Tensor = features,
                   c: Tensor = centre) -> list[Tensor]:  # fmt: skip
            return [
                places.sum_by_vector(w, f), places.sum_by_feature(w, v), places.dot(v, f),
                *places.sum_centred(w, v, c, torch.float32),
            ]  # fmt: skip

        ours = all_of()
        with torch_s():
            reference = all_of()
        for what, a, b in zip(("by vector", "by feature", "dot", "centred", "total"), ours, reference, strict=True):
            close(a, b, f"{what} of {places.n} vectors", 2e-5)


@interpreted
def many_vectors_of_one_feature() -> None:
    n = 70  # several rounds of the loop over places
    places = Places.even(torch.tensor([[2]] * n), 4)
    weights, vectors = normal(n), normal(n, 5, seed=1)
    summed = places.sum_by_feature(weights, vectors)
    close(summed[2], weights @ vectors, tolerance=1e-4)
    assert summed[[0, 1, 3]].eq(0).all()


@interpreted
def half_precision_rows_are_summed_in_float32() -> None:
    places = Places.even(torch.arange(40).view(2, 20), 40)
    for dtype in (torch.bfloat16, torch.float16):
        table, weights = normal(40, 17).to(dtype), normal(2, 20, seed=1)
        close(places.sum_by_vector(weights, table), torch.einsum("nk,nkd->nd", weights, table.float().view(2, 20, 17)))
        low = normal(2, 17, seed=2).to(dtype)
        dots = torch.einsum("nd,nkd->nk", low.float(), table.float().view(2, 20, 17)).reshape(-1)
        close(places.dot(low, table), dots)


@interpreted
def the_k_largest_of_any_row() -> None:
    from saewidgets.sae import kernels_triton

    inf, nan = float("inf"), float("nan")
    for m, k in ((3, 3), (32, 9), (33, 16), (150, 7)):
        x = normal(4, m)
        x[1] = (3 * x[1]).round() / 3  # many ties
        x[2, ::2], x[2, 1] = -inf, inf
        x[3] = 0.5  # all equal
        buffers: list[Tensor] = []

        def guarded(*shape: int, made: list[Tensor] = buffers, **kind: Any) -> Tensor:
            made.append(torch.full((math.prod(shape) + 1,), 77, **kind))
            return made[-1][:-1].view(shape)

        with mock.patch.object(torch, "empty", guarded):
            values, columns = kernels_triton.top(x, k)
        assert buffers and all(buffer[-1] == 77 for buffer in buffers), "written behind the end"
        assert columns.dtype == torch.int64 and values.dtype == torch.float32
        assert torch.equal(x.gather(1, columns), values), (m, k)
        assert all(len(set(row)) == k for row in columns.tolist()), (m, k)
        assert torch.equal(values.sort(descending=True).values, x.topk(k).values), (m, k)
    found, columns = kernels_triton.top(torch.tensor([[1.0, nan, 3.0, -nan, 2.0]]), 3)
    assert set(columns[0].tolist()) == {1, 2, 3}, "NaN is above all, as in torch.topk: a bad step must be seen"
    signed, columns = kernels_triton.top(torch.tensor([[1.0, -3.0, 2.0, -0.5]]), 2, magnitude=True)
    assert sorted(signed[0].tolist()) == [-3.0, 2.0]


@interpreted
def the_encoder_s_largest_are_torch_s_also_under_autocast() -> None:
    x, W_enc, b_enc, b_in = normal(5, 8), normal(8, 150, seed=1), normal(150, seed=2), normal(8, seed=3)
    for magnitude in (False, True):
        for cast in (nullcontext(), torch.autocast(DEVICE, torch.bfloat16)):
            with cast:
                values, indices = largest(x, W_enc, b_enc, b_in, 6, magnitude)
                with torch_s():
                    expected, where = largest(x, W_enc, b_enc, b_in, 6, magnitude)
            order, their_order = indices.argsort(), where.argsort()
            assert torch.equal(indices.gather(1, order), where.gather(1, their_order))
            assert torch.equal(values.gather(1, order), expected.gather(1, their_order))
    assert [t.shape for t in largest(x[:0], W_enc, b_enc, b_in, 6)] == [(0, 6), (0, 6)]


@interpreted
def autocast_gathers_half_precision_and_gives_float32() -> None:
    places, values = Places.even(torch.tensor([[0, 2], [2, 1]]), 3), normal(2, 2).requires_grad_()
    W_dec, b_dec = normal(3, 9, seed=1).requires_grad_(), normal(9, seed=2).requires_grad_()
    reference = decode(values, places, W_dec, b_dec)
    with torch.autocast(DEVICE, torch.bfloat16):
        low = decode(values, places, W_dec, b_dec)
    close(low, reference, tolerance=0.03)
    assert not torch.equal(low, reference)
    for a, b in zip(
        torch.autograd.grad(low.square().sum(), [values, W_dec, b_dec]),
        torch.autograd.grad(reference.square().sum(), [values, W_dec, b_dec]),
        strict=True,
    ):
        assert float((a - b).norm() / b.norm()) < 0.02


@interpreted
def a_training_step_of_each_sparse_architecture() -> None:
    n, d_in, d_sae, k = 6, 7, 40, 3
    x, target = normal(n, d_in), normal(n, d_in, seed=1)
    for name in ("topk", "batchtopk", "matryoshka", "abstopk", "transcoder", "jumprelu"):
        k_of = {} if name == "jumprelu" else {"k": k}
        own = {"matryoshka_widths": (10, 40)} if name == "matryoshka" else {}
        if name == "topk":
            own = {"multi_k": 6}
        sae = SAE(SAEConfig(d_in=d_in, d_sae=d_sae, architecture=name, **k_of, **own), device=DEVICE)
        with torch.no_grad():
            sae.b_enc.add_(0.2 * normal(d_sae, seed=4))
        parameters = list(sae.parameters())
        goal = target if name == "transcoder" else x
        dead = None if name == "jumprelu" else torch.tensor([0, 5, 17, 39])
        knobs = Knobs(0.1, k, 0.5)
        losses, gradients = Gradients(sae, parameters, "float32").of(x, goal, knobs, dead)
        with torch_s():
            expected, theirs = Gradients(sae, parameters, "float32").of(x, goal, knobs, dead)
        close(losses.loss.detach(), expected.loss.detach(), name)
        close(losses.residual, expected.residual, name)
        assert torch.equal(losses.fired, expected.fired), name
        for (parameter, _), a, b in zip(sae.named_parameters(), gradients, theirs, strict=True):
            close(a, b, f"{parameter} of {name}", 2e-5)


# ── what is compiled ─────────────────────────────────────────────────────────────────────────────────────────────────


def compile_launches() -> dict[str, str | None]:
    """Compile for an H100 what the functions of the module would launch there: by name, None or what went wrong."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from saewidgets.sae import kernels_triton

    types = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int64: "i64", torch.int32: "i32"}

    class Compiler:
        def __init__(self, kernel: Any) -> None:
            self.kernel, self.n = kernel, 0

        def __getitem__(self, grid: Any) -> Any:
            return self.launch

        def launch(self, *args: Any, num_warps: int, **constants: Any) -> None:
            names = self.kernel.arg_names
            signature = dict.fromkeys(names, "constexpr")
            aligned: dict[Any, Any] = {}
            for at, (name, value) in enumerate(zip(names, args, strict=False)):
                signature[name] = f"*{types[value.dtype]}" if isinstance(value, Tensor) else "i32"
                if isinstance(value, Tensor) or value % 16 == 0:
                    aligned[(at,)] = [["tt.divisibility", 16]]
            source = ASTSource(
                fn=self.kernel,
                signature=signature,
                constexprs={(names.index(name),): value for name, value in constants.items()},
                attrs=aligned,
            )
            binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
            assert binary.asm["cubin"], "no code came out"
            self.n += 1

    for name in ("_sum_rows", "_dot_rows", "_select"):
        setattr(kernels_triton, name, Compiler(getattr(kernels_triton, name)))
    d, d_sae, n, k = 768, 24_576, 4, 32
    ids, starts = torch.zeros(n * k, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    told: dict[str, str | None] = {}
    for name, dtype in COMPILED.items():
        told[name] = None
        try:
            if name.startswith("sum_rows"):
                table, weights = torch.zeros(n, d, dtype=dtype), torch.zeros(n * k)
                kernels_triton.sum_rows(table, ids, weights, starts)
            elif name == "dot_rows":
                rows = torch.zeros(n, d, dtype=dtype)
                kernels_triton.dot_rows(rows, ids, rows, ids)
            else:
                magnitude = name != "top"
                values = torch.zeros(n, d_sae, dtype=dtype)
                kernels_triton.top(values, k, torch.zeros(d_sae) if magnitude else None, magnitude)
        except Exception:
            told[name] = traceback.format_exc()
    assert kernels_triton._select.n == 4, "two rounds each"  # type: ignore[attr-defined]
    return told


def run_cases() -> dict[str, str | None]:
    from saewidgets.sae import kernels_triton

    torch.set_default_device(DEVICE)
    kernels_triton.CHUNK = CHUNK
    assert kernels.triton_for(torch.zeros(1)) is kernels_triton
    told: dict[str, str | None] = {}
    for name, case in INTERPRETED.items():
        told[name] = None
        try:
            case()
        except Exception:
            told[name] = traceback.format_exc()
    return told


if __name__ == "__main__":
    print(json.dumps(compile_launches() if sys.argv[1] == "compile" else run_cases()))
