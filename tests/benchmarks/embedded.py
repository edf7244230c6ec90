"""Every architecture on the embedded model, at d_sae = 8 d_in and its own defaults: scores on held-out text.

    python tests/benchmarks/embedded.py [--tokens 1000000] [architecture ...]

Transcoders read what enters the MLP of the block whose output the others reconstruct, and predict what it adds: their
explained variance is that of the MLP's output, and their prediction takes its place for the CE loss.

Printed, as a markdown table: L0, explained variance, CE loss recovered, dead features (silent on all of the held-out
vectors), those that were counted as dead in training at the end, and the processor time of the run, the model included.
"""

from __future__ import annotations

import argparse
import time

import torch

import saewidgets as sw
from saewidgets.sae.architectures import architectures, get_architecture

HOOK, D_SAE = "blocks.2.hook_resid_post", 8 * 288
MLP_IN, MLP_OUT = "blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="architecture", default=architectures())
    parser.add_argument("--tokens", type=int, default=1_000_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, texts, held_out = sw.load_model(), sw.load_texts(), sw.load_texts(split="held_out")
    print("| architecture | L0 | explained variance | CE loss recovered | dead, held out | dead, training | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.names:
        read, target = (MLP_IN, MLP_OUT) if get_architecture(name).predicts_target else (HOOK, None)
        acts = sw.ActivationStream(
            model, texts, read, target_hook_name=target, context_size=128, batch_size=2048, seed=0
        )
        sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=D_SAE, architecture=name))
        begin = time.process_time()
        run = sw.train(sae, acts, sw.TrainConfig(n_tokens=asked.tokens, n_evaluations=0))
        run.wait()
        seconds = time.process_time() - begin
        scores = sw.evaluate(sae, model, held_out)
        print(
            f"| {name} | {scores.l0:.1f} | {scores.explained_variance:.3f} | {scores.ce_loss_recovered:.3f} | "
            f"{scores.dead_fraction:.1%} | {run.metrics.dead_fraction.iloc[-1]:.1%} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
