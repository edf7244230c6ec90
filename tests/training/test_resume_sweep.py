"""A sweep that was interrupted goes on as if it had not been: each of its SAEs, bit for bit."""

from __future__ import annotations

import os
import shutil
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

from saewidgets.sae import SAEConfig
from saewidgets.training import SweepRun, TrainConfig, checkpoints, resume_training, sweep, sweep_checkpoints, train
from saewidgets.training.saved import tensors_of
from saewidgets.widgets.sweep_monitor import SweepMonitor

from .interrupted import CLOCK, Hashed
from .test_resume import ROOT
from .toy import D_IN, Then, stop_when, toy_sae

CONFIGS = [
    SAEConfig(d_in=D_IN, d_sae=64, k=8, seed=1),
    SAEConfig(d_in=D_IN, d_sae=64, architecture="relu"),
    SAEConfig(d_in=D_IN, d_sae=64, k=4),  # stacked with the first, and in front of it there
]


def config(folder: Path | None, **options: Any) -> TrainConfig:
    own = {"n_tokens": 30_000, "dead_window": 1500, "n_logs": 15, "n_snapshots": 0, **options}
    return TrainConfig(**own if folder is None else {"checkpoint_dir": folder, "checkpoint_every": 4000, **own})


def ended(run: Any) -> SweepRun:
    run.wait()
    assert isinstance(run, SweepRun)
    return run


def same(one: SweepRun, other: SweepRun) -> None:
    """Assert that two ended sweeps are equal but for the clock."""
    assert (one.step, one.tokens, one.state, one.labels) == (other.step, other.tokens, other.state, other.labels)
    assert [sae.fingerprint() for sae in one.saes] == [sae.fingerprint() for sae in other.saes]
    pd.testing.assert_frame_equal(one.metrics.drop(columns=CLOCK), other.metrics.drop(columns=CLOCK), check_exact=True)
    pd.testing.assert_frame_equal(one.events, other.events)
    for ours, theirs in zip(one._loops.loops, other._loops.loops, strict=True):
        mine, yours = tensors_of(ours), tensors_of(theirs)
        assert mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)


def interrupted(folder: Path, writes: int, **options: Any) -> None:
    """A sweep that is gone right after so many checkpoints of single SAEs were written."""
    killed, write, done = BaseException("killed"), checkpoints.write, []

    def killed_after(*given: Any) -> Any:
        if len(done) == writes:
            raise killed
        done.append(write(*given))
        return done[-1]

    with patch.object(checkpoints, "write", killed_after), pytest.raises(RuntimeError, match="killed"):
        sweep(Hashed(), CONFIGS, config(folder, **options)).wait()


@pytest.mark.parametrize("keep_last", [1, 2])
def test_a_kill_between_two_checkpoints_goes_back_to_the_last_moment_that_all_have(
    tmp_path: Path, keep_last: int
) -> None:
    interrupted(tmp_path, writes=3 * 3 + 2, keep_last=keep_last)
    steps = [checkpoints.read_state(checkpoints.listed(tmp_path / f"sae-{i}")[-1])["step"] for i in range(3)]
    assert steps[0] == steps[1] > steps[2]
    run = resume_training(tmp_path, Hashed())
    assert isinstance(run, SweepRun) and run.stacked == [[0, 2]]
    assert min(run.metrics.groupby("sae").size()) > 1  # the record is there at once
    monitor = SweepMonitor(run)
    ended(run)
    assert monitor.state == run.state == "finished" and run.checkpoint_errors == []
    same(run, ended(sweep(Hashed(), CONFIGS, config(None))))
    for i in range(3):  # and from there on the sweep has whole saves again
        last = checkpoints.listed(tmp_path / f"sae-{i}")
        assert len(last) == keep_last and checkpoints.read_state(last[-1])["step"] == run.step
    assert ended(resume_training(tmp_path, Hashed())).state == "finished"
    longer = ended(resume_training(tmp_path, Hashed(), n_tokens=33_000))
    assert longer.tokens == 33_000 and longer.metrics.groupby("sae").tokens.max().tolist() == [33_000] * 3


ENDLESS = {"n_tokens": 256 * 400_000, "n_logs": 400_000}
KILLED = """
import sys, torch
torch.set_num_threads(1)
from tests.training.test_resume_sweep import CONFIGS, ENDLESS, Hashed, config
from saewidgets.training import sweep
sweep(Hashed(), CONFIGS, config(sys.argv[1], **ENDLESS)).wait()
"""


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, env=environment)
    try:
        end = time.monotonic() + 120
        while len(checkpoints.listed(tmp_path / "sae-2")) < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    reached = sweep_checkpoints.newest(tmp_path).members[0].state["tokens"]
    step = reached // 256 + 60
    resume, begin = (stop_when(lambda row: row["step"] == step) for _ in range(2))
    resumed = ended(resume.of(resume_training(tmp_path, Hashed(), on_metrics=resume)))  # type: ignore[arg-type]
    fresh = ended(begin.of(sweep(Hashed(), CONFIGS, config(None, **ENDLESS), on_metrics=begin)))  # type: ignore[arg-type]
    assert fresh.step == step and fresh.state == "stopped"
    same(resumed, fresh)


