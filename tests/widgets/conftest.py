"""An index over made-up text, in which every activation is known, and a run that is where the test puts it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import saewidgets as sw
from saewidgets.features import FeatureIndex
from saewidgets.features.build import Subject, write_index
from saewidgets.features.scan import Block
from saewidgets.models.tokens import Token
from saewidgets.training.live import events_table
from saewidgets.training.metrics import COLUMNS as LOGGED
from saewidgets.widgets.training_monitor import TrainingMonitor

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


@dataclass
class Progress:
    state: str = "running"
    step: int = 0
    n_steps: int = 100
    tokens: int = 0
    n_tokens: int = 10_000
    epoch: float | None = None
    n_epochs: float | None = math.inf
    vectors_per_second: float | None = math.nan
    seconds_left: float | None = None


class RunByHand:
    """A run that is where the test puts it."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.error: BaseException | None = None
        self.subscribers: list[Callable[[Any], None]] = []
        self.asked: list[str] = []
        self._rows: list[dict[str, float]] = []
        self._events: list[dict[str, Any]] = []
        self.knobs: dict[str, Any] = {"lr": None, "sparsity": None, "k": 2, "revive": True}
        self.snapshots: list[int] = []
        self.acts: Any = None
        self.measures_ce_loss = False
        self.cfg = sw.SAEConfig(d_in=8, d_sae=16, k=2)
        self.metadata = sw.SAEMetadata(hook_name="blocks.0.hook_resid_post")

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows, columns=list(LOGGED))

    @property
    def events(self) -> pd.DataFrame:
        return events_table(self._events)

    def set(self, **changes: Any) -> None:
        if not isinstance(changes.get("k", 0), int):
            raise TypeError(f"k must be a whole number, got {changes['k']!r}.")
        for name, new in changes.items():
            event = {"step": self.progress.step, "tokens": 0, "name": name, "old": self.knobs[name], "new": new}
            self._events.append(event)
            self.knobs = self.knobs | {name: new}
        self.tell()

    @property
    def state(self) -> str:
        return self.progress.state

    def log(self, **values: float) -> None:
        number = len(self._rows) + 1
        row = dict.fromkeys(LOGGED, 0.0) | {"step": number, "dead_window": 500, "ce_loss_recovered": math.nan} | values
        self._rows.append(row)
        self.progress.step = number

    def tell(self) -> None:
        for callback in list(self.subscribers):
            callback(self)

    def subscribe(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback) if callback in self.subscribers else None

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def stop(self) -> None:
        self.asked.append("stop")


@pytest.fixture
def run() -> Any:
    return RunByHand()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(TrainingMonitor, "send", lambda self, content, buffers=None: messages.append(content))
    return messages
