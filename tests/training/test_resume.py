"""A run that was interrupted goes on as if it had not been: the same weights, optimizer and rows, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
import torch

import saewidgets as sw
from saewidgets.sae.architectures import architectures
from saewidgets.training import TensorStream, TrainConfig, TrainingRun, checkpoints, resume_training, train
from saewidgets.training.loop import Loop
from saewidgets.training.saved import tensors_of

from .toy import D_IN, Then, ToyStream, stop_when, toy_sae

CLOCK = ["seconds", "vectors_per_second"]
ROOT = Path(__file__).parents[2]


class Hashed(ToyStream):
    """The toy stream, with what a stream says of itself."""

    def fingerprints(self) -> dict[str, str]:
        return {"texts": "f" * 64, "batch_size": str(self.batch_size), "seed": "0"}


def config(folder: Path | None, **options: Any) -> TrainConfig:
    """Everything on that has a state: AuxK soon, annealing, clipping."""
    own = {"n_tokens": 60_000, "dead_window": 1500, "n_logs": 23, "k_anneal_from": 12, "clip_norm": 0.5, **options}
    if folder is not None:
        own = {"checkpoint_dir": folder, "checkpoint_every": 7000, **own}
    return TrainConfig(**own)


def same(one: TrainingRun, other: TrainingRun) -> None:
    """Assert that two ended runs are equal but for the clock."""
    assert (one.step, one.tokens, one.state) == (other.step, other.tokens, other.state)
    assert one.sae.fingerprint() == other.sae.fingerprint() and one.sae.metadata == other.sae.metadata
    pd.testing.assert_frame_equal(one.metrics.drop(columns=CLOCK), other.metrics.drop(columns=CLOCK), check_exact=True)
    pd.testing.assert_frame_equal(one.events, other.events)
    ours, theirs = tensors_of(one._loop), tensors_of(other._loop)
    assert ours.keys() == theirs.keys() and any("exp_avg_sq" in name or "momentum" in name for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def whole(stream: Any = None, d_sae: int = 64, **options: Any) -> TrainingRun:
    """The run that nothing interrupts."""
    run = train(toy_sae(d_sae=d_sae), stream if stream is not None else Hashed(), config(None, **options))
    run.wait()
    return run


def interrupted(folder: Path, after: int = 100, stream: Any = None, d_sae: int = 64, **options: Any) -> None:
    """A run that is gone in the middle of step `after`, as a killed process is: it ends without a last checkpoint."""
    stream = stream if stream is not None else Hashed()
    killed, take = RuntimeError("killed"), Loop.take

    def killed_after(loop: Loop, batch: Any) -> None:
        if loop.step >= after:
            raise killed
        take(loop, batch)

    with patch.object(Loop, "take", killed_after), pytest.raises(RuntimeError, match="killed"):
        train(toy_sae(d_sae=d_sae), stream, config(folder, **options)).wait()


@pytest.mark.parametrize("optimizer", ["adam", "muon", "signum"])
def test_it_goes_on_bit_for_bit(tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saewidgets.training.loop.DEAD_LOOKUPS", 4)  # who is dead has to be remembered for 58 steps
    interrupted(tmp_path, optimizer=optimizer, d_sae=256)
    assert len(checkpoints.listed(tmp_path)) == 2  # of three, keep_last
    run = resume_training(tmp_path, Hashed())
    assert 0 < run.step
    run.wait()
    assert run.checkpoint_errors == []
    expected = whole(optimizer=optimizer, d_sae=256)
    assert expected.metrics.aux_loss.notna().any(), "the test is to cover AuxK"
    same(run, expected)
    assert resume_training(tmp_path, Hashed()).sae.cfg == expected.sae.cfg  # of a run that is over: it is over


@pytest.mark.parametrize("architecture", [name for name in architectures() if "transcoder" not in name])
def test_every_architecture_goes_on_bit_for_bit(tmp_path: Path, architecture: str) -> None:
    """With resampled features, learned thresholds, multipliers and whatever else one keeps."""

    def begin(folder: Path | None, **callback: Any) -> TrainingRun:
        sae = sw.SAE(sw.SAEConfig(d_in=D_IN, d_sae=96, architecture=architecture))
        options = {"n_tokens": 9000, "dead_window": 700, "n_logs": 10, "k_anneal_from": None, "clip_norm": None}
        return train(sae, Hashed(), config(folder, **options), **callback)

    stop = stop_when(lambda row: row["step"] >= 18)
    stopped = stop.of(begin(tmp_path, on_metrics=stop))
    stopped.wait()
    assert stopped.state == "stopped"
    resumed, expected = resume_training(tmp_path, Hashed()), begin(None)
    resumed.wait()
    expected.wait()
    same(resumed, expected)


ENDLESS = {"n_tokens": 256 * 400_000, "n_logs": 400_000}
"""A row each step, so that a run can be stopped at any."""

KILLED = """
import sys, torch
torch.set_num_threads(1)
from tests.training.test_resume import ENDLESS, Hashed, config
from tests.training.toy import toy_sae
from saewidgets.training import train
train(toy_sae(), Hashed(), config(sys.argv[1], checkpoint_every=7000, **ENDLESS)).wait()
"""


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, env=environment)
    try:
        end = time.monotonic() + 120
        while len(checkpoints.listed(tmp_path)) < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    reached = checkpoints.newest(tmp_path)[0].state["tokens"]
    step = reached // 256 + 80
    resume, begin = (stop_when(lambda row: row["step"] == step) for _ in range(2))
    resumed = resume.of(resume_training(tmp_path, Hashed(), on_metrics=resume))
    resumed.wait()
    fresh = begin.of(train(toy_sae(), Hashed(), config(None, **ENDLESS), on_metrics=begin))
    fresh.wait()
    assert fresh.step == step and fresh.state == "stopped"
    same(resumed, fresh)


def test_a_stopped_run_goes_on_from_where_it_stopped(tmp_path: Path) -> None:
    stop = stop_when(lambda row: row["step"] >= 77)
    run = stop.of(train(toy_sae(), Hashed(), config(tmp_path, checkpoint_every=10**6), on_metrics=stop))
    run.wait()
    assert run.state == "stopped"
    resumed = resume_training(tmp_path, Hashed())
    resumed.wait()
    same(resumed, whole())


def test_live_changes_are_remembered(tmp_path: Path) -> None:
    logs = {"n_logs": 235}  # a row each step

    def change(run: TrainingRun, row: dict[str, float]) -> None:
        if row["step"] == 31:
            run.set(lr=1e-3, k=5, revive=False)

    then = Then(change)
    expected = then.of(train(toy_sae(), Hashed(), config(None, **logs), on_metrics=then))
    then, stop = Then(change), stop_when(lambda row: row["step"] >= 90)
    stopped = then.of(stop.of(train(toy_sae(), Hashed(), config(tmp_path, **logs), on_metrics=[then, stop])))
    stopped.wait()
    resumed = resume_training(tmp_path, Hashed())
    resumed.wait()
    assert resumed.knobs == {"lr": 1e-3, "sparsity": None, "k": 5, "revive": False} and resumed.sae.cfg.k == 5
    expected.wait()
    same(resumed, expected)


def test_a_longer_run(tmp_path: Path) -> None:
    train(toy_sae(), Hashed(), config(tmp_path, n_tokens=20_000)).wait()
    run = resume_training(tmp_path, Hashed(), n_tokens=30_000)
    run.wait()
    assert run.tokens == 30_000 and run.state == "finished" and run.metrics.tokens.is_monotonic_increasing
    with pytest.raises(ValueError, match="n_tokens is 100, but the run has trained on 30,000"):
        resume_training(tmp_path, Hashed(), n_tokens=100)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    interrupted(tmp_path)
    file = checkpoints.listed(tmp_path)[-1] / checkpoints.TENSORS
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    run = resume_training(tmp_path, Hashed())
    run.wait()
    assert len(run.checkpoint_errors) == 1 and "is damaged" in run.checkpoint_errors[0]
    same(run, whole())


def test_a_full_disk_costs_only_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 4:  # the first checkpoint fits: three files and the folder
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    run = train(toy_sae(), Hashed(), config(tmp_path, n_snapshots=0))
    run.wait()
    assert run.state == "finished" and len(run.checkpoint_errors) == 8
    assert run.checkpoint_errors[0].startswith("The checkpoint of step 55 could not be written: [Errno 28] No space")
    same(run, whole())
    monkeypatch.undo()
    assert [path.name for path in checkpoints.listed(tmp_path)] == ["checkpoint-0001-step-28"]
    resumed = resume_training(tmp_path, Hashed())
    resumed.wait()
    same(resumed, whole())


def test_whatever_keeps_a_checkpoint_from_being_written_costs_only_the_checkpoint(tmp_path: Path) -> None:
    stream = Hashed()
    stream.metadata = stream.metadata.replace(extra={"made by": object()})  # no JSON value
    run = train(toy_sae(), stream, config(tmp_path, n_snapshots=1))
    run.wait()
    assert run.state == "finished" and checkpoints.listed(tmp_path) == [] and run.snapshots == []
    assert len(run.checkpoint_errors) == 10 and all("is not JSON serializable" in s for s in run.checkpoint_errors)


def test_another_stream_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(ValueError, match=r"What differs: batch_size \(256 in the checkpoint, 128 now\)\."):
        resume_training(tmp_path, Hashed(batch_size=128))
    other = Hashed()
    other.fingerprints = lambda: {"texts": "0" * 64, "batch_size": "256", "new": "1"}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"differs: texts, seed \(0 in the checkpoint, not there now\), new \(not"):
        resume_training(tmp_path, other, allow_unverified=True)
    with pytest.raises(ValueError, match="have no fingerprints"):
        resume_training(tmp_path, ToyStream())


def test_a_plain_iterable_is_read_over_if_the_user_vouches_for_it(tmp_path: Path) -> None:
    class Plain(list):  # type: ignore[type-arg]
        d_in = D_IN

    batches = Plain(ToyStream().vectors.split(100))
    interrupted(tmp_path, after=300, stream=batches)  # in the fourth epoch
    with pytest.raises(ValueError, match="have no fingerprints"):
        resume_training(tmp_path, batches)
    run = resume_training(tmp_path, batches, allow_unverified=True)
    run.wait()
    same(run, whole(stream=batches))


def test_a_tensor_can_be_compared_and_sought(tmp_path: Path) -> None:
    vectors = ToyStream().vectors[:5000]
    interrupted(tmp_path, after=20, stream=vectors)
    with pytest.raises(ValueError, match=r"differs: vectors\."):
        resume_training(tmp_path, vectors + 1)
    with pytest.raises(ValueError, match=r"differs: batch_size \(2048 in the checkpoint, 64 now\)"):
        resume_training(tmp_path, TensorStream(vectors, batch_size=64))
    run = resume_training(tmp_path, vectors)
    run.wait()
    same(run, whole(stream=vectors))


def test_a_stream_that_fails_leaves_a_checkpoint(tmp_path: Path) -> None:
    stream = Hashed()

    def fail(index: int) -> None:
        if index == 30 and run.step > 40:
            raise OSError("the text is gone")

    run = train(toy_sae(), stream, config(tmp_path, checkpoint_every=10**6))
    stream.before_batch = fail
    with pytest.raises(RuntimeError, match=r"text is gone\. The SAE keeps .* sw.resume_training\('/.*', acts\)"):
        run.wait()
    assert run.step == 62  # the second epoch's thirtieth batch
    resumed = resume_training(tmp_path, Hashed())
    assert resumed.step >= 62
    resumed.wait()
    same(resumed, whole())


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(ValueError, match="holds checkpoints of a run already"):
        train(toy_sae(), Hashed(), config(tmp_path))
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        resume_training(tmp_path / "elsewhere", Hashed())
    with pytest.raises(ValueError, match="which this machine does not have"):
        resume_training(tmp_path, Hashed(), device="mps" if not torch.backends.mps.is_available() else "cuda")


def test_a_stream_of_a_model_is_sought(tmp_path: Path, demo_model: Any, texts: list[str]) -> None:
    def stream(**options: Any) -> sw.ActivationStream:
        sizes = {"context_size": 32, "batch_size": 64, "block_batches": 4, **options}
        return sw.ActivationStream(demo_model, texts[:20], "blocks.1.hook_resid_post", **sizes)

    def sae(acts: Any) -> sw.SAE:
        return sw.SAE(sw.SAEConfig(d_in=acts.d_in, d_sae=64, k=4))

    acts = stream()
    n_tokens = int(1.6 * acts.n_vectors)
    options = TrainConfig(n_tokens=n_tokens, n_logs=7, n_evaluations=2)
    stop = stop_when(lambda row: row["epoch"] > 1.1)
    run = stop.of(train(sae(acts), acts, options.replace(checkpoint_dir=tmp_path), on_metrics=stop))
    run.wait()
    assert run.state == "stopped"
    with pytest.raises(ValueError, match=r"differs: seed \(0 in the checkpoint, 1 now\)"):
        sw.resume_training(tmp_path, stream(seed=1))
    resumed = sw.resume_training(tmp_path, stream())
    resumed.wait()
    expected = train(sae(acts), stream(), options)
    expected.wait()
    same(resumed, expected)
