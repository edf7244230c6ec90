"""Writing an activation cache, and taking up one that was interrupted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saewidgets.activations.cache import ActivationCache
from saewidgets.activations.shards import (
    DTYPES,
    FORMAT,
    HELD_OUT,
    META,
    UNFINISHED,
    Shard,
    check_shard,
    read_page,
    shard_name,
    write_page,
    write_shard,
)
from saewidgets.progress import Report, reporter

if TYPE_CHECKING:
    from saewidgets.activations.stream import ActivationStream

_SHARD_BYTES = 1 << 27
_NOT_OF_THE_VECTORS = ("batch_size", "block_batches", "contexts_per_forward", "device")
"""What a stream's fingerprints say of the batches alone, or of no more than the rounding."""


def write_cache(
    acts: ActivationStream, path: str | Path, dtype: str, shard_vectors: int | None, on_progress: Report | None
) -> ActivationCache:
    """See `ActivationStream.cache`.

    The vectors are those of the stream's first epoch, in the order in which the seed permutes its contexts. Each shard
    is a pure function of the stream, so that a missing one can be written by itself.
    """
    if dtype not in DTYPES:
        raise ValueError(f"A cache is kept as {', '.join(DTYPES)}, not as {dtype!r}.")
    if shard_vectors is not None and shard_vectors < 1:
        raise ValueError(f"shard_vectors={shard_vectors} is not possible; it must be at least 1.")
    folder = Path(path).expanduser()
    widths = [acts.d_in] if acts.target_site is None else [acts.d_in, acts.d_out]
    per_shard = shard_vectors or max(1, _SHARD_BYTES // (sum(widths) * DTYPES[dtype].itemsize))
    page = _page(acts, dtype, per_shard)
    known = _begun(folder, page)
    if len(known) < -(-acts.n_vectors // per_shard) or not (folder / META).is_file():
        report = on_progress or reporter("Caching activations")
        try:
            _write(acts, folder, page, known, report)
        finally:
            report("done", 1.0)
    (folder / UNFINISHED).unlink(missing_ok=True)
    return ActivationCache.open(folder, batch_size=acts.batch_size, model=acts.model)


def _page(acts: ActivationStream, dtype: str, per_shard: int) -> dict[str, Any]:
    prints = {name: value for name, value in acts.fingerprints().items() if name not in _NOT_OF_THE_VECTORS}
    return {
        "format": FORMAT,
        "metadata": acts.metadata.to_dict(),
        "d_in": acts.d_in,
        "d_out": acts.d_out,
        "target_hook_name": acts.target_hook_name,
        "dtype": dtype,
        "seed": acts.seed,
        "n_vectors": acts.n_vectors,
        "shard_vectors": per_shard,
        "fingerprints": prints,
        "shards": [],
    }


def _begun(folder: Path, page: dict[str, Any]) -> dict[str, Shard]:
    """The shards that are there already.

    Raises FileExistsError if the place holds anything else than this cache or a part of it.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file; an activation cache needs a folder of its own.")
    found = next((folder / name for name in (META, UNFINISHED) if (folder / name).is_file()), None)
    if found is None:
        if folder.is_dir() and any(folder.iterdir()):
            raise FileExistsError(
                f"{str(folder)!r} holds files that are no activation cache, and they are left alone. Give another path."
            )
        return {}
    other = read_page(found)
    plain = page.keys() - {"shards", "fingerprints"}
    differing = [name for name in page if name in plain and other[name] != page[name]]
    differing += [name for name, value in page["fingerprints"].items() if other["fingerprints"].get(name) != value]
    if differing:
        raise FileExistsError(
            f"{str(folder)!r} holds another activation cache: its {', '.join(dict.fromkeys(differing))} differ"
            f"{'' if len(set(differing)) > 1 else 's'}. Give another path, or delete that folder."
        )
    known = {}
    for entry in other["shards"]:
        shard = Shard(**entry)
        try:
            check_shard(folder, shard, verify=False)
        except ValueError:
            continue  # it is written anew
        known[shard.file] = shard
    return known


@torch.no_grad()
def _write(acts: ActivationStream, folder: Path, page: dict[str, Any], known: dict[str, Shard], report: Report) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_page(folder / UNFINISHED, {**page, "shards": [dataclasses.asdict(shard) for shard in known.values()]})
    n, per_shard, dtype = page["n_vectors"], page["shard_vectors"], page["dtype"]
    memory = acts.memory(min(n, per_shard))
    shards: list[Shard] = []
    for index, low in enumerate(range(0, n, per_shard)):
        report("reading activations", low / n)
        high = min(low + per_shard, n)
        name = shard_name(index)
        if name not in known:
            acts.fill(0, memory, low, high)
            rows = [m[: high - low] for m in memory]
            kept = [_kept(m, dtype, acts, low) for m in rows]
            known[name] = write_shard(folder, name, dict(zip(("vectors", "targets"), kept, strict=False)))
            write_page(folder / UNFINISHED, {**page, "shards": [dataclasses.asdict(shard) for shard in known.values()]})
        shards.append(known[name])
    held_out = {"tokens": acts.held_out.tokens, "mask": acts.held_out.mask}
    write_shard(folder, HELD_OUT, held_out)
    write_page(folder / META, {**page, "shards": [dataclasses.asdict(shard) for shard in shards]})


def _kept(rows: torch.Tensor, dtype: str, acts: ActivationStream, low: int) -> torch.Tensor:
    """The rows as they go to disk.

    Raises ValueError if some of them are not finite, before or after the change of type.
    """
    kept = rows.to("cpu", DTYPES[dtype])
    if not bool(torch.isfinite(kept).all()):
        where = low + int((~torch.isfinite(kept)).any(1).nonzero()[0])
        if bool(torch.isfinite(rows).all()):
            raise ValueError(
                f"Vector {where:,} of {acts.hook_name!r} holds numbers up to {float(rows.abs().max()):,.0f}, and "
                f"{dtype} ends at 65,504. Write the cache with dtype='bfloat16' or 'float32'."
            )
        raise ValueError(
            f"Vector {where:,} of {acts.hook_name!r} holds NaN or infinities. What was written before is kept. Load "
            "the model in another dtype (float32), or read another hook."
        )
    return kept
