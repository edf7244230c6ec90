"""Building a feature index, and asking it: seconds, bytes, milliseconds.

    python tests/benchmarks/index_build.py                          # 2,048 features over 200,000 tokens, embedded model
    python tests/benchmarks/index_build.py --tokens 50000 --model /path/to/a/model

Prints one figure a line. The SAE is the embedded one where it fits, else an untrained one (whose features are denser
and whose values are no better sorted: the harder case).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import saewidgets as sw


def milliseconds(call: Callable[[int], object], features: list[int]) -> tuple[float, float]:
    """Median and worst time of a call, over features that were not asked before."""
    taken = []
    for feature in features:
        start = time.perf_counter()
        call(feature)
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken), max(taken)


def whole_view(index: sw.FeatureIndex, feature: int) -> None:
    """Everything one feature's dashboard shows first."""
    index.row(feature)
    index.histogram(feature)
    index.logit_histogram(feature)
    index.logits(feature)
    index.quantiles(feature)
    index.examples(feature, n=20)
    index.examples(feature, n=20, kind="random")
    intervals = index.intervals(feature)
    for lo, hi in zip(intervals["lo"], intervals["hi"], strict=True):
        index.examples(feature, n=5, kind=(lo, hi))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--model", help="name or folder; default the embedded model")
    parser.add_argument("--features", type=int, default=2048, help="d_sae of the untrained SAE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = sw.load_model(options.model)
    texts = sw.load_texts()
    sae = None
    if options.model is None:
        sae = sw.load_sae()
    if sae is None:
        sae = sw.SAE(sw.SAEConfig(d_in=model.cfg.d_model, d_sae=options.features, k=32))
        sae.metadata = sae.metadata.replace(hook_name="blocks.2.hook_resid_post", context_size=128)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features"
        phases: dict[str, float] = {}
        start, used = time.perf_counter(), time.process_time()
        index = sw.FeatureIndex.build(
            sae,
            model,
            texts,
            path,
            max_tokens=options.tokens,
            on_progress=lambda phase, done: phases.update({phase: time.perf_counter() - start}),
        )
        seconds, used = time.perf_counter() - start, time.process_time() - used
        size = sum(file.stat().st_size for file in path.iterdir())
        stored = (path / "activations.parquet").stat().st_size
        print(f"{sae}, {options.threads} threads")
        print(f"{index.n_tokens:,} tokens, {index.meta['n_activations']:,} activations")
        print(f"build                {seconds:8.1f} s       {index.n_tokens / seconds:,.0f} tokens/s")
        print(f"  processor time         {used:8.1f} s")
        previous = 0.0
        for phase, at in phases.items():
            print(f"  {phase:<24} {at - previous:6.1f} s")
            previous = at
        print(f"stored               {stored / index.meta['n_stored']:8.2f} bytes per activation")
        print(f"whole folder         {size / 1e6:8.1f} MB")

        start = time.perf_counter()
        index = sw.FeatureIndex.open(path)
        print(f"open                 {1000 * (time.perf_counter() - start):8.1f} ms")
        start = time.perf_counter()
        whole_view(index, 0)
        print(f"first view           {1000 * (time.perf_counter() - start):8.1f} ms      (reads the tables)")
        alive = index.table().query("density > 0")["feature"].tolist()
        chosen = alive[1 :: max(1, len(alive) // 60)]
        median, worst = milliseconds(lambda feature: whole_view(index, feature), chosen)
        print(f"a feature's view     {median:8.1f} ms      worst {worst:.1f}")
        fresh = sw.FeatureIndex.open(path)
        fresh.row(0)
        median, worst = milliseconds(lambda feature: fresh.examples(feature, n=20), chosen)
        print(f"top 20 examples      {median:8.1f} ms      worst {worst:.1f}")
        words = [" girl", " dog", "park", " happy", "ing", " tree"]
        median, worst = milliseconds(lambda i: index.search(words[i]), list(range(len(words))))
        print(f"search for a token   {median:8.1f} ms      worst {worst:.1f}")
        median, worst = milliseconds(lambda i: index.search(["once upon", " very happ", "xylo"][i]), [0, 1, 2])
        print(f"search across tokens {median:8.1f} ms      worst {worst:.1f}")
        median, worst = milliseconds(index.similar, chosen[:10])
        print(f"similar features     {median:8.1f} ms      worst {worst:.1f}")
        start = time.perf_counter()
        index.table()
        print(f"table                {1000 * (time.perf_counter() - start):8.1f} ms")


if __name__ == "__main__":
    main()
