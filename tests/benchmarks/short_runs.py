"""What a short run reads, and whether its SAE is what its metrics say: on the embedded model, on held-out text.

    python tests/benchmarks/short_runs.py [--n-tokens 4096 20000 100000] [architecture ...]

Printed, as a markdown table: tokens that went through the language model, CPU seconds, the run's own L0 and explained
variance in its last row, and those of the trained SAE on held-out text. An inference threshold that lags behind the
training shows as another L0. One thread, d_sae 1,024, k 16 where there is a k.
"""

from __future__ import annotations

import argparse
import time

import torch

import saewidgets as sw
from saewidgets.sae.architectures import architectures, get_architecture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="architecture", default=["topk", "batchtopk", "matryoshka"])
    parser.add_argument("--n-tokens", type=int, nargs="+", default=[4096, 20_000, 100_000])
    asked = parser.parse_args()
    unknown = set(asked.names) - set(architectures())
    if unknown:
        raise SystemExit(f"There is no architecture {', '.join(sorted(unknown))}.")
    torch.set_num_threads(1)
    model, texts, held_out = sw.load_model(), sw.load_texts()[:2000], sw.load_texts(split="held_out")
    read = 0

    def count(module: torch.nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal read
        read += out.shape[0] * out.shape[1]

    model.embed.register_forward_hook(count)
    print("| architecture | vectors | tokens read | CPU s | L0, run | L0, held out | EV, run | EV, held out |")
    print("|---|---|---|---|---|---|---|---|")
    for name in asked.names:
        k = {"k": 16} if "k" in (get_architecture(name).reads or ()) else {}
        for n_tokens in asked.n_tokens:
            acts = sw.ActivationStream(model, texts, "blocks.2.hook_resid_post", context_size=128, seed=0)
            sae = sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=1024, architecture=name, **k))
            read, begin = 0, time.process_time()
            run = sw.train(sae, acts, sw.TrainConfig(n_tokens=n_tokens, n_evaluations=0))
            run.wait()
            seconds, tokens, last = time.process_time() - begin, read, run.metrics.iloc[-1]
            scores = sw.evaluate(sae, model, held_out, max_tokens=10_000)
            print(
                f"| {name} | {n_tokens:,} | {tokens:,} | {seconds:.1f} | {last.l0:.1f} | {scores.l0:.1f} | "
                f"{last.explained_variance:.3f} | {scores.explained_variance:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
