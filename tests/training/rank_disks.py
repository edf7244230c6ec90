"""Run under torchrun: checkpoints of which process 1 cannot write its part; what each process says of it, as JSON."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemWriter

import saewidgets as sw
from saewidgets.training import rank_loop
from saewidgets.training.checkpoints import of_processes
from saewidgets.training.data import TensorStream, Vectors
from saewidgets.training.distributed import Ranks, data_parallel
from saewidgets.training.rank_loop import RankLoop
from saewidgets.training.run import TrainingRun
from saewidgets.training.sharded import feature_sharded


def full(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_memory(*_: Any) -> Any:
    raise MemoryError("cannot allocate")


@contextmanager
def failing(owner: Any, name: str, instead: Any, rank: int) -> Iterator[None]:
    """What one process cannot do the first time it is asked."""
    before, asked = getattr(owner, name), []

    def once(*given: Any, **more: Any) -> Any:
        asked.append(given)
        return instead() if len(asked) == 1 and dist.get_rank() == rank else before(*given, **more)

    with mock.patch.object(owner, name, once):
        yield


CASES = {
    "the disk of process 1 is full": (FileSystemWriter, "write_data", full, 1),
    "the disk of process 0 is full": (FileSystemWriter, "finish", full, 0),
    "process 1 has no memory for its part": (rank_loop, "tensors_of", no_memory, 1),
    "process 0 cannot say its state": (rank_loop, "state_of", no_memory, 0),
}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=20))
    home, rank, ranks, said = Path(sys.argv[1]), dist.get_rank(), Ranks(), {}
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    cfg = sw.SAEConfig(d_in=8, d_sae=16, k=2)
    for split, make in (("data", data_parallel), ("features", feature_sharded)):
        for case, what in CASES.items():
            folder = home / f"{split}, {case}"
            config = sw.TrainConfig(
                n_tokens=600, checkpoint_dir=str(folder), checkpoint_every=300, n_snapshots=0, n_evaluations=0
            )
            sae = make(cfg, ranks)
            vectors = Vectors(TensorStream(x, batch_size=100), sae)
            run = TrainingRun(RankLoop(sae, vectors, config, None, ranks), [], 1)
            with failing(*what):
                run.start()
                run.wait()
            said[folder.name] = {
                "state": run.state,
                "errors": run.checkpoint_errors,
                "whole": [path.name for path in of_processes(folder)],
                "there": sorted(path.name for path in folder.iterdir()),
            }
            dist.barrier()  # no one looks while another still deletes
    (home / f"{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
