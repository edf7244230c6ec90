"""An index over made-up text: every activation is known, so that every answer can be checked by counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from saewidgets.features import FeatureIndex
from saewidgets.features.build import Subject, write_index
from saewidgets.features.scan import Block
from saewidgets.features.weights import Unembedding
from saewidgets.models.tokens import Token

WORDS = [
    "<bos>",
    " bridge",
    "bridge",
    " Bridge",
    " bridges",
    " the",
    " cat",
    ".",
    "\n",
    " ri",
    "ver",
    " old",
    "C3",
    "412",
]
D_SAE, D_IN, CONTEXT = 40, 12, 16
BRIDGE, DENSE, DEAD, FIRST, RIVER, COPY = 7, 3, 11, 5, 20, 21


@dataclass(frozen=True)
class Made:
    """The made-up scan as flat arrays: all token positions, and all activations."""

    tokens: np.ndarray
    contexts: np.ndarray
    positions: np.ndarray
    scanned: np.ndarray
    feature: np.ndarray
    item: np.ndarray
    value: np.ndarray
    W_enc: torch.Tensor
    W_dec: torch.Tensor
    unembedding: Unembedding

    def of(self, feature: int) -> dict[int, float]:
        """Item to value."""
        held = self.feature == feature
        return dict(zip(self.item[held].tolist(), self.value[held].tolist(), strict=True))


@pytest.fixture(scope="session")
def made() -> Made:
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, CONTEXT + 1, 400)
    positions = np.concatenate([np.arange(n) for n in lengths])
    contexts = np.repeat(np.arange(len(lengths)), lengths)
    tokens = rng.integers(1, len(WORDS), len(positions))
    tokens[positions == 0] = 0
    river = (tokens[:-1] == 9) & (positions[1:] > 0)
    tokens[1:][river & (rng.random(len(river)) < 0.7)] = 10
    scanned = positions > 0
    f = (rng.random((len(tokens), D_SAE)) < 0.03) * rng.gamma(2.0, 1.0, (len(tokens), D_SAE))
    f[:, DENSE] = (rng.random(len(tokens)) < 0.6) * rng.gamma(2.0, 1.0, len(tokens))
    f[:, BRIDGE] = (tokens == 1) * rng.uniform(4, 9, len(tokens)) + (tokens == 2) * (rng.random(len(tokens)) < 0.2)
    f[:, DEAD] = 0
    f[:, FIRST] = (positions == 1) * 2.5
    f[:, RIVER] = 0
    f[1:, RIVER] = ((tokens[1:] == 10) & (tokens[:-1] == 9) & (positions[1:] > 0)) * 3.0
    f[~scanned] = 0
    f = f.astype(np.float32)
    item, feature = f.nonzero()
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=generator), dim=1)
    W_dec[COPY] = W_dec[RIVER]
    unembedding = Unembedding(
        torch.randn(D_IN, len(WORDS), generator=generator), torch.rand(D_IN, generator=generator) + 0.5, centred=False
    )
    W_enc = torch.randn(D_IN, D_SAE, generator=generator)
    return Made(tokens, contexts, positions, scanned, feature, item, f[item, feature], W_enc, W_dec, unembedding)


@pytest.fixture(scope="session")
def write(made: Made) -> Callable[..., FeatureIndex]:
    """Write the made-up scan to a folder, in blocks of whole contexts, and open it."""

    def blocks():
        for start in range(0, 400, 64):
            here = (made.contexts >= start) & (made.contexts < start + 64)
            first = int(np.flatnonzero(here)[0])
            held = here[made.item]
            yield (
                Block(
                    made.tokens[here],
                    made.contexts[here],
                    made.positions[here],
                    made.contexts[here] // 3,
                    made.scanned[here],
                    made.item[held] - first,
                    made.feature[held],
                    made.value[held],
                ),
                (start + 64) / 400,
            )

    def write(folder: Path, seed: int = 0, row_cap: int = 100_000, **meta: object) -> FeatureIndex:
        folder.mkdir(parents=True)
        tokens = [Token(i, text, special=i == 0, hex=text == "C3") for i, text in enumerate(WORDS)]
        whole = {
            "created_by": "a test",
            "inputs": {},
            "model_name": "made up",
            "hook_name": "blocks.0.hook_resid_post",
            "architecture": "topk",
            "context_size": CONTEXT,
            "sae": {},
            **meta,
        }
        write_index(
            folder,
            blocks(),
            Subject(made.W_enc, made.W_dec, made.unembedding, tokens),
            whole,
            seed=seed,
            row_cap=row_cap,
            memory_limit="500MB",
            report=lambda phase, done: None,
        )
        return FeatureIndex.open(folder)

    return write


@pytest.fixture(scope="session")
def index(write: Callable[..., FeatureIndex], tmp_path_factory: pytest.TempPathFactory) -> FeatureIndex:
    """Everything stored."""
    return write(tmp_path_factory.mktemp("index") / "whole")


@pytest.fixture(scope="session")
def sampled(write: Callable[..., FeatureIndex], tmp_path_factory: pytest.TempPathFactory) -> FeatureIndex:
    """At most some 400 rows a feature: the dense one is sampled."""
    return write(tmp_path_factory.mktemp("index") / "sampled", row_cap=400)
