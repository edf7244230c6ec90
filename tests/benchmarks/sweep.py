"""CPU seconds of a sweep of 8 SAEs beside one alone, on the embedded model and on cached activations.

    python tests/benchmarks/sweep.py [--n 8] [--d-sae 2048] [--steps 61] [--evaluations 1] [--threads 1]

CPU seconds are of the whole process (all threads), from the first vectors to the last row. On the model, CE loss
recovered is measured as often as by default, once for 125,000 vectors, on the same 64 held-out contexts; the cached
vectors have no model to measure it with. `stacked` is what `sw.sweep` does, `one by one` the same sweep without stacks.
Each is run `--repetitions` times in turn, and the least is taken, so that a busy machine changes the ratios little; but
with more threads than free cores, waiting counts as work. It also says how far the stacked weights are from the others.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import torch

import saewidgets as sw
from saewidgets.training.data import TensorStream, Vectors, held_out_score
from saewidgets.training.loop import Loop
from saewidgets.training.sweep_loop import SweepLoop

HOOK = "blocks.2.hook_resid_post"


def work(acts: Any, configs: list[sw.SAEConfig], n_tokens: int, n_evaluations: int, stacked: bool) -> SweepLoop:
    """A sweep's work, not yet begun, without the thread."""
    config = sw.TrainConfig(n_tokens=n_tokens, n_evaluations=n_evaluations, n_snapshots=0, n_logs=10)
    saes = [sw.SAE(cfg) for cfg in configs]
    vectors, score = Vectors(acts, saes[0]), held_out_score(acts, None)
    loops = SweepLoop([Loop(sae, vectors, config, score) for sae in saes])
    if not stacked:
        loops.stacks.clear()
    return loops


def seconds(
    acts: Any, configs: list[sw.SAEConfig], n_tokens: int, n_evaluations: int, stacked: bool
) -> tuple[float, list[sw.SAE]]:
    """CPU seconds of the training, and what came of it."""
    loops = work(acts, configs, n_tokens, n_evaluations, stacked)
    start = time.process_time()
    loops.begin(lambda: True)
    while loops.tokens < n_tokens:
        loops.take(loops.vectors.next())
        loops.log_if_due()
    return time.process_time() - start, loops.saes


def compare(
    title: str,
    make: Callable[[], Any],
    configs: list[sw.SAEConfig],
    n_tokens: int,
    n_evaluations: int,
    repetitions: int,
) -> None:
    """Print the cost of one SAE, of all stacked, and of all one by one."""
    kinds = {"one alone": (configs[:1], True), "stacked": (configs, True), "one by one": (configs, False)}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    saes: dict[str, list[sw.SAE]] = {}
    for _ in range(repetitions):
        for kind, (some, stacked) in kinds.items():
            spent, saes[kind] = seconds(make(), some, n_tokens, n_evaluations, stacked)
            taken[kind].append(spent)
    least = {kind: min(spent) for kind, spent in taken.items()}
    print(f"{title}: {n_tokens:,} vectors, CE loss recovered measured {n_evaluations} x")
    for kind, spent in least.items():
        print(
            f"    {len(kinds[kind][0])} SAEs, {kind:12s} {spent:8.2f} CPU s   {spent / least['one alone']:5.2f} x one"
        )
    pairs = zip(saes["stacked"], saes["one by one"], strict=True)
    apart = max(
        float((a - b).abs().max().detach())
        for ours, theirs in pairs
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    print(
        f"    weights, stacked against one by one: {'equal bits' if apart == 0 else f'{apart:.1e} apart'}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options = (("n", 8), ("d-sae", 2048), ("steps", 61), ("batch", 2048), ("threads", 1), ("repetitions", 2))
    for name, default in (*options, ("evaluations", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    torch.set_num_threads(sizes.threads)
    model, texts = sw.load_model(), sw.load_texts()

    def stream() -> sw.ActivationStream:
        return sw.ActivationStream(model, texts, HOOK, context_size=128, batch_size=sizes.batch, block_batches=8)

    n_tokens = sizes.steps * sizes.batch
    vectors = torch.cat([batch.clone() for batch in itertools.islice(stream(), sizes.steps)])
    ks = [16, 20, 24, 32, 32, 40, 44, 48][: sizes.n] + [32] * (sizes.n - 8)
    configs = [sw.SAEConfig(d_in=vectors.shape[1], d_sae=sizes.d_sae, k=k, seed=seed) for seed, k in enumerate(ks)]
    configs.sort(key=lambda cfg: abs(cfg.k - 32))  # the one alone has k 32, the mean of all
    print(
        f"torch {torch.__version__}, {sizes.threads} threads, load {os.getloadavg()[0]:.1f}: {sizes.n} TopK SAEs, "
        f"d_in {vectors.shape[1]}, d_sae {sizes.d_sae}, k {', '.join(map(str, ks))}, batch {sizes.batch}"
    )
    compare("the embedded model", stream, configs, n_tokens, sizes.evaluations, sizes.repetitions)
    compare("cached", lambda: TensorStream(vectors, sizes.batch), configs, n_tokens, 0, sizes.repetitions)


if __name__ == "__main__":
    main()
