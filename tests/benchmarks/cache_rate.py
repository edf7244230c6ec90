"""How near an `ActivationCache` comes to its disk: an epoch of shuffled batches beside a plain read of its files.

    python tests/benchmarks/cache_rate.py [--vectors 2000000] [--folder .] [--rounds 3]

Vectors of the embedded model are written once (float16) and repeated up to `--vectors` as further shards; each round
reads them with the operating system's memory of them dropped (`posix_fadvise`, no root needed). `plain` reads every
shard from its first byte to its last into one buffer; `cache` is one epoch, float32 batches included, from first to
last. Seconds are the clock's, for a disk is waited for, and CPU seconds stand beside them; the best of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import saewidgets as sw


def forget(folder: Path) -> None:
    """Let the operating system drop what it keeps of the files."""
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def repeated(folder: Path, n_vectors: int) -> None:
    """More shards, with the vectors of the first, up to so many vectors."""
    page = json.loads((folder / "meta.json").read_text())
    first = page["shards"][0]
    while sum(shard["n_vectors"] for shard in page["shards"]) < n_vectors:
        name = f"again-{len(page['shards']):05d}.safetensors"
        shutil.copyfile(folder / first["file"], folder / name)
        page["shards"].append({**first, "file": name})
    page["n_vectors"] = sum(shard["n_vectors"] for shard in page["shards"])
    (folder / "meta.json").write_text(json.dumps(page))


def plain(folder: Path) -> None:
    memory = bytearray(1 << 24)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as handle:
            while handle.readinto(memory):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=2_000_000)
    parser.add_argument("--folder", default=None, help="on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        folder = Path(scratch) / "acts"
        stream = sw.ActivationStream(sw.load_model(), sw.load_texts()[:600], "blocks.2.hook_resid_post")
        stream.cache(folder, "float16")
        repeated(folder, asked.vectors)
        cache = sw.ActivationCache.open(folder)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        print(f"{cache.n_vectors:,} vectors of width {cache.d_in}, {size / 1e9:.2f} GB in {Path(scratch).parent}")
        works: dict[str, Callable[[], object]] = {
            "plain": lambda: plain(folder),
            "cache": lambda: [len(batch) for batch in cache],
        }
        best: dict[str, tuple[float, float]] = {}
        for _ in range(asked.rounds):
            for name, work in works.items():
                forget(folder)
                begin = time.perf_counter(), time.process_time()
                work()
                took = time.perf_counter() - begin[0], time.process_time() - begin[1]
                best[name] = min(best.get(name, took), took)
        for name, (clock, cpu) in best.items():
            times = clock / best["plain"][0]
            print(f"{name:6s} {clock:7.2f} s  {size / clock / 1e9:5.2f} GB/s  {cpu:7.2f} CPU s  {times:5.2f} x plain")


if __name__ == "__main__":
    main()
