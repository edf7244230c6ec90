"""The cache: what the stream gave, kept on disk; whole or not there at all."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import saewidgets as sw
from saewidgets.activations import cache_writing
from saewidgets.activations.shards import Rows

HOOK = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def acts(demo_model: Any, texts: list[str]) -> sw.ActivationStream:
    return sw.ActivationStream(demo_model, texts[:24], HOOK, context_size=32, batch_size=64)


@pytest.fixture(scope="module")
def folder(acts: sw.ActivationStream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "acts"
    acts.cache(path, dtype="float32", shard_vectors=1000)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def sorted_rows(x: torch.Tensor) -> torch.Tensor:
    return x[torch.argsort(x.double() @ torch.linspace(1, 2, x.shape[1], dtype=torch.float64))]


def test_it_holds_every_vector_of_the_stream_once(acts: sw.ActivationStream, folder: Path) -> None:
    cache = sw.ActivationCache.open(folder, batch_size=1)
    assert (cache.d_in, cache.d_out, cache.hook_name, cache.n_vectors) == (288, 288, HOOK, acts.n_vectors)
    assert cache.metadata == acts.metadata and cache.target_hook_name is None
    memory = acts.memory(acts.n_vectors)
    acts.fill(0, memory, 0, acts.n_vectors)
    found = torch.cat(list(cache))
    assert found.shape == (acts.n_vectors, 288) and found.dtype == torch.float32
    # contexts share a forward with others than in one fill of everything: equal but for rounding
    assert torch.allclose(sorted_rows(found), sorted_rows(memory[0]), atol=1e-4)
    n_shards = math.ceil(acts.n_vectors / 1000)
    assert sorted(p.name for p in folder.iterdir()) == [
        "held_out.safetensors", "meta.json", *(f"shard-{i:05d}.safetensors" for i in range(n_shards))
    ]  # fmt: skip
    assert n_shards > 3
    assert repr(cache) == (
        f"ActivationCache('{HOOK}', d_in=288, {acts.n_vectors:,} vectors in {n_shards} shards of float32, "
        "batch_size=1, seed=0)"
    )


def test_an_excerpt_is_held_out_text(acts: sw.ActivationStream, folder: Path) -> None:
    cache = sw.ActivationCache.open(folder)
    kept = cache.excerpt(10**9)
    assert torch.equal(kept.tokens, acts.held_out.tokens) and torch.equal(kept.mask, acts.held_out.mask)
    assert len(cache.excerpt(1)) == 1


def test_batches_are_a_pure_function_of_seed_epoch_and_block(folder: Path) -> None:
    cache = sw.ActivationCache.open(folder, batch_size=50, block_batches=9)
    whole = list(cache.batches(1))
    assert len(whole) == len(cache) == cache.n_batches == cache.n_vectors // 50 and len(whole) > 20
    again = sw.ActivationCache.open(folder, batch_size=50, block_batches=9)
    for start in (0, 1, 8, 9, 10, len(whole) - 1, len(whole)):
        sought = list(again.batches(1, start))
        assert len(sought) == len(whole) - start
        assert all(torch.equal(a, b) for a, b in zip(sought, whole[start:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(cache.batches(1, takes=9 * 50), whole, strict=True))
    short = list(cache.batches(1, takes=120))  # three batches: a block of its own
    assert not torch.equal(short[0], whole[0])
    assert torch.equal(torch.cat(short).sort(0).values, torch.cat(whole).sort(0).values)
    assert not torch.equal(whole[0], next(cache.batches(0)))
    assert not torch.equal(whole[0], next(sw.ActivationCache.open(folder, 50, seed=1, block_batches=9).batches(1)))
    with pytest.raises(ValueError, match="start=9999 is out of range"):
        cache.batches(start=9999)


@pytest.mark.parametrize("takes", [120, 9 * 50, 10 * 50, None])
def test_the_disk_is_asked_ahead_for_what_is_read_and_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, takes: int | None
) -> None:
    monkeypatch.setattr("saewidgets.activations.cache._READ_BYTES", 40 * 288 * 4)
    cache = sw.ActivationCache.open(folder, batch_size=50, block_batches=9)
    expected: set[tuple[str, int]] = set()
    found: set[tuple[str, int]] = set()
    read = Rows.read

    def expect(self: Rows, first: int, n: int) -> None:
        expected.update((self._path.name, row) for row in range(first, first + n))

    def counted(self: Rows, first: int, into: torch.Tensor) -> None:
        rows = {(self._path.name, row) for row in range(first, first + len(into))}
        assert rows <= expected  # the disk knew of it before
        found.update(rows)
        read(self, first, into)

    monkeypatch.setattr(Rows, "expect", expect)
    monkeypatch.setattr(Rows, "read", counted)
    n = cache.n_batches if takes is None else math.ceil(takes / 50)
    batches = cache.batches(takes=takes)
    for _ in range(n):
        next(batches)
    assert expected == found
    bounds = cache._blocks.for_a_reader_of(takes).bounds
    assert len(found) == 50 * next(bound for bound in bounds if bound >= n)


def test_blocks_mix_the_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saewidgets.activations.cache._READ_BYTES", 40 * 288 * 4)
    cache = sw.ActivationCache.open(folder, batch_size=50, block_batches=9)
    shards = [load_file(path)["vectors"].double().sum(1).tolist() for path in sorted(folder.glob("shard-*"))]
    shard_of = {total: i for i, totals in enumerate(shards) for total in totals}
    seen: Counter[float] = Counter()
    for index, batch in enumerate(cache):
        totals = batch.double().sum(1).tolist()
        seen.update(totals)
        if index < 9:
            assert len({shard_of[total] for total in totals}) > len(shards) // 2
    assert seen.total() == cache.n_batches * 50
    # texts that begin alike have equal vectors
    assert not seen - Counter(total for totals in shards for total in totals)


@pytest.mark.parametrize(("dtype", "precision"), [("float16", 2e-3), ("bfloat16", 1e-2)])
def test_two_bytes_a_number_are_nearly_the_same(
    acts: sw.ActivationStream, folder: Path, tmp_path: Path, dtype: str, precision: float
) -> None:
    small = acts.cache(tmp_path / "small", dtype=dtype)
    exact = sw.ActivationCache.open(folder, batch_size=acts.n_vectors)
    (a,), (b,) = list(small.open(small.path, batch_size=acts.n_vectors)), list(exact)
    assert a.dtype == torch.float32
    a, b = sorted_rows(a), sorted_rows(b)
    assert torch.allclose(a.sum(0), b.sum(0), rtol=precision, atol=precision * len(a))
    assert (a.norm() / b.norm() - 1).abs() < precision
    size = sum(path.stat().st_size for path in (tmp_path / "small").glob("shard-*"))
    assert size == pytest.approx(acts.n_vectors * 288 * 2, rel=0.01)


def test_a_run_on_a_cache_loads_no_model(folder: Path) -> None:
    code = f"""
