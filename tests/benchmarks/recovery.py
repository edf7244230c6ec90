"""How many true features each architecture finds, in a toy model of superposition with twice as many as dimensions.

    python tests/benchmarks/recovery.py [--d-in 32] [--tokens 400000] [--seeds 2] [architecture ...]

Each vector is a sum of a few of 2 d_in random unit directions: each is active with probability 3 / (2 d_in), so three
in a vector on average, with a strength uniform from 1 to 2. An SAE with d_sae = 2 d_in is trained on them, with k = 3
where it has a k, with the sparsity of `OPTIONS` where it has a coefficient, and else its defaults. Printed, as a
markdown table: the mean over the true features of the largest cosine with a decoder row ("mean max cosine"; 1 is all
found), how many are found (cosine above 0.9), L0, explained variance, the mean activation of a found feature beside
the true one (below 1 is shrinkage), and dead features, on vectors that were not trained on.

A transcoder reads the same vectors and predicts another random direction for each true feature; what is scored is what
its features write. The score of rows that were never trained stands in the last line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import Knobs, architectures, get_architecture
from saewidgets.training.config import TrainConfig
from saewidgets.training.step import Steps, prepare

ACTIVE, BATCH, FOUND = 3, 512, 0.9

OPTIONS: dict[str, dict[str, Any]] = {
    "relu": {"sparsity_coefficient": 2.0},
    "p_anneal": {"sparsity_coefficient": 1.5},
    "gated": {"sparsity_coefficient": 4.0},
    "jumprelu": {"sparsity_coefficient": 0.03},
    "relu_kl": {"target_rate": 3 / 64},
}
"""Sparsity such that L0 comes near the true 3: the defaults are for a language model's activations."""


@dataclass(frozen=True)
class Toy:
    """Vectors with known features: `read` [n_true, d_in] in the input, `write` [n_true, d_in] in the target."""

    read: Tensor
    write: Tensor

    @classmethod
    def draw(cls, d_in: int, seed: int) -> Toy:
        # not the SAE's seed: its first rows would be the features
        generator = torch.Generator().manual_seed(0x70 + 7919 * seed)
        rows = [torch.randn(2 * d_in, d_in, generator=generator) for _ in range(2)]
        return cls(*(torch.nn.functional.normalize(row, dim=1) for row in rows))

    def vectors(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Strengths [n, n_true] and vectors [n, d_in]."""
        n_true = self.read.shape[0]
        active = torch.rand(n, n_true, generator=generator) < ACTIVE / n_true
        strengths = active * (1 + torch.rand(n, n_true, generator=generator))
        return strengths, strengths @ self.read


def train(sae: SAE, toy: Toy, n_tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(1000 + seed)
    config, n_steps = TrainConfig(n_tokens=n_tokens), n_tokens // BATCH
    transcodes = sae.architecture.predicts_target
    strengths, sample = toy.vectors(8192, generator)
    steps = Steps(sae, config, n_steps, prepare(sae, sample, strengths @ toy.write if transcodes else None))
    for step in range(n_steps):
        progress = step / n_steps
        if step % max(1, n_steps // 200) == 0:
            steps.find_dead()
        strengths, x = toy.vectors(BATCH, generator)
        warm = min(1.0, progress / 0.1)
        knobs = Knobs(warm * (sae.cfg.sparsity_coefficient or 0.0), sae.cfg.k, progress)
        lr = config.peak_lr(sae.cfg.d_sae, n_steps) * config.lr_factor(progress)
        steps.take(x, strengths @ toy.write if transcodes else x, knobs, lr, revive=step % config.aux_every == 0)
        if progress < 0.8 and step % max(1, n_steps // 40) == 0:
            steps.resample()
    sae.fold_()


@torch.no_grad()
def score(sae: SAE, toy: Toy, seed: int) -> list[float]:
    strengths, x = toy.vectors(8192, torch.Generator().manual_seed(5000 + seed))
    transcodes = sae.architecture.predicts_target
    y, true = (strengths @ toy.write, toy.write) if transcodes else (x, toy.read)
    cosines = torch.nn.functional.normalize(sae.W_dec, dim=1) @ true.T
    if sae.cfg.architecture in ("abstopk", "dense"):  # a row may stand for the opposite of a feature
        cosines = cosines.abs()
    best, which = cosines.max(0)
    f, xhat = sae.encode(x), sae(x)
    found = (best > FOUND).nonzero().squeeze(1)
    # in the units of the data: f times the length of the feature's row
    given = (f * sae.W_dec.norm(dim=1))[:, which[found]].abs()
    both = (strengths[:, found] > 0) & (given > 0)
    size = float(given[both].sum() / strengths[:, found][both].sum()) if bool(both.any()) else float("nan")
    explained = 1 - float((y - xhat).square().sum() / (y - y.mean(0)).square().sum())
    l0 = float((f != 0).sum(1).double().mean())
    return [
        float(best.mean()),
        float((best > FOUND).double().mean()),
        l0,
        explained,
        size,
        float((f == 0).all(0).double().mean()),
    ]


def make(name: str, d_in: int, seed: int) -> SAE:
    reads = get_architecture(name).reads or frozenset()
    options = ({"k": ACTIVE} if "k" in reads else {}) | OPTIONS.get(name, {})
    return SAE(SAEConfig(d_in=d_in, d_sae=2 * d_in, architecture=name, seed=seed, **options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="architecture", default=architectures())
    for option, default in (("d-in", 32), ("tokens", 400_000), ("seeds", 2)):
        parser.add_argument(f"--{option}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| architecture | mean max cosine | found | L0 | explained variance | activation / true | dead |")
    print("|---|---|---|---|---|---|---|")
    for name in [*asked.names, "untrained"]:
        rows = []
        for seed in range(asked.seeds):
            toy, sae = Toy.draw(asked.d_in, seed), make(name if name != "untrained" else "topk", asked.d_in, seed)
            if name != "untrained":
                train(sae, toy, asked.tokens, seed)
            rows.append(score(sae, toy, seed))
        cosine, found, l0, explained, size, dead = torch.tensor(rows).mean(0).tolist()
        print(
            f"| {name} | {cosine:.3f} | {found:.0%} | {l0:.2f} | {explained:.3f} | {size:.2f} | {dead:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
