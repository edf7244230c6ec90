"""Train the SAE that comes with the demo model: 20 million activation vectors of stories, harvested once.

The text's vectors are kept in memory in fp16 and gone through several times, each time in another order. What
is saved is fp16 in the SAELens layout, with the curve of the run beside it.

    python -m saewidgets.models.demo.train_sae /work/shared/corpora/stories-sampled.txt data/sae --topic bridges.txt \\
        --stories 8000 --log sae_curve.csv
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import saewidgets as sw
from saewidgets.models.demo.make_text import read_stories

HOOK_NAME = "blocks.2.hook_resid_post"
CONTEXT_SIZE = 128
BATCH_SIZE = 4096


class Harvested:
    """The vectors of one epoch of a stream, in fp16, as a stream of their own: epoch e is permuted by (seed, e)."""

    def __init__(self, acts: sw.ActivationStream, seed: int) -> None:
        self.d_in, self.batch_size, self.metadata = acts.d_in, acts.batch_size, acts.metadata
        self.ce_loss_recovered = acts.ce_loss_recovered
        self.seed = seed
        self._vectors = torch.empty(acts.n_batches * acts.batch_size, acts.d_in, dtype=torch.float16)
        for number, batch in enumerate(acts):
            self._vectors[number * acts.batch_size : (number + 1) * acts.batch_size] = batch
            if number % 100 == 0:
                print(f"harvested {number} of {acts.n_batches} batches", flush=True)

    @property
    def n_vectors(self) -> int:
        return len(self._vectors)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[torch.Tensor]:
        order = torch.randperm(self.n_vectors, generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        for some in order.split(self.batch_size)[start:]:
            yield self._vectors[some].float()

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self.batches()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--topic", type=Path, help="more stories, from sample_topic.py")
    parser.add_argument("--n-tokens", type=int, default=20_500_000)
    parser.add_argument("--d-sae", type=int, default=3072)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stories", type=int, default=None, help="only so many of the text's")
    parser.add_argument("--log", type=Path, default=Path("sae_curve.csv"))
    options = parser.parse_args()

    began = time.monotonic()
    model = sw.load_model()
    kept_for_scores = set(sw.load_texts(split="held_out"))  # stories of the same file
    stories = [story for story in read_stories(options.text) if story not in kept_for_scores][: options.stories]
    if options.topic:
        stories += read_stories(options.topic)
    acts = sw.ActivationStream(
        model,
        stories,
        HOOK_NAME,
        context_size=CONTEXT_SIZE,
        batch_size=BATCH_SIZE,
        seed=options.seed,
        contexts_per_forward=64,
    )
    print(acts, flush=True)
    vectors = Harvested(acts, options.seed)
    print(f"{vectors.n_vectors:,} vectors after {time.monotonic() - began:.0f} s", flush=True)

    cfg = sw.SAEConfig(d_in=acts.d_in, d_sae=options.d_sae, architecture="topk", k=options.k, seed=options.seed)
    sae = sw.SAE(cfg)

    def report(row: dict[str, float]) -> None:
        print(
            f"{row['tokens'] / 1e6:6.2f}M  ev {row['explained_variance']:.4f}  dead {row['dead_fraction']:.4f} in "
            f"{row['dead_window'] / 1e6:.2f}M  CE recovered {row['ce_loss_recovered']:.4f}  {row['seconds']:.0f} s",
            flush=True,
        )

    run = sw.train(sae, vectors, sw.TrainConfig(n_tokens=options.n_tokens, lr=options.lr), on_metrics=report)
    run.wait()
    sw.save_sae(sae, options.output, dtype="float16")
    run.metrics.drop(columns=["seconds", "vectors_per_second"]).round(5).to_csv(options.log, index=False)
    print(sw.evaluate(sw.load_sae(options.output), model, sw.load_texts(split="held_out")))


if __name__ == "__main__":
    main()
