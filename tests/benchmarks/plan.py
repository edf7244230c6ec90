"""`sw.plan` beside measured runs on this CPU: seconds and memory, predicted and measured.

    python tests/benchmarks/plan.py [--threads 1]

Each run is a process of its own: it trains a topk SAE on random vectors that lie in memory, and says the CPU seconds of
a step (the median, after a warm-up) and by how much the process's memory grew at most since before the SAE was made
(Linux only: VmHWM). With one thread, CPU seconds are what the wall clock would say on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

RUN = """
import json, statistics, sys, time
import torch
import saewidgets as sw
from saewidgets.sae.architectures import Knobs
from saewidgets.training.step import Steps, prepare, warm_up

d_in, d_sae, k, batch, threads, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
warm_up(torch.device("cpu"))
vectors = torch.randn(4 * batch, d_in, generator=torch.Generator().manual_seed(0))
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

open("/proc/self/clear_refs", "w").write("5")  # forget the largest size until now, that of the imports
before = status("VmRSS")
sae = sw.SAE(sw.SAEConfig(d_in=d_in, d_sae=d_sae, k=k))
config = sw.TrainConfig(n_tokens=batch * steps)
training = Steps(sae, config, steps, prepare(sae, vectors[:batch]))
spent = []
for step in range(steps):
    start = time.process_time()
    x = vectors[torch.randperm(len(vectors))[:batch]]
    training.take(x, x, Knobs(0.0, k, step / steps), 1e-4, revive=False)
    spent.append(time.process_time() - start)
print(json.dumps([statistics.median(spent[2:]), status("VmHWM") - before]))
"""

SHAPES = [(288, 3072, 32, 2048), (512, 8192, 32, 4096), (512, 32768, 32, 1024)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    import torch

    import saewidgets as sw

    torch.set_num_threads(options.threads)
    print("d_in  d_sae    k   batch |  CPU seconds a step: predicted, measured |  memory in MB: predicted, measured")
    for d_in, d_sae, k, batch in SHAPES:
        plan = sw.plan(d_in, d_sae, k, batch * options.steps, batch_size=batch, dead_fraction=0.0)
        arguments = [str(n) for n in (d_in, d_sae, k, batch, options.threads, options.steps)]
        done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=True)
        seconds, n_bytes = json.loads(done.stdout)
        predicted = plan.step_seconds * options.threads
        print(
            f"{d_in:>4} {d_sae:>6} {k:>4} {batch:>7} | {predicted:>12.2f} {seconds:>8.2f} "
            f"({predicted / seconds - 1:+.0%})".ljust(68)
            + f"| {plan.memory_bytes / 1e6:>10.0f} {n_bytes / 1e6:>8.0f} ({plan.memory_bytes / n_bytes - 1:+.0%})"
        )


if __name__ == "__main__":
    main()
