"""What a run is begun with: which vectors and options it takes, and what it says of others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saewidgets.training import TrainConfig, sweep, train

from .toy import D_IN, ToyStream, toy_sae


def test_a_second_run_on_the_same_sae_is_refused_until_the_first_is_over() -> None:
    sae = toy_sae()
    run = train(sae, ToyStream(), TrainConfig(n_tokens=2_000_000))
    with pytest.raises(RuntimeError, match="being trained by another run"):
        train(sae, ToyStream(), TrainConfig(n_tokens=1000))
    other = train(toy_sae(), ToyStream(), TrainConfig(n_tokens=1000))
    run.stop()
    run.wait()
    train(sae, ToyStream(), TrainConfig(n_tokens=1000)).wait()
    other.wait()


def test_vectors_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size 16 \(d_in\), but the activations of toy.hook have size 24"):
        train(toy_sae(d_in=16), ToyStream(), TrainConfig(n_tokens=1000))
    with pytest.raises(TypeError, match="have a d_in"):
        train(toy_sae(), [torch.zeros(4, D_IN)], TrainConfig(n_tokens=1000))
    with pytest.raises(ValueError, match="held_out texts need the model"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=1000), held_out=["a story"])
    with pytest.raises(TypeError, match="needs a TrainConfig"):
        train(toy_sae(), ToyStream(), {"n_tokens": 3})  # type: ignore[arg-type]


class Plain(list):  # type: ignore[type-arg]
    d_in = D_IN


def test_a_plain_list_of_tensors_trains_too() -> None:
    batches = Plain(ToyStream().vectors.half().split(100))
    run = train(toy_sae(), batches, TrainConfig(n_tokens=20_001))
    run.wait()
    assert run.tokens == 20_001 and run.step == run.n_steps
    assert run.metrics.epoch.iloc[-1] == pytest.approx(20_001 / 8192)


def test_what_goes_wrong_in_the_thread_is_kept_and_raised_by_wait() -> None:
    stream = ToyStream()

    def fail(index: int) -> None:
        if index == 10:
            raise OSError("the disk is gone")

    stream.before_batch = fail
    run = train(toy_sae(), stream, TrainConfig(n_tokens=100_000))
    with pytest.raises(RuntimeError, match="The run failed at step 0: the disk is gone") as error:
        run.wait()
    assert run.state == "failed" and isinstance(run.error, OSError) and error.value.__cause__ is run.error
    assert run.progress.message == "failed at step 0: the disk is gone"


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        (Plain([torch.zeros(4, D_IN + 1)]), r"gave \(4, 25\) where a tensor \[batch, 24\]"),
        (Plain(), "epoch 1 has no vectors"),
        (Plain([torch.full((4, D_IN), float("nan"))] * 9), "nothing to train on"),
    ],
)
def test_activations_that_are_none(batches: Plain, sentence: str) -> None:
    run = train(toy_sae(), batches, TrainConfig(n_tokens=1000))
    with pytest.raises(RuntimeError, match=sentence):
        run.wait()


def test_an_iterator_that_ends_for_good_is_named() -> None:
    class Once:
        d_in = D_IN

        def __init__(self) -> None:
            self._batches = iter(ToyStream().vectors.split(256))

        def __iter__(self) -> Any:
            return self._batches

    run = train(toy_sae(), Once(), TrainConfig(n_tokens=20_000))
    with pytest.raises(RuntimeError, match="only once"):
        run.wait()
    assert run.tokens == 8192  # what was learned is kept
    assert torch.isfinite(run.sae.W_dec).all()


def test_who_does_not_say_how_long_is_told_how_to() -> None:
    with pytest.raises(TypeError, match=r"needs to know how long: sw\.train\(sae, acts, sw\.TrainConfig"):
        train(toy_sae(), ToyStream())


def test_options_of_the_config_given_to_train_are_sent_there() -> None:
    with pytest.raises(TypeError, match=r"train has no option 'n_tokens'.* sw\.TrainConfig\(n_tokens=100, lr=0\.1\)"):
        train(toy_sae(), ToyStream(), n_tokens=100, lr=0.1)
    with pytest.raises(TypeError, match=r"sweep has no option 'n_tokens'"):
        sweep(ToyStream(), [toy_sae().cfg], n_tokens=100)
    with pytest.raises(TypeError, match=r"train has no option 'on_metric'. Did you mean 'on_metrics'\?"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=100), on_metric=print)
    with pytest.raises(TypeError, match=r"no option 'batches'. It has sae, acts, config, held_out, on_metrics; how"):
        train(toy_sae(), ToyStream(), TrainConfig(n_tokens=100), batches=3)
