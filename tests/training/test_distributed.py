"""Two processes train the SAE that one trains: the batch shared, or the features."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.sae import selection
from saewidgets.sae.architectures import Knobs, architectures, get_architecture
from saewidgets.training import distributed
from saewidgets.training.checkpoints import of_processes
from saewidgets.training.data import Vectors
from saewidgets.training.distributed import Ranks, Together, data_parallel
from saewidgets.training.rank_loop import RankLoop, TogetherGradients
from saewidgets.training.run import TrainingRun

HOOK = "blocks.1.hook_resid_post"
SAME = ("loss", "explained_variance", "l0", "dead_fraction", "deaths", "births", "aux_loss", "tokens", "step")
SAE = {"d_sae": 256, "k": 4, "aux_k": 16, "dtype": "float64"}
TRAIN = {"n_tokens": 1600, "dead_window": 200, "aux_every": 2, "n_logs": 8, "lr": 3e-3, "n_evaluations": 2}
ALL = tuple(name for name in architectures() if not get_architecture(name).predicts_target)
ALONE = ("features-topk", "data-stream", *(f"data-{name}" for name in ALL))
KEPT = ("data-kept", "data-kept_again", "features-kept", "features-kept_again")
COMMON = ("d_sae", "dtype")
JOBS = (*ALONE, *KEPT)
"""First what is split; `kept` ones write checkpoints, from which their `again` goes on."""


def toml(values: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def page(folder: Path, name: str, **sae: Any) -> str:
    # parts and last batches of another size than the others
    activations: dict[str, Any] = {"cache": str(folder / "acts"), "batch_size": 101}
    if "stream" in name:
        activations = {"texts": str(folder / "texts.txt"), "hook_name": HOOK, "context_size": 32, "batch_size": 101}
        activations["contexts_per_forward"] = 3
    train: dict[str, Any] = dict(TRAIN)
    if "kept" in name:
        train |= {"checkpoint_dir": str(folder / f"{name.removesuffix('_again')}.run"), "checkpoint_every": 400}
        train["keep_last"] = 9
    split, _, kind = name.partition("-")
    if kind in ALL:
        reads = get_architecture(kind).reads or ()
        sae = {"architecture": kind, **{name: value for name, value in SAE.items() if name in (*COMMON, *reads)}, **sae}
    else:
        sae = {**SAE, **sae}
    return (
        f'split = "{split}"\noutput = "{folder / name}.sae"\n[activations]\n{toml(activations)}\n'
        f"[sae]\n{toml(sae)}\n[train]\n{toml(train)}\n"
    )


def two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def folder(demo_model: Any, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations, and all jobs, done by two processes."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "texts.txt").write_text("<|endoftext|>".join(texts[:6]))
    acts = sw.ActivationStream(demo_model, texts[:6], HOOK, context_size=32)
    acts.cache(folder / "acts", "float32")
    for name in JOBS:
        (folder / f"{name}.toml").write_text(page(folder, name))
    (folder / "features-uneven.toml").write_text(page(folder, "features-uneven", d_sae=255))
    (folder / "features-several.toml").write_text(page(folder, "features-several", multi_k=8))
    done = two_processes(str(Path(__file__).with_name("rank_jobs.py")), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def rows_of(folder: Path, name: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / f"{name}.rows").read_text())
    return rows


def check_equal(rows: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        for column in SAME:
            pair = row.get(column, math.nan), wanted.get(column, math.nan)
            assert pair[0] == pytest.approx(pair[1], rel=1e-5, abs=1e-12, nan_ok=True), column


@pytest.mark.parametrize("name", ALONE)
def test_two_processes_train_the_same_sae_as_one(folder: Path, name: str) -> None:
    alone: list[dict[str, float]] = []
    job = dataclasses.replace(sw.TrainJob.from_toml(folder / f"{name}.toml"), output=None)
    sae = job.finish(job.start(on_metrics=alone.append, device="cpu"))
    assert sae is not None and len(alone) == TRAIN["n_logs"]
    check_equal(rows_of(folder, name), alone)
    if "topk" in name:  # AuxK was put to the test
        assert alone[-1]["dead_fraction"] > 0 and any("aux_loss" in row for row in alone)
    weights = torch.load(folder / f"{name}.pt")
    for key, value in sae.state_dict().items():
        assert torch.allclose(weights[key], value, rtol=1e-6, atol=1e-8), key
    check_copies(folder, name)
    assert sw.load_sae(folder / f"{name}.sae").cfg.d_sae == 256


def check_copies(folder: Path, name: str) -> None:
    """All processes have the same SAE, or only the first has one, whose features were spread over them."""
    first, second = (folder / f"{name}.{rank}.sha256" for rank in (0, 1))
    if name.startswith("features"):
        assert first.exists() and not second.exists()
    else:
        assert first.read_text() == second.read_text()


@pytest.mark.parametrize("split", ["data", "features"])
def test_a_job_goes_on_from_its_checkpoint_on_any_number_of_processes(folder: Path, split: str) -> None:
    uninterrupted = rows_of(folder, f"{split}-topk")
    check_equal(rows_of(folder, f"{split}-kept"), uninterrupted)
    check_equal(rows_of(folder, f"{split}-kept_again"), uninterrupted[-4:])
    kept = of_processes(folder / f"{split}-kept.run")
    assert len(kept) > 3
    for path in kept[2:]:
        shutil.rmtree(path)
    (kept[1] / ".metadata").rename(kept[1] / "broken")  # a checkpoint that was not finished is passed over
    damaged = kept[0].with_name("distributed-999999999")
    shutil.copytree(kept[0], damaged)
    for part in damaged.glob("*.distcp"):
        part.unlink()
    alone: list[dict[str, float]] = []
    job = sw.TrainJob.from_toml(folder / f"{split}-kept.toml")
    run = job.start(on_metrics=alone.append, device="cpu")
    assert "distributed-999999999 is damaged" in run.checkpoint_errors[0] and "an older one" in run.checkpoint_errors[0]
    dataclasses.replace(job, output=None).finish(run)
    check_equal(alone, uninterrupted[-len(alone) :])
    assert len(alone) > 4


@pytest.mark.parametrize("split", ["data", "features"])
def test_a_k_that_was_set_stays_when_a_job_goes_on(folder: Path, split: str, tmp_path: Path) -> None:
    """From what two processes wrote, with k changed as it would be by `run.set`."""
    name = f"{split}-kept"
    whole = of_processes(folder / f"{name}.run")[0]
    path = tmp_path / "run" / whole.name
    shutil.copytree(whole, path)
    state = json.loads((path / "run.json").read_text())
    assert state["sae"]["cfg"]["d_sae"] == 256 and state["sae"]["cfg"]["k"] == 4
    event = {"step": 1, "tokens": 1, "name": "k", "old": 4, "new": 3, "call": None}
    state["sae"]["cfg"]["k"] = state["settings"]["k"] = 3
    (path / "run.json").write_text(json.dumps({**state, "events": [event]}))
    job = sw.TrainJob.from_toml(folder / f"{name}.toml")
    job = dataclasses.replace(job, output=None, train={**job.train, "checkpoint_dir": str(tmp_path / "run")})
    sae = job.finish(job.start(device="cpu"))
    assert sae is not None and sae.cfg.k == 3


def test_what_cannot_be_spread_gets_a_sentence(folder: Path) -> None:
    assert "d_sae=255 cannot be spread over 2 processes" in (folder / "features-uneven.error").read_text()
    assert "architecture='topk' without multi_k" in (folder / "features-several.error").read_text()


def test_the_command_trains_on_one_process_and_on_two(folder: Path, tmp_path: Path) -> None:
    text = page(folder, "features-topk").replace(str(folder / "features-topk.sae"), str(tmp_path / "mine"))
    (tmp_path / "train.toml").write_text(text)
    done = two_processes("-m", "saewidgets.training", str(tmp_path / "train.toml"))
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) == TRAIN["n_logs"]  # of process 0 alone
    row = rows_of(folder, "features-topk")[-1]
    assert lines[-1].split("  ")[2] == f"loss {row['loss']:.6g}"
    sae = sw.load_sae(tmp_path / "mine")
    assert (sae.cfg.d_sae, sae.metadata.hook_name, sae.metadata.n_tokens_trained) == (256, HOOK, 1600)


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("split = [", ValueError, "is no TOML"),
        ("[sae]\nk = 4", ValueError, r"lacks the tables \[activations\], \[train\]"),
        ('split = "both"\n[activations]\n[sae]\n[train]', ValueError, "split must be one of data, features"),
        ('spilt = "data"\n[activations]\n[sae]\n[train]', TypeError, "no option 'spilt'. Did you mean 'split'"),
    ],
)
def test_pages_that_are_wrong_get_a_sentence(tmp_path: Path, text: str, kind: Any, sentence: str) -> None:
    (tmp_path / "train.toml").write_text(text)
    with pytest.raises(kind, match=sentence):
        sw.TrainJob.from_toml(tmp_path / "train.toml")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sw.TrainJob.from_toml(tmp_path / "none.toml")


def test_memory_that_runs_out_on_one_process_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=8, d_sae=16, k=2))

    def loss(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(sae.architecture, "loss", loss)
    x = torch.randn(4, 8)
    with pytest.raises(MemoryError, match="no memory for its part of a batch of 4 vectors. Take a smaller batch_size"):
        TogetherGradients(sae, list(sae.parameters()), "float32", None).of(x, x, Knobs(0.0, 2, 0.5), None)


def test_a_part_that_is_the_whole_is_trained_as_the_whole() -> None:
    """As one process is, that goes on from what several began: sums over the batch have no gradient."""
    cfg = sw.SAEConfig(d_in=8, d_sae=16, architecture="p_anneal")
    x = torch.randn(64, 8)
    found = []
    for sae in (sw.SAE(cfg), data_parallel(cfg, Ranks())):
        loss = sae.architecture.loss(sae, x, x, Knobs(0.1, 0, 0.5), None).loss
        found.append(torch.autograd.grad(loss, list(sae.parameters())))
    for alone, shared in zip(*found, strict=True):
        assert torch.allclose(alone, shared, atol=1e-6)


def test_a_folder_that_cannot_be_written_costs_the_checkpoint_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    x = torch.randn(600, 8)
    sae = data_parallel(sw.SAEConfig(d_in=8, d_sae=16, k=2), Ranks())
    config = sw.TrainConfig(n_tokens=600, checkpoint_dir=str(tmp_path / "file"), checkpoint_every=300, n_snapshots=0)
    run = TrainingRun(RankLoop(sae, Vectors(x, sae), config, None, Ranks()), [], 1)
    run.start()
    run.wait()
    assert run.state == "finished"
    assert "The checkpoint of step" in run.checkpoint_errors[0] and "could not be written" in run.checkpoint_errors[0]


class Listening(Ranks):
    """Two processes of which the other has the same; what is added up is written down."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 2
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self.seen.append((tuple(tensor.shape), tensor.stride()))
        return 2 * tensor


