"""Time of a TopK training step on a GPU: ours with torch's kernels and with Triton's, beside the roofline and peers.

    python tests/benchmarks/gpu_step.py                        # on a GPU: d_in 768, d_sae 24,576 and 131,072, k 32,
                                                               # batch 8,192, float32, TF32 and bf16
    python tests/benchmarks/gpu_step.py --device cpu --small   # in a minute on a CPU: that it runs, no figures

Nothing of TransformerLens is needed, only torch and triton; run it from the repository's root with PYTHONPATH=. .
sae-lens and eai-sparsify are measured where they can be imported, in bf16 as they do it themselves (`autocast=True`;
the autocast inside SparseCoder.forward), each with its trainer's order of operations, AuxK idle.

The roofline is what cannot be left out: the encoder's product, timed by itself in the precision of the row, and the
optimizer's traffic, 32 bytes for each weight (weight, gradient and two moments read; weight, moments and gradient
written), at the rate of a copy on this device. `five` are the matrix products of a dense step. `ours` is a cycle of
`aux_every` steps with 5% of the features dead, so AuxK is in it at its cadence. Before the times: whether Triton's
gradients are torch's on this device, and whether a step makes the host wait (torch's sync debug mode).

`parts` are single kernels. `hot` features are active in every vector: one program sums all of them (see
`kernels_triton.sum_rows`), so they show what an uneven dictionary costs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig, kernels
from saewidgets.sae.architectures import Knobs
from saewidgets.sae.kernels import Places
from saewidgets.training.config import TrainConfig
from saewidgets.training.gradients import Gradients
from saewidgets.training.step import Steps, prepare

BYTES_A_WEIGHT = 32

SPARSE = ("topk", "batchtopk", "matryoshka", "abstopk")
"""Whose steps must not make the host wait."""


def seconds(work: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """The median of several runs, by the device's own clock."""
    taken = []
    for _ in range(3):
        work()
    for _ in range(repetitions):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end) / 1e3)
        else:
            before = time.perf_counter()
            work()
            taken.append(time.perf_counter() - before)
    return sorted(taken)[len(taken) // 2]


def bytes_a_second(device: torch.device, n: int, time_of: Callable[[Any], float]) -> float:
    """Read and written by a copy of n numbers."""
    source, target = torch.empty(n, device=device), torch.empty(n, device=device)
    return 2 * n * source.element_size() / time_of(lambda: target.copy_(source))


@contextlib.contextmanager
def kernels_of(name: str) -> Iterator[None]:
    """Torch's kernels, or those that would be taken anyway."""
    with mock.patch.object(kernels, "triton_for", lambda x: None) if name == "torch" else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def our_cycle(
    x: Tensor, d_sae: int, k: int, precision: str, architecture: str = "topk"
) -> tuple[Callable[[], None], int]:
    """A cycle of our steps, and how many steps it is."""
    sae = SAE(SAEConfig(d_in=x.shape[1], d_sae=d_sae, k=k, architecture=architecture), device=x.device)
    config = TrainConfig(n_tokens=10_000_000, precision=precision)
    steps, knobs = Steps(sae, config, 1000, prepare(sae, x)), Knobs(sparsity=0.0, k=k, progress=0.5)
    steps.silent[: d_sae // 20] = config.dead_window or 0
    steps.find_dead()

    def cycle() -> None:
        for step in range(config.aux_every):
            steps.take(x, x, knobs, 1e-4, revive=step == 0)

    return cycle, config.aux_every


# ── peers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sae_lens_step(x: Tensor, d_sae: int, k: int) -> Callable[[], object]:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = str(x.device)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=d_sae, k=k, device=device))
    config = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=len(x), device=device, lr_end=3e-5, autocast=True
    )
    trainer = SAETrainer(config, sae, iter(lambda: x, None))
    return lambda: trainer.step(x)


def sparsify_step(x: Tensor, d_sae: int, k: int) -> Callable[[], object]:
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=d_sae, k=k), device=x.device, dtype=torch.float32)
    optimizer = torch.optim.Adam(sae.parameters(), lr=2e-4)
    fired = torch.zeros(d_sae, dtype=torch.bool, device=x.device)

    def step() -> None:
        sae.set_decoder_norm_to_unit_norm()
        out = sae(x, total_variance=(x - x.mean(0)).pow(2).sum())
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step


