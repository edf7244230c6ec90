"""Does torch.compile make a training step cheaper? Each architecture's step as it is, and with its loss compiled.

    python tests/benchmarks/compiled.py [--d-in 512] [--d-sae 4096] [--batch 2048] [--threads 1] [architecture ...]

`compiled` is `TrainConfig(compile=True)`: the architecture's loss, with it its backward pass; Adam is fused already.
CPU seconds are of the whole process, the least of five steps; compiling is counted apart. On a GPU seconds are those
of the clock, after a synchronisation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, architectures, get_architecture
from saewidgets.training.config import TrainConfig
from saewidgets.training.step import Steps, prepare


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """The least of five, after two that warm up."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(7):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - begin)
    return min(taken[2:])


def make_step(cfg: SAEConfig, x: torch.Tensor, compiled: bool) -> Callable[[], None]:
    sae = SAE(cfg).to(x.device)
    centre = prepare(sae, x)
    steps = Steps(sae, TrainConfig(n_tokens=len(x) * 1000, compile=compiled), 1000, centre)
    knobs = Knobs(sparsity=cfg.sparsity_coefficient or 0.0, k=cfg.k, progress=0.5)
    return lambda: steps.take(x, x, knobs, 1e-4, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [name for name in architectures() if not get_architecture(name).predicts_target]
    parser.add_argument("names", nargs="*", metavar="architecture", default=every)
    for name, value in {"d-in": 512, "d-sae": 4096, "batch": 2048, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(asked.batch, asked.d_in, generator=torch.Generator().manual_seed(0)).to(device)
    print("| architecture | step, s | compiled, s | ratio | compiling, s |")
    print("|---|---|---|---|---|")
    for name in asked.names:
        cfg = SAEConfig(d_in=asked.d_in, d_sae=asked.d_sae, architecture=name)
        plain = seconds(make_step(cfg, x, compiled=False), device)
        torch._dynamo.reset()
        step = make_step(cfg, x, compiled=True)
        begin = time.perf_counter()
        try:
            step()
        except Exception as error:  # what torch cannot compile is part of the answer
            print(f"| {name} | {plain:.3f} | {type(error).__name__} | | |", flush=True)
            continue
        compiling = time.perf_counter() - begin
        fast = seconds(step, device)
        print(f"| {name} | {plain:.3f} | {fast:.3f} | {fast / plain:.2f} | {compiling:.0f} |", flush=True)


if __name__ == "__main__":
    main()