def test_processes_send_each_other_the_vectors_of_a_block_and_no_more(
    demo_model: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = sw.ActivationStream(demo_model, texts[:6], HOOK, context_size=32, batch_size=64, block_batches=4)
    sent: list[int] = []
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda rows: sent.append(len(rows)))
    for takes in (100, None):
        sent.clear()
        read = list(Together(acts, Ranks()).batches(takes=takes))
        assert all(torch.equal(a, b) for a, b in zip(read, acts.batches(takes=takes), strict=True))
        assert sum(sent) == acts.n_batches * 64
    next(Together(acts, Ranks()).batches(takes=100))
    assert sent[-1] == 128


def test_a_stream_that_fails_in_one_process_makes_it_wait_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(RankLoop, "save", lambda loop: written.append(loop.ranks.size))
    for ranks in (Ranks(), Listening()):
        stream = iter([torch.randn(100, 8)])  # the second epoch is a failure
        sae = data_parallel(sw.SAEConfig(d_in=8, d_sae=16, k=2), ranks)
        loop = RankLoop(sae, Vectors(Once(stream), sae), sw.TrainConfig(n_tokens=600, n_snapshots=0), None, ranks)
        run = TrainingRun(loop, [], 1)
        run.start()
        with pytest.raises(RuntimeError, match="The activations ended"):
            run.wait()
    assert written == [1]