PEERS = {"sae-lens topk, autocast": sae_lens_step, "eai-sparsify topk, Adam": sparsify_step}


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def say_whether_gradients_agree(x: Tensor, d_sae: int, k: int) -> None:
    sae = SAE(SAEConfig(d_in=x.shape[1], d_sae=d_sae, k=k), device=x.device)
    prepare(sae, x)
    by: dict[str, list[Tensor]] = {}
    for name in ("torch", "triton"):
        with kernels_of(name):
            scaled = sae.scaled(x).detach()
            gradients = Gradients(sae, list(sae.parameters()), "float32")
            by[name] = gradients.of(scaled, scaled, Knobs(0.0, k, 0.5), None)[1]
    errors = [float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(by["triton"], by["torch"], strict=True)]
    told = ", ".join(f"{name} {e:.1e}" for (name, _), e in zip(sae.named_parameters(), errors, strict=True))
    print(f"gradients, Triton's against torch's (relative, float32): {told}")


def say_whether_the_host_waits(x: Tensor, d_sae: int, k: int) -> None:
    for architecture in SPARSE:
        for precision in ("float32", "bf16"):
            cycle, _ = our_cycle(x, d_sae, k, precision, architecture)
            cycle()  # compiles the kernels
            torch.cuda.set_sync_debug_mode("error")
            try:
                cycle()
                told = "none"
            except RuntimeError as error:
                told = str(error).splitlines()[0]
            finally:
                torch.cuda.set_sync_debug_mode("default")
            print(f"host waits in a step of {architecture}, {precision}: {told}")


