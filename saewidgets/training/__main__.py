"""Train an SAE from a page of settings (see `saewidgets.training.job.TrainJob`), on one process or on many:

python -m saewidgets.training train.toml
torchrun --nproc-per-node 8 -m saewidgets.training train.toml

Given again, the command goes on from the last checkpoint in checkpoint_dir.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import signal
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from saewidgets.training.config import TrainConfig
from saewidgets.training.distributed import Ranks
from saewidgets.training.job import TrainJob
from saewidgets.training.run import TrainingRun

SENTENCES = (ValueError, TypeError, OSError, MemoryError)
"""Errors that say by themselves what was wrong; of others their kind is said too."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m saewidgets.training",
        description=__doc__,
        epilog=inspect.cleandoc(TrainJob.__doc__ or "").partition("\n\nRaises")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", metavar="train.toml")
    parser.add_argument("--traceback", action="store_true", help="show where in the program an error comes from")
    asked = parser.parse_args()
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        return _train(asked.job)
    except Exception as error:
        if asked.traceback:
            raise
        whose = f"process {dist.get_rank()}: " if several else ""
        kind = "" if isinstance(error, SENTENCES) else f"{type(error).__name__}: "
        where = "" if isinstance(error, SENTENCES) else " (--traceback shows where it comes from.)"
        sys.stderr.write(f"{whose}{kind}{error}{where}\n")
        return 1
    finally:
        if several:
            dist.destroy_process_group()


def _train(page: str) -> int:
    job = TrainJob.from_toml(page)
    if job.output is None and job.train.get("checkpoint_dir") is None:
        raise ValueError(
            f"{page!r} keeps nothing of what is trained: add output = \"my-sae\" at its top, "
            'or checkpoint_dir = "my-run" under [train].'
        )
    run, several = None, int(os.environ.get("WORLD_SIZE", 1)) > 1
    try:
        run = job.start(on_metrics=functools.partial(_say_row, TrainConfig(**job.train).n_tokens))
        over = run.tokens == run.config.n_tokens
        begins = "is finished already, after" if over else f"goes on at step {run.step} of" if run.step else "begins,"
        _say(f"{run.title}: {begins} {run.n_steps} steps{'. A larger n_tokens goes on with it' if over else ''}")
        job.finish(run)
    except KeyboardInterrupt:
        if several:
            _say("stopped. The same command goes on from the newest checkpoint, if the job has a checkpoint_dir")
            os._exit(130)  # the others may be in the middle of what all do together: there is nothing to wait for
        if run is None:
            _say("stopped before the first step")
        else:
            run.stop()
            run.wait()
            _say(f"{_how_far(run)}. {'The SAE is not saved. ' if job.output is not None else ''}{_kept(run)}")
        return 130
    except RuntimeError:
        if run is not None and run.state == "failed" and Ranks().rank == 0:
            sys.stderr.write(f"{_how_far(run)}. {_kept(run)}\n")
        raise
    saved = f"The SAE is saved in {job.output!r}." if job.output is not None else _kept(run)
    _say(f"{_how_far(run)}, {run.seconds:.0f} s of training. {saved}")
    return 0 if job.output is not None or run.can_go_on else 1


def _how_far(run: TrainingRun) -> str:
    for sentence in run.checkpoint_errors:
        sys.stderr.write(f"{sentence}\n")
    return f"{run.state} at step {run.step} of {run.n_steps}"


def _kept(run: TrainingRun) -> str:
    folder = run.config.checkpoint_dir
    if run.can_go_on:
        return f"The newest checkpoint is in {str(folder)!r}: the same command goes on from it."
    return f"Nothing is kept: {'the job has no checkpoint_dir' if folder is None else 'no checkpoint was written'}."


def _say_row(n_tokens: int, row: dict[str, float]) -> None:
    names = ["step", "tokens", "loss", "explained_variance", "l0", "dead_fraction", "lr", "vectors_per_second"]
    names += [name for name in ("ce_loss_recovered", "skipped_steps") if row[name] > 0]
    left = (n_tokens - row["tokens"]) / row["vectors_per_second"]
    told = [f"{name} {row[name]:.{3 if name == 'vectors_per_second' else 6}g}" for name in names]
    _say("  ".join([*told, f"left {timedelta(seconds=round(left))}"]))


def _say(line: str) -> None:
    """Process 0 speaks for all."""
    if Ranks().rank == 0:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as schedulers and containers end a job
    sys.exit(main())
