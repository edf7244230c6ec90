"""An index over made-up text, in which every activation is known; no model is needed to look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from saewidgets.features import FeatureIndex
from saewidgets.features.build import Subject, write_index
from saewidgets.features.scan import Block
from saewidgets.models.tokens import Token

WORDS = ["<bos>", " bridge", " the", ".", "\n", "<script>alert(1)</script>", "</style>", "\u202eabc", "C3"]
D_SAE, D_IN, CONTEXT, N = 30, 8, 12, 500
DEAD, DENSE, BRIDGE, MARKUP = 0, 1, 4, 5


@pytest.fixture(scope="session")
def write_word_index(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FeatureIndex]:
    """Write an index of N contexts: feature 4 fires on " bridge", 5 on markup, 1 nearly everywhere, 0 never."""

    def write(name: str = "made up", seed: int = 0) -> FeatureIndex:
        rng = np.random.default_rng(seed)
        tokens = rng.integers(1, len(WORDS), (N, CONTEXT))
        tokens[:, 0] = 0
        positions = np.tile(np.arange(CONTEXT), N)
        flat = tokens.reshape(-1)
        f = (rng.random((len(flat), D_SAE)) < 0.008) * rng.gamma(2.0, 1.0, (len(flat), D_SAE))
        f[:, DEAD] = 0
        f[:, DENSE] = (rng.random(len(flat)) < 0.5) * rng.gamma(2.0, 1.0, len(flat))
        f[:, BRIDGE] = (flat == 1) * rng.uniform(1, 9, len(flat))
        f[:, MARKUP] = (flat == 5) * rng.uniform(1, 3, len(flat))
        f[positions == 0] = 0
        rows, features = f.nonzero()
        contexts = np.repeat(np.arange(N), CONTEXT)
        block = Block(flat, contexts, positions, contexts, positions > 0, rows, features, f[rows, features])
        weights = torch.Generator().manual_seed(seed)
        W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=weights), dim=1)
        vocabulary = [Token(i, text, special=i == 0, hex=text == "C3") for i, text in enumerate(WORDS)]
        folder: Path = tmp_path_factory.mktemp("index") / "words"
        folder.mkdir()
        meta = {
            "created_by": "a test",
            "inputs": {},
            "model_name": name,
            "hook_name": "blocks.0.hook_resid_post",
            "architecture": "topk",
            "context_size": CONTEXT,
            "sae": {},
        }
        subject = Subject(W_dec.T.contiguous(), W_dec, None, vocabulary)
        write_index(
            folder,
            [(block, 1.0)],
            subject,
            meta,
            seed=0,
            row_cap=20_000,
            memory_limit="500MB",
            report=lambda phase, done: None,
        )
        return FeatureIndex.open(folder)

    return write


@pytest.fixture(scope="session")
def word_index(write_word_index: Callable[..., FeatureIndex]) -> FeatureIndex:
    """One of them. Read-only."""
    return write_word_index()


@pytest.fixture
def no_bos(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows no BOS token: whoever asks for it is refused."""

    def refuse(model: object) -> int:
        raise ValueError("The model has no BOS token. Pass prepend_bos=False.")

    monkeypatch.setattr("saewidgets.models.tokens.bos_id", refuse)
