"""A run that was interrupted goes on as if it had not been: the same weights, optimizer and rows, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.sae.architectures import architectures
from saewidgets.training import TrainingRun, checkpoints, resume_training, train

from .interrupted import Hashed, config, interrupted, same, whole
from .toy import D_IN, Then, stop_when, toy_sae

ROOT = Path(__file__).parents[2]


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
