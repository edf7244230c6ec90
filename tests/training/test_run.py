"""Training runs: what they learn, how they are watched and steered, and how they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from saewidgets.sae import load_sae, save_sae
from saewidgets.training import TrainConfig, TrainingRun, train
from saewidgets.training.metrics import COLUMNS

from .toy import D_IN, Gate, ToyStream, directions, toy_sae


def eventually(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def test_it_finds_the_true_features_and_says_how_it_went() -> None:
    sae, stream = toy_sae(), ToyStream()
    run = train(sae, stream, TrainConfig(n_tokens=200_000))
    assert run.state == "running" and sae.cfg.d_in == D_IN
    run.wait()
    assert run.state == "finished" and run.error is None and run.callback_errors == []

    cosines = (sae.W_dec @ directions().T).max(0).values
    assert cosines.mean() > 0.95
    x = stream.vectors
    with torch.no_grad():
        explained = 1 - (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert explained > 0.85

    metrics = run.metrics
    assert list(metrics.columns) == [*COLUMNS, "aux_loss"] and 50 <= len(metrics) <= 101
    last = metrics.iloc[-1]
    assert last.tokens == 200_000 == run.tokens and last.step == run.step == run.n_steps
    assert last.epoch == pytest.approx(200_000 / 8192)
    assert last.explained_variance == pytest.approx(float(explained), abs=0.02)
    assert 3 < last.l0 <= 4 and last.dead_window == 10_000 and last.skipped_steps == 0
    assert metrics.loss.iloc[-1] < 0.5 * metrics.loss.iloc[0]
    assert metrics.tokens.is_monotonic_increasing and metrics.seconds.is_monotonic_increasing
    assert metrics.ce_loss_recovered.isna().all()  # this stream has no language model
    assert run.progress.message == "finished: step 782 of 782, epoch 24.4 of 24.4"


def test_the_trained_sae_is_folded_its_rows_of_one_length_and_knows_its_origin(tmp_path: Path) -> None:
    sae, stream = toy_sae(), ToyStream()
    run = train(sae, stream, TrainConfig(n_tokens=20_000))
    run.wait()
    assert run.sae is sae and float(sae.input_scale) == 1
    length = stream.vectors.norm(dim=1).mean() / sae.cfg.d_in**0.5  # 1 / s, about: s is from the first batches
    assert torch.allclose(sae.W_dec.norm(dim=1), length.expand(64), rtol=0.05)
    metadata = sae.metadata
    assert (metadata.hook_name, metadata.n_tokens_trained) == ("toy.hook", 20_000)
    assert metadata.extra == {"source": "test", "step": run.step}
    # the mean is in b_dec, in the units of the data
    assert torch.allclose(sae.b_dec, stream.vectors.mean(0), rtol=0.3)
    loaded = load_sae(save_sae(sae, tmp_path / "mine"))
    assert torch.allclose(loaded(stream.vectors[:50]), sae(stream.vectors[:50]), atol=1e-4)
    assert run.title == "TrainingRun(topk, d_sae=64, hook_name='toy.hook', n_tokens=20_000)"
    assert repr(run) == f"{run.title[:-1]}, state='finished', step=79)"


def test_same_seed_same_bits_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    prints = []
    for seed in (0, 0, 1):
        sae = toy_sae(seed)
        train(sae, ToyStream(), TrainConfig(n_tokens=30_000)).wait()
        prints.append(sae.fingerprint())
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_scale_of_the_data_changes_nothing_but_the_units() -> None:
    saes = []
    for scale in (3.0, 300.0):
        sae = toy_sae()
        train(sae, ToyStream(scale=scale), TrainConfig(n_tokens=30_000)).wait()
        saes.append(sae)
    assert torch.allclose(saes[0].b_dec * 100, saes[1].b_dec, rtol=1e-2)
    assert torch.allclose(saes[0].W_dec * 100, saes[1].W_dec, rtol=1e-2, atol=1)
    x = ToyStream(scale=3.0).vectors[:50]
    assert torch.allclose(saes[0].encode(x), saes[1].encode(x * 100), atol=0.05)


def test_training_goes_on_from_an_sae_that_has_learned() -> None:
    sae, stream = toy_sae(), ToyStream()
    train(sae, stream, TrainConfig(n_tokens=100_000)).wait()
    again = train(sae, stream, TrainConfig(n_tokens=20_000, lr=1e-5))
    again.wait()
    assert again.metrics.explained_variance.iloc[0] > 0.8


def test_pause_holds_within_a_step_and_resume_goes_on() -> None:
    sae, stream = toy_sae(), ToyStream()
    run = train(sae, stream, TrainConfig(n_tokens=2_000_000))
    eventually(lambda: run.step > 5)
    run.pause()
    step, weights, seconds = run.step, sae.fingerprint(), run.seconds
    assert run.state == "paused" and not sae.W_dec.isnan().any()
    assert run.wait(timeout=0.3) is False
    assert (run.step, sae.fingerprint()) == (step, weights) and run.state == "paused"
    assert repr(run).endswith(f"n_tokens=2_000_000, state='paused', step={step})")
    assert run.seconds - seconds < 0.2
    run.resume()
    assert run.state == "running"
    eventually(lambda: run.step > step)
    run.stop()
    assert run.state == "stopped" and run.sae is sae and run.step < run.n_steps
    assert run.metrics.tokens.iloc[-1] == run.tokens
    run.wait()  # no error
    run.pause(), run.resume(), run.stop()
    assert run.state == "stopped"


def test_stop_while_paused_and_before_the_first_step() -> None:
    stream = ToyStream()
    gate = Gate(stream, after=2)
    run = train(toy_sae(), stream, TrainConfig(n_tokens=100_000))
    assert gate.reached.wait(20)
    assert run.step == 0 and run.progress.message == "running: reading the first activations"
    run.pause()
    gate.open()
    eventually(lambda: not run._loop.clock.running)
    assert run.step == 0
    run.stop()
    assert run.state == "stopped" and len(run.metrics) == 0 and list(run.metrics.columns) == list(COLUMNS)


def test_the_sae_of_a_running_run_is_a_copy_that_says_its_step() -> None:
    sae = toy_sae()
    run = train(sae, ToyStream(), TrainConfig(n_tokens=2_000_000))
    eventually(lambda: run.step > 3)
    for _ in range(5):
        copy = run.sae
        assert copy is not sae and not copy.W_dec.requires_grad
        assert copy.metadata.extra["step"] >= 3
        lengths = copy.W_dec.norm(dim=1)
        assert torch.allclose(lengths, lengths.mean().expand(64), rtol=1e-4)  # never between two writes
        before = copy.fingerprint()
    eventually(lambda: run.step > copy.metadata.extra["step"] + 2)
    assert copy.fingerprint() == before
    run.stop()


def test_subscribers_hear_of_states_and_progress_and_cannot_stop_the_training() -> None:
    heard: list[tuple[str, int, str]] = []
    rows: list[dict[str, float]] = []

    def listen(run: TrainingRun) -> None:
        heard.append((run.state, run.step, threading.current_thread().name))

    def fail(run: TrainingRun) -> None:
        raise ValueError("a broken view")

    stream = ToyStream()
    gate = Gate(stream, after=70)
    run = train(toy_sae(), stream, TrainConfig(n_tokens=200_000), on_metrics=rows.append)
    unsubscribe = run.subscribe(listen)
    run.subscribe(fail)
    assert gate.reached.wait(20)
    run.pause()
    gate.open()
    eventually(lambda: ("paused", run.step, run.title) in heard)
    run.resume()
    run.wait()
    states = [state for state, _, _ in heard]
    assert states[-1] == "finished" and "running" in states[states.index("paused") :]
    assert len(heard) < 10 + 6 * run.seconds
    for row, logged in zip(rows, run.metrics.to_dict("records"), strict=True):
        assert str(row) == str({name: logged[name] for name in row})
    assert any("a broken view" in str(error) for error in run.callback_errors)
    unsubscribe()
    unsubscribe()


def test_steps_with_nan_are_skipped_and_counted() -> None:
    stream = ToyStream()
    stream.vectors[::1000] = float("nan")  # 9 of 8192 vectors
    sae = toy_sae()
    run = train(sae, stream, TrainConfig(n_tokens=100_000))
    run.wait()
    metrics = run.metrics
    assert 30 < metrics.skipped_steps.iloc[-1] < 150 and metrics.skipped_steps.is_monotonic_increasing
    assert all(torch.isfinite(p).all() for p in sae.parameters())
    assert metrics.explained_variance.iloc[-1] > 0.7


def test_ten_skipped_steps_in_a_row_fail_the_run_with_the_last_good_weights() -> None:
    stream, good = ToyStream(), {}
    sae = toy_sae()

    def poison(index: int) -> None:
        if run.step >= 100 and not good:
            good["weights"] = sae.clone().W_dec
            stream.vectors[:] = float("nan")

    stream.before_batch = lambda index: None
    run = train(sae, stream, TrainConfig(n_tokens=400_000, n_logs=50))
    stream.before_batch = poison
    with pytest.raises(RuntimeError, match="steps in a row gave NaN or infinities"):
        run.wait()
    assert run.state == "failed"
    assert torch.allclose(sae.W_dec, good["weights"], atol=1e-6)
    assert all(torch.isfinite(p).all() for p in sae.parameters())


def test_a_kernel_interrupt_in_wait_pauses_and_says_so() -> None:
    run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=2_000_000))
    eventually(lambda: run.step > 2)
    # a process that was started in the background ignores the signal, as a kernel never does
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt, match=r"paused at step \d+ of \d+\. run.resume\(\) goes on"):
            run.wait(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.state == "paused"
    run.stop()


def test_a_process_ends_cleanly_in_the_middle_of_a_run() -> None:
    program = (
        "from tests.training.toy import *; from saewidgets.training import *; import time\n"
        "run = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=10**9))\n"
        "while run.step < 5: time.sleep(0.01)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == ""
