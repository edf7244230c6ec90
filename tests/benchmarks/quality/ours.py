"""Train ours on OUT/vectors, at its defaults: see README.md here.

python tests/benchmarks/quality/ours.py OUT [--seeds 0 1 2] [--only topk ...]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from match import match_l0
from peers import BATCH, D_SAE, Data, K

import saewidgets as sw
from saewidgets.training.data import TensorStream


def train(data: Data, architecture: str, coefficient: float | None, seed: int) -> sw.SAE:
    """A trained SAE; the vectors are gone through once, shuffled by the seed, as the peers' are."""
    sparsity = {"k": K} if coefficient is None else {"sparsity_coefficient": coefficient}
    config = sw.SAEConfig(d_in=data.about["d_in"], d_sae=D_SAE, architecture=architecture, seed=seed, **sparsity)
    sae = sw.SAE(config)
    acts = TensorStream(data.vectors[: data.n_steps * BATCH], batch_size=BATCH, seed=seed)
    sw.train(sae, acts, sw.TrainConfig(n_tokens=data.n_steps * BATCH, n_evaluations=0, n_snapshots=0)).wait()
    return sae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=["topk", "batchtopk", "jumprelu", "relu"])
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = Data(asked.out)
    for architecture in asked.only:
        coefficient = None
        if architecture in ("jumprelu", "relu"):
            known = asked.out / f"saewidgets-{architecture}.coefficient"
            if not known.exists():

                def l0(coefficient: float, architecture: str = architecture) -> float:
                    sae = train(data, architecture, coefficient, asked.seeds[0])
                    with torch.no_grad():
                        return float((sae.encode(data.kept) > 0).sum(1).float().mean())

                print(architecture, flush=True)
                first = sw.SAEConfig(d_in=data.about["d_in"], d_sae=D_SAE, architecture=architecture)
                known.write_text(repr(match_l0(l0, first.sparsity_coefficient or 1.0, K)))
            coefficient = float(known.read_text())
        for seed in asked.seeds:
            folder = asked.out / "saes" / f"saewidgets-{architecture}-{seed}"
            if (folder / "about.json").exists():
                continue
            begin = time.process_time()
            sae = train(data, architecture, coefficient, seed)
            about = {"coefficient": coefficient, "cpu_seconds": time.process_time() - begin, "steps": data.n_steps}
            sw.save_sae(sae, folder)
            (folder / "about.json").write_text(json.dumps(about))
            print(folder.name, about, flush=True)


if __name__ == "__main__":
    main()
