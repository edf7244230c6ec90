"""Train an SAE from a page of settings (see `saewidgets.training.job.TrainJob`), on one process or on many:

python -m saewidgets.training train.toml
torchrun --nproc-per-node 8 -m saewidgets.training train.toml

Given again, the command goes on from the last checkpoint in checkpoint_dir.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys

import torch
import torch.distributed as dist

from saewidgets.training.distributed import Ranks
from saewidgets.training.job import TrainJob
from saewidgets.training.run import TrainingRun

SENTENCES = (ValueError, TypeError, OSError, MemoryError, ArithmeticError, ImportError)
"""Errors that say what was wrong and what to do. Others are faults of the program, and come with their traceback."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m saewidgets.training",
        description=__doc__,
        epilog=inspect.cleandoc(TrainJob.__doc__ or "").partition("\n\nRaises")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", metavar="train.toml")
    page = parser.parse_args().job
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        return _train(page)
    except (RuntimeError, *SENTENCES) as error:
        if not isinstance(error, SENTENCES) and not isinstance(error.__cause__, SENTENCES):
            raise
        whose = f"process {dist.get_rank()}: " if several else ""
        sys.stderr.write(f"{whose}{error}\n")
        return 1
    finally:
        if several:
            dist.destroy_process_group()


def _train(page: str) -> int:
    job = TrainJob.from_toml(page)
    folder = job.train.get("checkpoint_dir")
    if job.output is None and folder is None:
        raise ValueError(
            f"{page!r} keeps nothing of what is trained: add output = \"my-sae\" at its top, "
            'or checkpoint_dir = "my-run" under [train].'
        )
    run = job.start(on_metrics=_say_row)
    over = run.tokens == run.config.n_tokens
    begins = "is finished already, after" if over else f"goes on at step {run.step} of" if run.step else "begins,"
    _say(f"{run.title}: {begins} {run.n_steps} steps{'. A larger n_tokens goes on with it' if over else ''}")
    try:
        job.finish(run)
    except KeyboardInterrupt:
        if Ranks().size > 1:
            raise
        run.stop()
        run.wait()
        _say(f"stopped at step {run.step} of {run.n_steps}. {_kept(run)}")
        return 130
    for sentence in run.checkpoint_errors:
        sys.stderr.write(f"{sentence}\n")
    saved = f"The SAE is saved in {job.output!r}." if job.output is not None else _kept(run)
    _say(f"{run.state} at step {run.step} of {run.n_steps}, {run.seconds:.0f} s of training. {saved}")
    return 0


def _kept(run: TrainingRun) -> str:
    folder = run.config.checkpoint_dir
    if folder is None:
        return "Nothing is kept: the job has no checkpoint_dir."
    return f"The checkpoint is in {str(folder)!r}: the same command goes on from it."


def _say_row(row: dict[str, float]) -> None:
    said = {name: row[name] for name in ("step", "tokens", "loss", "explained_variance", "l0", "dead_fraction")}
    _say("  ".join(f"{name} {value:.6g}" for name, value in said.items()))


def _say(line: str) -> None:
    """Process 0 speaks for all."""
    if Ranks().rank == 0:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
