"""The streams that an interrupted run goes on with: sought, read over, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import saewidgets as sw
from saewidgets.training import TensorStream, TrainConfig, resume_training, train

from .interrupted import Hashed, interrupted, same, whole
from .toy import D_IN, ToyStream, stop_when


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