import math, sys, torch
import saewidgets as sw
torch.set_num_threads(1)
cache = sw.ActivationCache.open({str(folder)!r}, batch_size=128)
sae = sw.SAE(sw.SAEConfig(d_in=cache.d_in, d_sae=64, k=4))
run = sw.train(sae, cache, sw.TrainConfig(n_tokens=2000))
run.wait()
assert run.metrics.explained_variance.iloc[-1] > 0.05 and run.metrics.ce_loss_recovered.isna().all()
assert sae.metadata.hook_name == {HOOK!r} and sae.metadata.context_size == 32
print(sorted({{"transformer_lens", "transformers", "datasets"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_with_its_model_it_scores_like_the_stream(
    acts: sw.ActivationStream, folder: Path, demo_model: Any, tiny_sae: sw.SAE
) -> None:
    with_model = sw.ActivationCache.open(folder, model=demo_model)
    assert with_model.ce_loss_recovered(tiny_sae) == acts.ce_loss_recovered(tiny_sae)
    assert math.isnan(sw.ActivationCache.open(folder).ce_loss_recovered(tiny_sae))
    weight = next(demo_model.original_model.parameters())
    with torch.no_grad():
        kept = weight[0, 0].clone()
        weight[0, 0] += 1
        try:
            with pytest.raises(ValueError, match="with other weights than the given 'saewidgets-demo' has"):
                sw.ActivationCache.open(folder, model=demo_model)
        finally:
            weight[0, 0] = kept


def test_pairs_stay_together(demo_model: Any, texts: list[str], tmp_path: Path) -> None:
    acts = sw.ActivationStream(
        demo_model, texts[:6], "blocks.2.hook_resid_pre", context_size=32, batch_size=40, target_hook_name=HOOK
    )
    cache = acts.cache(tmp_path / "pairs", dtype="float32", shard_vectors=300)
    assert (cache.d_in, cache.d_out, cache.target_hook_name) == (288, 288, HOOK)
    memory = acts.memory(acts.n_vectors)
    acts.fill(0, memory, 0, acts.n_vectors)
    target_of = {x.double().sum().item(): y for x, y in zip(*memory, strict=True)}
    n = 0
    for x, y in cache:
        assert all(torch.equal(target_of[row.double().sum().item()], t) for row, t in zip(x, y, strict=True))
        n += len(x)
    assert n == cache.n_batches * 40 > 300


# ── whole or not there at all ───────────────────────────────────────────────────────────────────────────────────────


def test_an_interrupted_cache_does_not_open_and_is_taken_up(
    acts: sw.ActivationStream, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "acts"
    read: list[int] = []
    fill = acts.fill

    def interrupted(epoch: int, memory: Any, low: int, high: int) -> None:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(low)
        fill(epoch, memory, low, high)

    said: list[tuple[str, float]] = []
    with monkeypatch.context() as patch:
        patch.setattr(acts, "fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            acts.cache(path, "float32", 1000, on_progress=lambda *what: said.append(what))
    assert said[-1] == ("done", 1.0) and said[0] == ("reading activations", 0.0)
    with pytest.raises(FileNotFoundError, match=r"was not finished. Call cache\(path\) on the same stream again"):
        sw.ActivationCache.open(path)
    kept = {p.name: p.stat().st_mtime_ns for p in path.glob("shard-*")}
    assert len(kept) == 2
    with (path / "shard-00001.safetensors").open("rb+") as file:
        file.truncate(1000)  # as if the disk had not kept it
    (path / "shard-00002.safetensors.part").write_bytes(b"half")
    acts.cache(path, "float32", 1000)
    assert (path / "shard-00000.safetensors").stat().st_mtime_ns == kept["shard-00000.safetensors"]
    assert json.loads((path / "meta.json").read_text()) == json.loads((folder / "meta.json").read_text())
    assert sorted(p.name for p in path.iterdir()) == sorted(p.name for p in folder.iterdir())
    for a, b in zip(sw.ActivationCache.open(path, verify=True), sw.ActivationCache.open(folder), strict=True):
        assert torch.equal(a, b)


def test_the_same_cache_is_opened_and_another_one_refused(
    acts: sw.ActivationStream, copy: Path, demo_model: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_writing, "_write", lambda *args: pytest.fail("it was written again"))
    assert acts.cache(copy, "float32", 1000).n_vectors == acts.n_vectors
    with pytest.raises(FileExistsError, match="holds another activation cache: its dtype differs"):
        acts.cache(copy, "bfloat16", 1000)
    other = sw.ActivationStream(demo_model, [*texts[:23], "x" + texts[23]], HOOK, context_size=32, batch_size=64)
    with pytest.raises(FileExistsError, match="its .*texts differ"):
        other.cache(copy, "float32", 1000)


def test_a_folder_that_holds_something_else_is_left_alone(acts: sw.ActivationStream, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files that are no activation cache, and they are left alone"):
        acts.cache(tmp_path)
    with pytest.raises(FileExistsError, match="is a file; an activation cache needs a folder"):
        acts.cache(tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(FileNotFoundError, match="is no activation cache"):
        sw.ActivationCache.open(tmp_path)


def test_damage_is_said_with_the_name_of_the_shard(acts: sw.ActivationStream, copy: Path) -> None:
    shard = copy / "shard-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"shard-00002.safetensors' is cut off: .* bytes where .* belong"):
        sw.ActivationCache.open(copy)
    shard.write_bytes(whole[:5000] + bytes(100) + whole[5100:])
    opened = sw.ActivationCache.open(copy)
    with pytest.raises(ValueError, match=r"shard-00002.safetensors' is damaged: .* another hash"):
        sw.ActivationCache.open(copy, verify=True)
    shard.write_bytes(whole[:-100])  # cut off after it was opened
    with pytest.raises(ValueError, match="shard-00002.safetensors' is cut off: it ended while it was read"):
        list(opened)
    shard.write_bytes(b"\xff" * len(whole))
    with pytest.raises(ValueError, match="shard-00002.safetensors' is damaged: its header does not say vectors"):
        list(opened)
    shard.unlink()
    with pytest.raises(ValueError, match="shard-00002.safetensors' is missing. Call cache"):
        sw.ActivationCache.open(copy)
    acts.cache(copy, "float32", 1000)  # what the sentences advise
    assert shard.read_bytes() == whole
    (copy / "meta.json").write_text('{"format": ')
    with pytest.raises(ValueError, match="meta.json' is damaged"):
        sw.ActivationCache.open(copy)


def test_vectors_that_cannot_be_kept_are_said(acts: sw.ActivationStream, tmp_path: Path, monkeypatch: Any) -> None:
    fill = acts.fill

    def spoilt(value: float) -> Any:
        def filled(epoch: int, memory: Any, low: int, high: int) -> None:
            fill(epoch, memory, low, high)
            memory[0][7, 3] = value

        return filled

    monkeypatch.setattr(acts, "fill", spoilt(70_000.0))
    with pytest.raises(ValueError, match="Vector 7 of .* up to 70,000, and float16 ends at 65,504"):
        acts.cache(tmp_path / "a")
    monkeypatch.setattr(acts, "fill", spoilt(math.nan))
    with pytest.raises(ValueError, match="Vector 7 of .* holds NaN or infinities"):
        acts.cache(tmp_path / "b", "bfloat16")


def test_values_out_of_range_get_a_sentence(acts: sw.ActivationStream, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kept as float16, bfloat16, float32, not as 'int8'"):
        acts.cache(tmp_path / "a", dtype="int8")
    with pytest.raises(ValueError, match="shard_vectors=0 is not possible"):
        acts.cache(tmp_path / "a", shard_vectors=0)
    with pytest.raises(ValueError, match="batch_size=0 is not possible"):
        sw.ActivationCache.open(folder, batch_size=0)
    assert not (tmp_path / "a").exists()


def test_fingerprints_name_what_decides_the_batches(folder: Path) -> None:
    def differing(**options: Any) -> list[str]:
        ours = sw.ActivationCache.open(folder).fingerprints()
        theirs = sw.ActivationCache.open(folder, **options).fingerprints()
        return [name for name in ours if ours[name] != theirs[name]]

    assert differing() == []
    assert differing(seed=1) == ["seed"] and differing(batch_size=3) == ["batch_size"]
    assert differing(block_batches=3) == ["block_batches"]
