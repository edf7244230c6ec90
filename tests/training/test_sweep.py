"""Sweeps: each SAE becomes what it would alone, the stream is read once, and one that fails takes no other with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training import SweepRun, TensorStream, TrainConfig, resume_training, sweep, train
from saewidgets.training.metrics import COLUMNS
from saewidgets.training.stack import Stack
from saewidgets.widgets.display import sweep_run

from .toy import D_IN, Gate, ToyStream, toy_sae

CONFIG = TrainConfig(n_tokens=20_001, n_logs=20, dead_window=1500)


def cfg(**options: Any) -> SAEConfig:
    return SAEConfig(**{"d_in": D_IN, "d_sae": 64, **options})


def alone(cfg: SAEConfig, config: TrainConfig, stream: Any = None) -> SAE:
    sae = SAE(cfg)
    train(sae, stream if stream is not None else ToyStream(), config).wait()
    return sae


def prints(saes: list[SAE]) -> list[str]:
    return [sae.fingerprint() for sae in saes]


class Counted(ToyStream):
    """Counts the batches that are asked for."""

    asked = 0

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        for batch in super().batches(epoch, start):
            self.asked += 1
            yield batch


MIXED = [
    cfg(k=4),
    cfg(architecture="relu"),
    cfg(k=8, seed=1),
    cfg(k=4, d_sae=32),
    cfg(k=2, init_b_dec="zeros"),
    cfg(k=3, normalize="layer_norm"),
    cfg(k=3, normalize="layer_norm", seed=1),
    cfg(k=4, architecture="batchtopk"),
    cfg(k=6, architecture="batchtopk", seed=1),
    cfg(k=4, architecture="matryoshka"),
]


def test_each_becomes_what_it_would_alone_bit_for_bit_and_the_stream_is_read_once() -> None:
    configs = [CONFIG.replace(lr=lr) for lr in (1e-2, None, 3e-2, *[None] * 7)]
    configs[4] = configs[4].replace(optimizer="signum", k_anneal_from=6, clip_norm=0.05)
    stream = Counted()
    run = sweep(stream, MIXED, configs)
    assert run.state == "running" and run.stacked == [[0, 2, 4], [5, 6], [7, 8]]
    run.wait()
    assert run.state == "finished" and run.error is None and run.callback_errors == []
    assert stream.asked == run.step == run.n_steps == 79 and run.tokens == 20_001
    for sae, own, config in zip(run.saes, MIXED, configs, strict=True):
        assert sae.fingerprint() == alone(own, config).fingerprint()
        assert sae.metadata.n_tokens_trained == 20_001 and sae.metadata.hook_name == "toy.hook"
        assert sae.W_dec.untyped_storage().nbytes() == sae.W_dec.nbytes  # to keep one is not to keep all
    revived = run.metrics.groupby("sae").births.sum()
    assert revived[[0, 4]].all() and run.metrics.aux_loss.notna().any()  # AuxK had its part in that


def test_metrics_table_labels_and_plot() -> None:
    rows: list[dict[str, float]] = []
    run = sweep(ToyStream(), MIXED[:3], CONFIG.replace(n_evaluations=0), on_metrics=rows.append)
    run.wait()
    metrics = run.metrics
    assert list(metrics.columns[: 1 + len(COLUMNS)]) == ["sae", *COLUMNS] and len(metrics) == 3 * 20
    assert metrics.sae.tolist()[:4] == [0, 1, 2, 0] and metrics.tokens.is_monotonic_increasing
    assert sorted((row["sae"], row["step"]) for row in rows) == sorted(zip(metrics.sae, metrics.step, strict=True))
    one = train(toy_sae(), ToyStream(), CONFIG)
    one.wait()
    timed = ["seconds", "vectors_per_second"]
    own = metrics[metrics.sae == 0].drop(columns=["sae", *timed]).reset_index(drop=True)
    theirs = one.metrics.drop(columns=timed)
    assert own[theirs.columns].round(6).equals(theirs.round(6))

    summary = run.table()
    assert list(summary.columns[:3]) == ["architecture", "k", "seed"] and summary.index.name == "sae"
    assert summary.k.tolist()[::2] == [4, 8] and summary.k.isna().tolist() == [False, True, False]
    last = metrics[metrics.sae == 2].iloc[-1]
    assert summary.l0[2] == last.l0 and summary.explained_variance[2] == last.explained_variance
    assert summary.error.tolist() == ["", "", ""]
    assert run.labels == ["0: topk, k=4, seed=0", "1: relu, seed=0", "2: topk, k=8, seed=1"]
    assert run.title == "SweepRun(3 SAEs, hook_name='toy.hook', n_tokens=20_001)"
    assert repr(run) == f"{run.title[:-1]}, state='finished', step=79)"
    points = [trace for trace in run.plot().data if "markers" in trace.mode]
    assert [trace.x[0] for trace in points] == summary.l0.tolist() and len(run.plot().data) == 1 + 3 * 4
    assert sweep_run(run)["text/plain"] == run.title


def test_a_table_and_a_plot_before_the_first_row() -> None:
    stream = ToyStream()
    gate = Gate(stream, after=0)
    run = sweep(stream, [cfg(k=4), cfg(k=8)], CONFIG)
    assert gate.reached.wait(20)
    assert len(run.metrics) == 0 and list(run.metrics.columns) == ["sae", *COLUMNS]
    assert run.table().explained_variance.isna().all() and run.table().tokens.tolist() == [0, 0]
    assert len(run.plot().data) == 9 and run.progress.message == "running: reading the first activations"
    run._stopping = True
    gate.open()
    run.wait()
    assert run.state == "stopped"


def test_pause_holds_all_resume_goes_on_and_stop_keeps_what_was_learned() -> None:
    heard: list[tuple[str, str]] = []
    stream = ToyStream()
    gate = Gate(stream, after=70)
    run = sweep(stream, [cfg(k=4), cfg(k=8), cfg(architecture="relu")], CONFIG.replace(n_tokens=2_000_000))
    run.subscribe(lambda run: heard.append((run.state, threading.current_thread().name)))
    assert gate.reached.wait(20)
    run.pause()
    gate.open()
    step, copies = run.step, run.saes
    assert {copy.metadata.extra["step"] for copy in copies} == {step} and not copies[0].W_dec.requires_grad
    run.wait(timeout=0.3)
    assert run.state == "paused" and run.step == step and prints(run.saes) == prints(copies)
    run.resume()
    run.wait(timeout=0.3)
    run.stop()
    run.wait()
    assert run.state == "stopped" and step < run.step < run.n_steps
    assert run.progress.step == run.step and run.progress.n_tokens == 2_000_000
    assert run.metrics.groupby("sae").tokens.max().tolist() == [run.tokens] * 3
    assert ("paused", run.title) in heard and heard[-1] == ("stopped", run.title)


def test_an_sae_of_a_sweep_is_in_no_other_run_until_the_sweep_is_over() -> None:
    run = sweep(ToyStream(), [cfg(k=4), cfg(k=8)], CONFIG.replace(n_tokens=2_000_000))
    sae = run._loops.saes[1]
    with pytest.raises(RuntimeError, match="being trained by another run"):
        train(sae, ToyStream(), CONFIG)
    run.stop()
    run.wait()
    assert run.saes[1] is sae
    train(sae, ToyStream(), TrainConfig(n_tokens=1000)).wait()


@pytest.mark.parametrize("bad", [cfg(k=8), cfg(architecture="relu")])  # in the stack, and by itself
def test_one_that_fails_keeps_its_weights_and_the_others_go_on(bad: SAEConfig) -> None:
    configs = [CONFIG, CONFIG.replace(lr=1e38, warmup_fraction=0.0), CONFIG]
    run = sweep(ToyStream(), [cfg(k=4), bad, cfg(k=2)], configs)
    with pytest.raises(RuntimeError, match=r"1 of 3 SAEs failed \(number 1 at step \d+: .*NaN.*\(run.saes\)") as error:
        run.wait()
    assert run.state == "failed" and list(run.errors) == [1] and error.value.__cause__ is run.error
    assert run.tokens == 20_001 and run.table().tokens[1] < 20_001 and "NaN" in run.table().error[1]
    for i, k in ((0, 4), (2, 2)):
        assert run.saes[i].fingerprint() == alone(cfg(k=k), CONFIG).fingerprint()


def test_when_all_fail_the_sweep_ends() -> None:
    wild = CONFIG.replace(lr=1e38, warmup_fraction=0.0)
    run = sweep(ToyStream(), [cfg(k=4), cfg(architecture="relu")], wild)
    with pytest.raises(RuntimeError, match="2 of 2 SAEs failed"):
        run.wait()
    assert run.tokens < 20_001


def test_what_goes_wrong_in_the_stream_fails_the_sweep() -> None:
    stream = ToyStream()

    def fail(index: int) -> None:
        if run.step > 70:
            raise OSError("the disk is gone")

    run = sweep(stream, [cfg(k=4), cfg(k=8)], CONFIG)
    stream.before_batch = fail
    with pytest.raises(RuntimeError, match=r"failed at step 7\d: the disk is gone. The SAEs keep what"):
        run.wait()
    assert isinstance(run.error, OSError) and run.progress.message.endswith("the disk is gone")


def test_each_has_checkpoints_of_its_own_from_which_it_goes_on_alone_bit_for_bit(tmp_path: Path) -> None:
    config = CONFIG.replace(n_tokens=30_000, checkpoint_dir=tmp_path / "sweep", checkpoint_every=5000, n_snapshots=2)
    stream = ToyStream()
    gate = Gate(stream, after=75)
    run = sweep(stream, [cfg(k=4), cfg(k=8, seed=1)], config)
    assert gate.reached.wait(20)
    run._stopping = True
    gate.open()
    run.wait()
    assert run.state == "stopped" and run.tokens < 30_000 and run.checkpoint_errors == []
    (step,) = run.snapshots
    assert run.sae_at(1, step).metadata.extra["step"] == step and run.sae_at(1, step).cfg.k == 8
    with pytest.raises(IndexError, match="0 to 1"):
        run.sae_at(2, step)
    with pytest.raises(ValueError, match="sae-0 holds checkpoints of a sweep already"):
        sweep(ToyStream(), [cfg(k=4)], config)
    rest = Counted()
    again = resume_training(tmp_path / "sweep" / "sae-1", rest, allow_unverified=True)
    again.wait()
    assert 0 < rest.asked == again.step - run.step
    whole = alone(cfg(k=8, seed=1), CONFIG.replace(n_tokens=30_000))
    assert again.sae.fingerprint() == whole.fingerprint()


def test_a_stack_for_which_there_is_no_memory_goes_on_one_by_one(monkeypatch: Any) -> None:
    gradients, asked = Stack.gradients, []

    def limited(self: Stack, *rest: Any) -> Any:
        asked.append(1)
        if len(asked) > 30:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return gradients(self, *rest)

    monkeypatch.setattr(Stack, "gradients", limited)
    run = sweep(ToyStream(), [cfg(k=4), cfg(k=8)], CONFIG)
    run.wait()
    assert len(asked) == 31 and run.stacked == []
    assert [loop.events for loop in run._loops.loops] == [
        [{"step": 30, "tokens": 30 * 256, "name": "stacked", "old": True, "new": False, "call": None}]
    ] * 2
    assert prints(run.saes) == prints([alone(cfg(k=4), CONFIG), alone(cfg(k=8), CONFIG)])


def test_a_bare_tensor_is_shuffled_by_the_first_seed() -> None:
    vectors = ToyStream().vectors
    run = sweep(vectors, [cfg(k=4, seed=3), cfg(k=8, seed=4)], CONFIG)
    run.wait()
    expected = [alone(own, CONFIG, TensorStream(vectors, seed=3)) for own in run.configs]
    assert prints(run.saes) == prints(expected)


def test_transcoders_train_on_pairs() -> None:
    class Pairs(list):
        d_in = D_IN

    vectors = ToyStream().vectors
    pairs = Pairs(zip(vectors.split(256), (vectors @ torch.eye(D_IN).flip(0)).split(256), strict=True))
    own = cfg(k=4, architecture="transcoder")
    run = sweep(pairs, [own, cfg(k=4, architecture="skip_transcoder")], CONFIG)
    run.wait()
    assert run.saes[0].fingerprint() == alone(own, CONFIG, pairs).fingerprint()


@pytest.mark.parametrize(
    ("configs", "train_config", "sentence"),
    [
        ([cfg(), cfg(d_in=16)], CONFIG, r"number 1 of the sweep reads vectors of size 16 .* of toy.hook have size 24"),
        ([cfg(), cfg(dtype="float64")], CONFIG, "dtype is float32 for number 0"),
        ([cfg(), cfg(architecture="transcoder")], CONFIG, r"d_out is None for number 0 \(topk\) and 24 for number 1"),
        ([], CONFIG, "at least one SAEConfig"),
        (cfg(), CONFIG, "list of SAEConfigs, got SAEConfig"),
        ([cfg(), {"k": 4}], CONFIG, "list of SAEConfigs, got dict"),
        ([cfg(), cfg()], [CONFIG], "2 SAEs, but 1 TrainConfigs"),
        ([cfg()], None, r"needs to know how long to train: sw.sweep\(acts, configs, sw.TrainConfig"),
        ([cfg()], {"n_tokens": 5}, "needs a TrainConfig, or one for each SAE, got dict"),
        ([cfg(), cfg()], [CONFIG, CONFIG.replace(n_tokens=9)], "n_tokens is 20,001 for number 0 and 9 for number 1"),
        ([cfg(), cfg(architecture="relu")], CONFIG.replace(k_anneal_from=8), "'relu' has no k"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_a_sentence(configs: Any, train_config: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        sweep(ToyStream(), configs, train_config)


def test_a_kernel_interrupt_in_wait_pauses_the_sweep(monkeypatch: Any) -> None:
    run: SweepRun = sweep(ToyStream(), [cfg(k=4), cfg(k=8)], CONFIG.replace(n_tokens=2_000_000))

    def interrupted(timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run._done, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"paused at step \d+ of"):
            run.wait()
    assert run.state == "paused"
    run.stop()
