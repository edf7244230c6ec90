"""CPU seconds of a training step of ours, beside a dense-autograd step and the dense bound of five matrix products.

    python tests/benchmarks/train_step.py [--d-in 512] [--d-sae 8192] [--k 32] [--batch 4096] [--threads 2]

CPU seconds are of the whole process (all threads), the least of several repetitions, so that a busy machine changes
the ratios little. The bound is what the matrix products of a dense SAE step cost by themselves: encoder and decoder
forward, the gradient of the code, and of both weights. `ours` is a cycle of `aux_every` steps, so that AuxK is in it
at its cadence, with 5% of the features dead and with none.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs
from saewidgets.training.config import TrainConfig
from saewidgets.training.step import Steps, prepare


def cpu_seconds(work: Callable[[], object], repetitions: int = 5) -> float:
    work()
    taken = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def five_products(x: torch.Tensor, d_sae: int) -> tuple[float, float]:
    """CPU seconds of the dense bound, and of the encoder's product alone."""
    weights = torch.randn(d_sae, x.shape[1])
    code, out, gradient = torch.empty(x.shape[0], d_sae), torch.empty_like(x), torch.empty_like(weights)
    encode = cpu_seconds(lambda: torch.mm(x, weights.T, out=code))
    decode = cpu_seconds(lambda: torch.mm(code, weights, out=out))
    weight_gradient = cpu_seconds(lambda: torch.mm(code.T, x, out=gradient))
    return 2 * encode + decode + 2 * weight_gradient, encode


def dense_step(x: torch.Tensor, d_sae: int, k: int) -> Callable[[], None]:
    """The textbook step: dense code, autograd, Adam."""
    rows = torch.nn.functional.normalize(torch.randn(d_sae, x.shape[1]), dim=1)
    W_enc, W_dec = rows.T.contiguous().requires_grad_(), rows.clone().requires_grad_()
    b_enc, b_dec = torch.zeros(d_sae, requires_grad=True), torch.zeros(x.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=1e-4, fused=True)

    def step() -> None:
        top = torch.addmm(b_enc, x - b_dec, W_enc).topk(k, dim=-1, sorted=False)
        code = torch.zeros(x.shape[0], d_sae).scatter(1, top.indices, top.values.relu())
        loss = (x - code @ W_dec - b_dec).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return step


def our_cycle(x: torch.Tensor, d_sae: int, k: int, dead_share: float) -> tuple[Callable[[], None], int]:
    """A cycle of our steps, and how many steps it is."""
    sae = SAE(SAEConfig(d_in=x.shape[1], d_sae=d_sae, k=k))
    config = TrainConfig(n_tokens=10_000_000)
    steps, knobs = Steps(sae, config, 1000, prepare(sae, x)), Knobs(sparsity=0.0, k=k, progress=0.5)

    def cycle() -> None:
        steps.silent[: int(d_sae * dead_share)] = config.dead_window or 0
        steps.find_dead()
        for step in range(config.aux_every):
            steps.take(x, x, knobs, 1e-4, revive=step == 0)

    return cycle, config.aux_every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("d-in", 512), ("d-sae", 8192), ("k", 32), ("batch", 4096), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    torch.set_num_threads(sizes.threads)
    torch.manual_seed(0)
    x = torch.randn(sizes.batch, sizes.d_in)
    bound, encode = five_products(x, sizes.d_sae)
    print(
        f"torch {torch.__version__}, {sizes.threads} threads, load {os.getloadavg()[0]:.1f}: d_in {sizes.d_in}, "
        f"d_sae {sizes.d_sae}, k {sizes.k}, batch {sizes.batch}, float32"
    )
    print(f"{'':34s} CPU s a step   x the bound")
    rows = [("bound: five matrix products", bound), ("floor: the encoder's alone", encode)]
    rows.append(("dense autograd, fused Adam", cpu_seconds(dense_step(x, sizes.d_sae, sizes.k))))
    for share in (0.0, 0.05):
        cycle, n = our_cycle(x, sizes.d_sae, sizes.k, share)
        rows.append((f"ours, {share:.0%} dead, AuxK every {n} steps", cpu_seconds(cycle, 3) / n))
    for name, seconds in rows:
        print(f"{name:34s} {seconds:12.3f}   {seconds / bound:11.2f}", flush=True)


if __name__ == "__main__":
    main()
