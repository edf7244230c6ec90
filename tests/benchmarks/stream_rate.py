"""Tokens a second of an `ActivationStream`, beside bare forwards to the same layer; and of its cache.

    python tests/benchmarks/stream_rate.py [--model NAME_OR_FOLDER] [--hook blocks.2.hook_resid_post] [--threads 1]
        [--context-size 128] [--texts 400] [--contexts-per-forward N]

`bare` runs whole contexts of the same tokens, `contexts-per-forward` of them at once, through the model up to the
hook (`stop_at_layer`) and does nothing with what comes out; it counts all of its tokens. `stream` is one epoch of the
stream: forwards, leaving out position 0 and padding, shuffling, batches. It counts the tokens of the text that it read,
the left-out positions among them. `cache` reads the same vectors from disk (float16). The rounds take turns and the
medians of CPU seconds are given: on a busy machine only those can be trusted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

import saewidgets as sw
from saewidgets.activations import pack
from saewidgets.models import lock_of


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the CPU, and on the wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--hook", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context-size", type=int, default=128)
    parser.add_argument("--contexts-per-forward", type=int, default=None)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = sw.load_model(options.model, device="cpu")
    hook = options.hook or f"blocks.{model.cfg.n_layers // 2 - 1}.hook_resid_post"
    texts = sw.load_texts()[: options.texts]
    acts = sw.ActivationStream(
        model, texts, hook, context_size=options.context_size, contexts_per_forward=options.contexts_per_forward
    )
    packed = pack(model, texts, options.context_size)
    packed = packed[: len(packed) - len(acts.held_out_tokens)]
    full = packed.tokens[packed.mask.all(1)]
    n_read = int(packed.mask.sum())

    @torch.no_grad()
    def bare() -> None:
        for some in full.split(acts.contexts_per_forward):
            with lock_of(model):
                model(some, stop_at_layer=acts.site.stop_at_layer)

    def stream() -> None:
        for _ in acts:
            pass

    with tempfile.TemporaryDirectory() as folder:
        cached = acts.cache(folder)

        def cache() -> None:
            for _ in cached:
                pass

        tokens = {bare: full.numel(), stream: n_read, cache: n_read}
        rates: dict[Callable[[], None], list[tuple[float, float]]] = {work: [] for work in tokens}
        for _ in range(options.rounds):
            for work, n in tokens.items():
                cpu, wall = spent(work)
                rates[work].append((n / cpu, n / wall))
    print(
        f"{model.cfg.model_name}, {hook}, contexts of {options.context_size}, {acts.contexts_per_forward} a forward, "
        f"{n_read:,} tokens of text in {len(packed):,} contexts ({len(full):,} of them full), threads {options.threads}"
    )
    reference = statistics.median(cpu for cpu, _ in rates[bare])
    for work in tokens:
        cpu, wall = (statistics.median(some) for some in zip(*rates[work], strict=True))
        name = work.__name__
        print(
            f"  {name:<7}{cpu:>12,.0f} tokens per CPU second {wall:>12,.0f} per second {cpu / reference:8.1%} of bare"
        )


if __name__ == "__main__":
    main()
