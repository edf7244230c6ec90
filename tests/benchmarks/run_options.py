"""What optimizers, schedules, precision, checkpoints and snapshots do to a run on the embedded model.

    python tests/benchmarks/run_options.py [--n-tokens 250000] [--d-sae 1024] [--k 16]

One thread, the same activations, in memory, for all; explained variance is on vectors that none was trained on. CPU
seconds are of the whole process, so the first figures of a busy machine compare well and the clock does not. The last
lines write one checkpoint and one snapshot of an SAE of d_in 512, d_sae 8192 and read the checkpoint back.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import saewidgets as sw
from saewidgets.training import TensorStream, checkpoints
from saewidgets.training.data import Vectors
from saewidgets.training.loop import Loop

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"lr_schedule": "cosine"},
    {"lr_schedule": "constant"},
    {"clip_norm": 1.0},
    {"precision": "bf16"},
    {"optimizer": "muon"},
    {"optimizer": "muon", "lr": 2e-3},
    {"optimizer": "muon", "lr": 1.5e-2},
    {"optimizer": "signum"},
    {"optimizer": "signum", "lr": 5e-4},
    {"optimizer": "signum", "lr": 3e-3},
)


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of the embedded model to train on, and others."""
    acts = sw.ActivationStream(sw.load_model(), sw.load_texts()[:1500], "blocks.2.hook_resid_post", batch_size=1024)
    x = torch.cat(list(acts))
    return x[8000:120_000], x[:8000]


def train(x: torch.Tensor, held_out: torch.Tensor, sizes: argparse.Namespace, options: dict[str, Any]) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=x.shape[1], d_sae=sizes.d_sae, k=sizes.k))
    start = time.process_time()
    run = sw.train(sae, TensorStream(x, 1024), sw.TrainConfig(n_tokens=sizes.n_tokens, n_snapshots=0, **options))
    run.wait()
    with torch.no_grad():
        left = (held_out - sae(held_out)).square().sum() / (held_out - held_out.mean(0)).square().sum()
    name = ", ".join(f"{key} {value}" for key, value in options.items()) or "as it comes"
    dead, spent = run.metrics.dead_fraction.iloc[-1], time.process_time() - start
    print(f"{name:28s} explained variance {1 - float(left):.3f}   dead {dead:.3f}   CPU s {spent:.1f}", flush=True)


def store() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sae = sw.SAE(sw.SAEConfig(d_in=512, d_sae=8192))
        x = torch.randn(4096, 512, generator=torch.Generator().manual_seed(0))
        loop = Loop(sae, Vectors(x, sae), sw.TrainConfig(n_tokens=10**6, checkpoint_dir=folder), None)
        loop.begin(lambda: True)
        loop.take(loop.vectors.next())
        for name, work in (
            ("write a checkpoint", loop.save),
            ("read and check it", lambda: checkpoints.newest(folder)),
            ("write a snapshot", loop._snapshot),
        ):
            start = time.perf_counter()
            work()
            print(f"{name:28s} {time.perf_counter() - start:.2f} s", flush=True)
        for file in Path(folder).rglob("*.safetensors"):
            print(f"{file.name:28s} {file.stat().st_size / 2**20:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("n-tokens", 250_000), ("d-sae", 1024), ("k", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    torch.set_num_threads(1)
    x, held_out = vectors()
    for options in OPTIONS:
        train(x, held_out, sizes, options)
    store()


if __name__ == "__main__":
    main()