def test_a_stopped_sweep_goes_on_with_its_changes_and_one_that_failed_stays_as_it_was_left(tmp_path: Path) -> None:
    def change(run: Any, row: dict[str, float]) -> None:
        if row["step"] == 24 and row["sae"] == 2:
            run.set(lr=1e-3)
            run.set(sae=0, k=6)

    def begin(folder: Path | None, *more: Any) -> Any:
        own = [config(folder, n_logs=118)] * 3
        own[1] = own[1].replace(lr=1e38, warmup_fraction=0.0)
        return sweep(Hashed(), CONFIGS, own, on_metrics=[then, *more])

    then, stop = Then(change), stop_when(lambda row: row["step"] == 77)
    stopped = then.of(stop.of(begin(tmp_path, stop)))
    with pytest.raises(
        RuntimeError, match=r"number 1 at step \d+: .*NaN.* sw.resume_training\('/[^']*', acts\) goes on"
    ):
        stopped.wait()
    assert stopped.step == 77
    resumed = resume_training(tmp_path, Hashed())
    assert list(resumed.errors) == [1] and "NaN" in str(resumed.errors[1])  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="1 of 3 SAEs failed"):
        resumed.wait()
    then = Then(change)
    expected = then.of(begin(None))
    with pytest.raises(RuntimeError, match="1 of 3 SAEs failed"):
        expected.wait()
    assert isinstance(resumed, SweepRun) and resumed.tokens == 30_000
    assert resumed.configs[0].k == 6
    same(resumed, expected)  # type: ignore[arg-type]
    assert [event["call"] for event in resumed._loops.loops[0].events] == [1, 2]


def test_a_damaged_checkpoint_of_one_is_passed_over_for_all(tmp_path: Path) -> None:
    interrupted(tmp_path, writes=3 * 4)
    file = checkpoints.listed(tmp_path / "sae-1")[-1] / checkpoints.TENSORS
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    run = ended(resume_training(tmp_path, Hashed()))
    assert len(run.checkpoint_errors) == 1 and "sae-1/checkpoint-0004" in run.checkpoint_errors[0]
    same(run, ended(sweep(Hashed(), CONFIGS, config(None))))


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before_it(tmp_path: Path) -> None:
    write = checkpoints.write

    def full(folder: Any, *rest: Any) -> Any:
        if str(folder).endswith("sae-1") and checkpoints.listed(folder):
            raise OSError(28, "No space left on device")
        return write(folder, *rest)

    with patch.object(checkpoints, "write", full):
        run = ended(sweep(Hashed(), CONFIGS, config(tmp_path, keep_last=1)))
    assert run.checkpoint_errors and "No space left" in run.checkpoint_errors[0]
    resumed = resume_training(tmp_path, Hashed())
    assert 0 < resumed._work.loops[0].tokens  # type: ignore[attr-defined]
    same(ended(resumed), run)


def test_what_cannot_go_on_is_refused_in_a_sentence(tmp_path: Path) -> None:
    interrupted(tmp_path, writes=6)
    with pytest.raises(ValueError, match=r"differs: batch_size \(256 in the checkpoint, 128 now\)"):
        resume_training(tmp_path, Hashed(batch_size=128))
    with pytest.raises(ValueError, match="n_tokens is 100, but the run has trained on 8,192 vectors"):
        resume_training(tmp_path, Hashed(), n_tokens=100)
    again = rf"sae-0 holds checkpoints of a sweep already.*resume_training\('{tmp_path}', acts\)"
    for given in (config(tmp_path), [config(tmp_path)] * 3):
        with pytest.raises(ValueError, match=again):
            sweep(Hashed(), CONFIGS, given)
    with pytest.raises(ValueError, match="checkpoints of a sweep already"):
        train(toy_sae(), Hashed(), config(tmp_path))
    shutil.copytree(tmp_path / "sae-2", tmp_path.with_name("kept"))
    shutil.rmtree(tmp_path / "sae-2")
    with pytest.raises(ValueError, match=r"no moment of which all .* Number 2 has none of the last one in .*sae-2\."):
        resume_training(tmp_path, Hashed())
    shutil.copytree(tmp_path / "sae-0", tmp_path / "sae-2")  # it is another one's
    with pytest.raises(ValueError, match="Number 2 has none"):
        resume_training(tmp_path, Hashed())
    shutil.rmtree(tmp_path / "sae-2")
    for path in tmp_path.with_name("kept").glob("checkpoint-*/state.json"):
        path.write_text("{}")
    shutil.copytree(tmp_path.with_name("kept"), tmp_path / "sae-2")
    with pytest.raises(ValueError, match="The checkpoint .*sae-2.* is damaged: state.json is not what was written"):
        resume_training(tmp_path, Hashed())
    alone = resume_training(tmp_path / "sae-0", Hashed())
    alone.wait()
    assert alone.state == "finished"
