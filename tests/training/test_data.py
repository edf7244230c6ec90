"""What a run reads: a bare tensor, pairs for a transcoder, a position that can be gone to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training import TensorStream, TrainConfig, train
from saewidgets.training.data import Vectors

from .toy import D_IN, ToyStream, toy_sae


def test_a_bare_tensor_trains_and_is_shuffled_by_the_seed() -> None:
    vectors = ToyStream().vectors
    run = train(toy_sae(), vectors, TrainConfig(n_tokens=60_000, n_logs=10))
    run.wait()
    assert run.metrics.epoch.iloc[-1] == pytest.approx(60_000 / 8192) and run.step == run.n_steps == 30
    assert run.metrics.explained_variance.iloc[-1] > 0.3 and run.sae.metadata.hook_name is None
    stream = TensorStream(vectors, batch_size=1000, seed=3)
    epochs = [torch.cat(list(stream.batches(epoch))) for epoch in (0, 1)]
    assert not torch.equal(epochs[0], epochs[1])
    assert all(torch.equal(epoch.sort(0).values, vectors.sort(0).values) for epoch in epochs)  # all of them, once
    assert torch.equal(torch.cat(list(stream.batches(1, start=3))), epochs[1][3000:])
    assert torch.equal(next(iter(stream)), next(TensorStream(vectors, 1000, seed=3).batches(0)))
    assert not torch.equal(next(iter(stream)), next(iter(TensorStream(vectors, 1000, seed=4))))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.filterwarnings("error")
def test_an_array_trains_as_the_tensor_of_its_numbers_does(kind: type) -> None:
    tensor = ToyStream().vectors.to(getattr(torch, np.dtype(kind).name))
    array = tensor.numpy().copy()
    array.setflags(write=False)  # as one that is mapped from a file
    for given in (array, np.asfortranarray(array), array[::-1][::-1]):
        assert torch.equal(next(iter(TensorStream(given))), next(iter(TensorStream(tensor))))
    runs = [train(toy_sae(), vectors, TrainConfig(n_tokens=10_000, n_logs=2)) for vectors in (array, tensor)]
    for run in runs:
        run.wait()
    assert torch.equal(runs[0].sae.W_dec, runs[1].sae.W_dec)


@pytest.mark.parametrize(
    ("acts", "error", "sentence"),
    [
        (torch.zeros(4, 3, D_IN), TypeError, r"a vector per row; got torch.float32 \(4, 3, 24\)\. Flatten"),
        (torch.zeros(4, D_IN, dtype=torch.int64), TypeError, "floating-point numbers.* got torch.int64"),
        (np.zeros((4, 3, D_IN)), TypeError, r"float64 \(4, 3, 24\)\. .* x.reshape\(-1, x.shape\[-1\]\)"),
        (np.zeros((4, D_IN), int), TypeError, "floating-point numbers.* got int64"),
        (torch.zeros(0, D_IN), ValueError, "holds no vectors"),
        (torch.zeros(4, D_IN + 1), ValueError, r"size 24 \(d_in\), but the activations have size 25"),
        ([torch.zeros(4, D_IN)], TypeError, r"Put a list of tensors together: torch.cat\(tensors\)"),
        ("activations.pt", TypeError, "must be a tensor or array .* got str"),
    ],
)
def test_what_is_no_stream_of_vectors_is_refused(acts: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        train(toy_sae(), acts, TrainConfig(n_tokens=1000))


class Pairs:
    """Vectors of one hook, and a linear function of them as those of another."""

    d_in, d_out, batch_size = D_IN, 10, 256

    def __init__(self) -> None:
        self.x = ToyStream().vectors
        self.target = self.x @ torch.randn(D_IN, 10, generator=torch.Generator().manual_seed(2))
        self.n_vectors = len(self.x)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from list(zip(self.x.split(256), self.target.split(256), strict=True))[start:]


def transcoder(d_out: int = 10) -> SAE:
    return SAE(SAEConfig(d_in=D_IN, d_out=d_out, d_sae=64, k=8, architecture="transcoder"))


def test_pairs_train_a_transcoder() -> None:
    run = train(transcoder(), Pairs(), TrainConfig(n_tokens=100_001))
    run.wait()
    assert run.tokens == 100_001 and run.metrics.explained_variance.iloc[-1] > 0.7


def test_pairs_and_architecture_have_to_agree() -> None:
    for sae, acts, sentence in (
        (toy_sae(), Pairs(), "are pairs of two hooks, but 'topk' reconstructs what it reads"),
        (transcoder(), ToyStream(), "'transcoder' predicts the vectors of a second hook, but these"),
        (transcoder(d_out=11), Pairs(), r"gave \(256, 10\) where a tensor \[batch, 11\]"),
    ):
        run = train(sae, acts, TrainConfig(n_tokens=1000))
        with pytest.raises(RuntimeError, match=sentence):
            run.wait()
    named = Pairs()
    named.target_hook_name = "blocks.0.hook_mlp_out"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="are pairs of two hooks"):
        train(toy_sae(), named, TrainConfig(n_tokens=1000))  # at once, where the stream says so


def test_a_position_can_be_gone_to() -> None:
    class Uneven(list):  # type: ignore[type-arg]
        d_in = D_IN

    batches = Uneven(torch.full((n, D_IN), float(n)) for n in (3, 0, 5, 7))
    read = Vectors(batches, toy_sae())
    read.sample(10, lambda: True)
    given = []
    for _ in range(8):
        at = read.position
        x = read.next()[0]
        given.append((at, len(x)))
    assert [n for _, n in given] == [3, 5, 7, 3, 5, 7, 3, 5]
    assert read.n_vectors == 15
    for place, ((epoch, batch), _) in enumerate(given):
        sought = Vectors(batches, toy_sae())
        sought.seek(epoch, batch)
        assert [len(sought.next()[0]) for _ in given[place:]] == [n for _, n in given[place:]]
