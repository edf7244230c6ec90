"""Train sae-lens's and eai-sparsify's SAEs with their own trainers, in their own environment, on OUT/vectors.

    /tmp/peers/bin/python tests/benchmarks/quality/peers.py OUT [--seeds 0 1 2] [--only sae-lens-topk ...] [--lr LR]

sae-lens: its trainer's defaults (Adam, 3e-4) and what its tutorials add: the rate falls over the last fifth, sparsity
warms up over the first 5%, inputs scaled to their expected length. sparsify: its defaults (Signum under schedule-free)
and AuxK with 1/32, which it leaves off. Both count a feature as dead after a twentieth of the run, as ours does;
their own windows (1,000 steps, 10 million vectors) are longer than this run, so that AuxK would never begin. JumpReLU
is sae-lens's form of Anthropic's setup (tanh, bandwidth 2): with its defaults (step, bandwidth 0.05) the thresholds
hardly move in a run of this length, and L0 stayed above 400 of 1,152 whatever the coefficient.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from match import match_l0
from safetensors.torch import load_file
from torch import Tensor, nn

K, D_SAE, BATCH, KEPT = 32, 4 * 288, 1024, 8192


class Data:
    """The vectors of the cache: the last KEPT of them for measuring L0, the others shuffled by the seed."""

    def __init__(self, out: Path) -> None:
        self.about = json.loads((out / "about.json").read_text())
        shards = sorted((out / "vectors").glob("shard-*.safetensors"))
        every = torch.cat([load_file(shard)["vectors"] for shard in shards])
        every = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(1234))]
        self.kept, self.vectors = every[-KEPT:], every[:-KEPT]
        self.n_steps = len(self.vectors) // BATCH

    def order(self, seed: int) -> Tensor:
        order = torch.randperm(len(self.vectors), generator=torch.Generator().manual_seed(seed))
        return order[: self.n_steps * BATCH].view(self.n_steps, BATCH)

    def batches(self, seed: int) -> Iterator[Tensor]:
        while True:  # sae-lens looks at some batches before it begins
            for rows in self.order(seed):
                yield self.vectors[rows]


def sae_lens(data: Data, architecture: str, coefficient: float | None, seed: int, lr: float | None) -> Any:
    """A trained sae-lens SAE."""
    import sae_lens as peer
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    warm = data.n_steps // 20
    shared = {"d_in": data.about["d_in"], "d_sae": D_SAE, "normalize_activations": "expected_average_only_in"}
    if architecture == "topk":
        sae: Any = peer.TopKTrainingSAE(peer.TopKTrainingSAEConfig(k=K, **shared))
    elif architecture == "batchtopk":
        sae = peer.BatchTopKTrainingSAE(peer.BatchTopKTrainingSAEConfig(k=K, **shared))
    elif architecture == "relu":
        sparsity = {"l1_coefficient": coefficient, "l1_warm_up_steps": warm}
        sae = peer.StandardTrainingSAE(peer.StandardTrainingSAEConfig(**sparsity, **shared))
    else:
        sparsity = {
            "l0_coefficient": coefficient,
            "l0_warm_up_steps": warm,
            "jumprelu_sparsity_loss_mode": "tanh",
            "jumprelu_init_threshold": 0.1,
            "jumprelu_bandwidth": 2.0,
            "jumprelu_ste_to_input": True,
            "pre_act_loss_coefficient": 3e-6,
        }
        sae = peer.JumpReLUTrainingSAE(peer.JumpReLUTrainingSAEConfig(**sparsity, **shared))
    rate = 3e-4 if lr is None else lr
    config = SAETrainerConfig(
        total_training_samples=data.n_steps * BATCH,
        train_batch_size_samples=BATCH,
        lr_decay_steps=data.n_steps // 5,
        dead_feature_window=warm,
        n_batches_for_norm_estimate=50,
        logger=LoggingConfig(log_to_wandb=False),
        lr=rate,
        lr_end=rate / 10,  # as its runner sets it
    )
    SAETrainer(config, sae, data.batches(seed)).fit()
    return sae


class _Passed(nn.Module):
    """A "language model" whose only layer gives the cached vectors at the given rows: what sparsify's trainer hooks."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors, self.layer = vectors, nn.Identity()
        self.device = vectors.device
        self.dummy_inputs = {"input_ids": torch.zeros(1, 2, dtype=torch.long)}

    @property
    def base_model(self) -> _Passed:
        return self

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.layer(self.vectors[input_ids])


def sparsify(data: Data, seed: int, lr: float | None, folder: Path) -> None:
    """Train sparsify's TopK; its trainer writes it to `folder`."""
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    torch.manual_seed(seed)
    rows = [{"input_ids": part} for part in data.order(seed).view(-1, 128)]
    config = TrainConfig(
        SparseCoderConfig(num_latents=D_SAE, k=K),
        batch_size=BATCH // 128,
        lr=lr,
        auxk_alpha=1 / 32,
        dead_feature_threshold=len(data.vectors) // 20,
        hookpoints=["layer"],
        init_seeds=[seed],
        log_to_wandb=False,
        save_dir=str(folder.parent),
        run_name=folder.name,
    )
    Trainer(config, rows, _Passed(data.vectors)).fit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", help="such as sae-lens-topk; all by default")
    parser.add_argument("--lr", type=float, help="peak learning rate in place of the library's own")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = Data(asked.out)
    mark = "" if asked.lr is None else f"@{asked.lr:g}"

    def kept(name: str, seed: int, train: Callable[[], Any], about: dict[str, Any]) -> None:
        folder = asked.out / "saes" / f"{name}{mark}-{seed}"
        if (folder / "about.json").exists():
            return
        begin = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            sae = train()
        if sae is not None:
            sae.save_inference_model(folder)
        about = {**about, "cpu_seconds": time.process_time() - begin, "steps": data.n_steps}
        (folder / "about.json").write_text(json.dumps(about))
        print(folder.name, about, flush=True)

    for architecture, first in (("topk", None), ("batchtopk", None), ("jumprelu", 10.0), ("relu", 5.0)):
        name = f"sae-lens-{architecture}"
        if asked.only and name not in asked.only:
            continue
        coefficient = None
        if first is not None:
            known = asked.out / f"{name}{mark}.coefficient"
            if not known.exists():

                def l0(coefficient: float, architecture: str = architecture) -> float:
                    sae = sae_lens(data, architecture, coefficient, asked.seeds[0], asked.lr)
                    with torch.no_grad():  # the trainer has folded the scale of the inputs into the weights
                        return float((sae.eval().encode(data.kept) > 0).sum(1).float().mean())

                print(name, flush=True)
                known.write_text(repr(match_l0(l0, first, K)))
            coefficient = float(known.read_text())
        for seed in asked.seeds:
            kept(
                name,
                seed,
                lambda a=architecture, c=coefficient, s=seed: sae_lens(data, a, c, s, asked.lr),
                {"coefficient": coefficient},
            )
    if not asked.only or "sparsify-topk" in asked.only:
        for seed in asked.seeds:
            folder = asked.out / "saes" / f"sparsify-topk{mark}-{seed}"
            kept("sparsify-topk", seed, lambda s=seed, f=folder: sparsify(data, s, asked.lr, f), {})


if __name__ == "__main__":
    main()
