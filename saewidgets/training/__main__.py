"""Train an SAE from a page of settings (see `saewidgets.training.job.TrainJob`), on one process or on many:

python -m saewidgets.training train.toml
torchrun --nproc-per-node 8 -m saewidgets.training train.toml
"""

from __future__ import annotations

import argparse
import os
import sys

import torch
import torch.distributed as dist

from saewidgets.training.job import TrainJob


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m saewidgets.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", metavar="train.toml")
    job = TrainJob.from_toml(parser.parse_args().job)
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        run = job.start(on_metrics=_say)
        job.finish(run)
    finally:
        if several:
            dist.destroy_process_group()


def _say(row: dict[str, float]) -> None:
    said = {name: row[name] for name in ("step", "tokens", "loss", "explained_variance", "l0", "dead_fraction")}
    sys.stdout.write("  ".join(f"{name} {value:.6g}" for name, value in said.items()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