def say_parts(x: Tensor, d_sae: int, k: int, hot: int, triton: bool, time_of: Callable[[Any], float]) -> None:
    d_in, n, device = x.shape[1], len(x), x.device
    generator = torch.Generator(device=device).manual_seed(0)
    indices = torch.randint(0, d_sae, (n, k), generator=generator, device=device)
    indices[:, :hot] = torch.arange(hot, device=device)
    values = torch.rand(n, k, generator=generator, device=device)
    W = torch.randn(d_sae, d_in, generator=generator, device=device)
    chunk = torch.randn(min(n, max(1, (1 << 27) // d_sae)), d_sae, generator=generator, device=device)

    def parts(low: torch.dtype) -> dict[str, Callable[[], object]]:
        places, rows, table, some = Places.even(indices, d_sae), x.to(low), W.to(low), chunk.to(low)
        order = places.by_feature  # made here, and timed by itself
        return {
            f"top {k} of {chunk.shape[0]} x {d_sae}": lambda: some.topk(k, sorted=False)
            if not on_triton() else on_triton().top(some, k),
            "decode": lambda: places.sum_by_vector(values.to(low) if not on_triton() else values, table),
            "gradient of the code": lambda: places.dot(rows, table),
            "gradient of a weight": lambda: places.sum_by_feature(
                values.to(low) if not on_triton() else values, rows
            ) if order else None,
            "sort by feature": lambda: Places.even(indices, d_sae).by_feature,
        }  # fmt: skip

    def on_triton() -> Any:
        return kernels.triton_for(x)

    print(f"{'part, ' + str(hot) + ' hot features':44s} {'torch':>10s} {'torch bf16':>10s}", end="")
    print(f" {'triton':>10s} {'triton bf16':>11s}   ms")
    columns = []
    for name in ("torch", "triton") if triton else ("torch",):
        for low in (torch.float32, torch.bfloat16):
            with kernels_of(name):
                columns.append({part: time_of(work) for part, work in parts(low).items()})
    for part in columns[0]:
        print(f"{part:44s} " + " ".join(f"{1e3 * column[part]:10.3f}" for column in columns), flush=True)


def run(sizes: argparse.Namespace, d_sae: int) -> None:
    device, k, d_in, n = torch.device(sizes.device), sizes.k, sizes.d_in, sizes.batch
    x = torch.randn(n, d_in, generator=torch.Generator().manual_seed(0)).to(device)
    triton = kernels.triton_for(x) is not None

    def time_of(work: Callable[[], object]) -> float:
        return seconds(work, device, sizes.repetitions)

    print(f"\nd_in {d_in}, d_sae {d_sae}, k {k}, batch {n}")
    if triton:
        say_whether_gradients_agree(x, d_sae, k)
    if device.type == "cuda":
        say_whether_the_host_waits(x, d_sae, k)
    rate = bytes_a_second(device, 1 << (20 if sizes.small else 28), time_of)
    update = BYTES_A_WEIGHT * 2 * d_in * d_sae / rate
    print(f"a copy moves {rate / 1e12:.3f} TB/s, so the optimizer needs {1e3 * update:.3f} ms")
    print(f"{'':44s} {'ms a step':>10s} {'x roofline':>10s} {'x five':>10s}")

    bounds: dict[str, tuple[float, float]] = {}
    precisions = ["float32", "TF32", "bf16"] if device.type == "cuda" else ["float32"]
    for precision in precisions:
        low = torch.bfloat16 if precision == "bf16" else torch.float32
        with tf32(precision == "TF32"):
            W, few = torch.randn(d_in, d_sae, device=device, dtype=low), x.to(low)
            encode = time_of(lambda few=few, W=W: few @ W)  # type: ignore[misc]
            code = few @ W
            decode = time_of(lambda code=code, W=W: code @ W.t())  # type: ignore[misc]
            weight = time_of(lambda code=code, few=few: code.t() @ few)  # type: ignore[misc]
        del W, code
        bounds[precision] = (encode + update, 2 * encode + decode + 2 * weight)
        print(f"{'roofline, ' + precision:44s} {1e3 * bounds[precision][0]:10.3f}")
        print(f"{'five products, ' + precision:44s} {1e3 * bounds[precision][1]:10.3f}")

    def row(name: str, took: float, precision: str) -> None:
        roofline, five = bounds[precision]
        print(f"{name:44s} {1e3 * took:10.3f} {took / roofline:10.2f} {took / five:10.2f}", flush=True)

    for precision in precisions:
        for name in ("torch", "triton") if triton else ("torch",):
            with kernels_of(name), tf32(precision == "TF32"):
                cycle, steps = our_cycle(x, d_sae, k, "bf16" if precision == "bf16" else "float32")
                took = time_of(cycle) / steps
            row(f"ours, {name}'s kernels, {precision}", took, precision)
            del cycle
    if not triton:
        print(f"{'ours, triton':44s} not here: it needs a GPU, and triton")
    for name, make in PEERS.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                step = make(x, d_sae, k)
                took = time_of(step)
        except Exception as error:
            print(f"{name:44s} not here: {type(error).__name__}: {str(error).splitlines()[0][:60]}")
        else:
            row(name, took, precisions[-1])
    for hot in (0, min(4, k // 2)):
        say_parts(x, d_sae, k, hot, triton, time_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--d-in", type=int)
    parser.add_argument("--d-sae", type=int, nargs="+")
    parser.add_argument("--k", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repetitions", type=int)
    sizes = parser.parse_args()
    defaults: dict[str, Any] = (
        {"d_in": 64, "d_sae": [1024], "k": 8, "batch": 256, "repetitions": 3} if sizes.small
        else {"d_in": 768, "d_sae": [24_576, 131_072], "k": 32, "batch": 8192, "repetitions": 20}
    )  # fmt: skip
    for name, value in defaults.items():
        if getattr(sizes, name) is None:
            setattr(sizes, name, value)
    if sizes.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here that torch sees. Try --device cpu --small.")
    card = torch.cuda.get_device_name() if sizes.device.startswith("cuda") else "CPU"
    print(f"torch {torch.__version__}, {card}, {torch.get_num_threads()} threads")
    for d_sae in sizes.d_sae:
        run(sizes, d_sae)


if __name__ == "__main__":
    main()