class Once:
    """A stream that can be gone through one time."""

    d_in = 8

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> Any:
        return self._batches


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu", "p_anneal"])
def test_gradients_are_added_in_one_order_whatever_form_the_code_has(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose part is dense takes the dense form, another the sparse one; their sums must not mix."""
    sae = sw.SAE(sw.SAEConfig(d_in=8, d_sae=16, architecture=architecture))
    x, seen = torch.randn(64, 8), []
    for density in (0.0, 1.0):
        monkeypatch.setattr(selection, "MAX_DENSITY", density)
        ranks = Listening()
        gradients = TogetherGradients(sae, list(sae.parameters()), "float32", ranks)
        found = gradients.of(x, x, Knobs(0.1, 0, 0.5), None)[1]
        seen.append((ranks.seen, found))
    assert seen[0][0] == seen[1][0]
    assert [shape for shape, _ in seen[0][0]] == [tuple(p.shape) for p in sae.parameters()]
    for dense, sparse in zip(seen[0][1], seen[1][1], strict=True):
        assert torch.allclose(dense, sparse, atol=1e-5)


def test_a_checkpoint_that_one_process_cannot_write_is_lost_in_all_and_the_run_goes_on(tmp_path: Path) -> None:
    done = two_processes(str(Path(__file__).with_name("rank_disks.py")), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == 8
    for case in first:
        for said in (first[case], second[case]):
            assert said["state"] == "finished", case
            (error,) = said["errors"]
            assert error.startswith("The checkpoint of step 3 could not be written: "), case
            assert error.endswith(". The run goes on without it.") and "Traceback" not in error, case
            assert said["there"] == said["whole"] == ["distributed-000000006"], case
        if "full" in case:
            assert "met with [Errno 28] No space left on device" in first[case]["errors"][0]
            assert second[case]["errors"] == first[case]["errors"]
