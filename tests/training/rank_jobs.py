"""Run under torchrun: every TOML file of a folder as a job, one after the other; rows and weights beside it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from saewidgets.training import TrainJob
from saewidgets.training.checkpoints import of_processes


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for file in sorted(Path(sys.argv[1]).glob("*.toml")):
        job = TrainJob.from_toml(file)
        rows: list[dict[str, float]] = []
        if file.stem.endswith("_again"):  # as if the run had been killed after its second checkpoint
            if dist.get_rank() == 0:
                for path in of_processes(str(job.train["checkpoint_dir"]))[2:]:
                    shutil.rmtree(path)
            dist.barrier()
        try:
            run = job.start(on_metrics=rows.append)
            sae = job.finish(run)
        except (ValueError, RuntimeError) as error:
            file.with_suffix(".error").write_text(str(error))
            continue
        if sae is not None:
            file.with_suffix(f".{dist.get_rank()}.sha256").write_text(sae.fingerprint())
        if dist.get_rank() == 0:
            assert sae is not None
            file.with_suffix(".rows").write_text(json.dumps(rows))
            torch.save(sae.state_dict(), file.with_suffix(".pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
