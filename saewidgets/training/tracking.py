"""Ready callbacks for `train(on_metrics=...)`. None is on unless it is passed, and each imports its library only then.

For example `on_metrics=[to_tensorboard("logs/my-run"), to_wandb(wandb.init(project="saes"))]`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, float]

PREFIX = "sae/"
"""Before the names of the curves, so that they stand together beside others of the same run."""


def to_tensorboard(folder: str | os.PathLike[str]) -> Callable[[Row], None]:
    """A callback that writes each row to a TensorBoard log in `folder`: a curve per column, against tokens.

    ImportError, as a sentence, if the package `tensorboard` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("to_tensorboard needs TensorBoard: pip install tensorboard.") from error
    writer: Any = SummaryWriter(log_dir=os.fspath(folder))

    def write(row: Row) -> None:
        for name, value in measured(row).items():
            writer.add_scalar(PREFIX + name, value, global_step=int(row["tokens"]))
        writer.flush()  # a reader sees it now, and nothing is lost with the process

    return write


def to_wandb(run: Any = None, **options: Any) -> Callable[[Row], None]:
    """A callback that logs each row to Weights & Biases. It sends them to wandb's servers, as that is what it is for.

    `run`: what `wandb.init` gave; None begins one with `options`, those of `wandb.init`. ImportError, as a sentence, if
    a run is to begin and the package `wandb` is not installed.
    """
    if run is None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("to_wandb needs Weights & Biases: pip install wandb, or pass a run of it.") from error
        run = wandb.init(**options)
    elif options:
        raise TypeError(f"to_wandb takes {', '.join(options)} only where it begins a run itself: leave run out.")

    def write(row: Row) -> None:
        run.log({PREFIX + name: value for name, value in measured(row).items()})

    return write


def measured(row: Row) -> dict[str, float]:
    """The values of a row that were measured: without NaN."""
    return {name: value for name, value in row.items() if not math.isnan(value)}
