"""A slider moved to the new next-token probabilities: milliseconds and CPU seconds, beside a whole steered forward.

    python tests/benchmarks/slider.py [--model NAME_OR_FOLDER] [--hook blocks.2.hook_resid_post] [--threads 1]

`slider` is `NextToken.probabilities` (only the layers after the hook run), `whole` the same edit in a forward from the
first token. `cold` makes a new `NextToken` first, as a changed prompt does. The median of the repetitions is given: on
a busy machine the CPU seconds are what can be trusted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import saewidgets as sw
from saewidgets.interventions import NextToken

PROMPT = "Once upon a time there was a little bridge. Every day a girl named Lily walked over it to see her friend."


def measure(work: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Median milliseconds on the wall, and of the CPU."""
    work()
    wall, cpu = [], []
    for _ in range(repetitions):
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return statistics.median(wall) * 1e3, statistics.median(cpu) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--hook", default=None)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = sw.load_model(options.model, device="cpu")
    hook = options.hook or f"blocks.{model.cfg.n_layers // 2 - 1}.hook_resid_post"
    if options.model is None:
        sae = sw.load_sae()
        hook = options.hook or sae.metadata.hook_name or hook
    else:
        sae = sw.SAE(sw.SAEConfig(d_in=model.cfg.d_model, d_sae=4096, k=32)).requires_grad_(False)
    view = NextToken(model, sae, PROMPT, hook_name=hook)
    strengths = iter(range(1, 10_000))

    def slide() -> torch.Tensor:
        return view.probabilities({12: sw.Clamp(next(strengths) / 100)})

    def whole() -> torch.Tensor:
        with torch.no_grad(), sw.steering(sae, model, {12: sw.Clamp(next(strengths) / 100)}, hook_name=hook):
            logits: torch.Tensor = model(view.tokens)
        return logits[0, -1].softmax(-1)

    def cold() -> torch.Tensor:
        return NextToken(model, sae, PROMPT, hook_name=hook).probabilities({12: sw.Clamp(1.0)})

    size = f"{view.tokens.shape[1]} tokens, d_sae {sae.cfg.d_sae}, threads {options.threads}"
    print(f"{model.cfg.model_name}, {hook}, {size}")
    for name, work in (("slider", slide), ("whole", whole), ("cold", cold)):
        wall, cpu = measure(work, options.repetitions)
        print(f"  {name:<8}{wall:8.1f} ms   {cpu:8.1f} CPU ms")
    edits = {12: sw.Clamp(3.0)}
    with torch.no_grad(), sw.steering(sae, model, edits, hook_name=hook):
        exact = model(view.tokens)[0, -1].softmax(-1)
    print(f"  largest difference to the whole forward: {float((view.probabilities(edits) - exact).abs().max()):.1e}")


if __name__ == "__main__":
    main()
