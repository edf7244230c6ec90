"""What sets the SAEs of a sweep apart, and which of them no other beats."""

from __future__ import annotations

import math
from typing import Any

from saewidgets.sae import SAEConfig
from saewidgets.training import TrainConfig
from saewidgets.training.sweep_table import differences, frontier, label, marks, table

CONFIG = TrainConfig(n_tokens=1000)


def test_an_option_counts_if_those_that_read_it_do_not_agree() -> None:
    configs = [SAEConfig(d_in=8, d_sae=16, k=4), SAEConfig(d_in=8, d_sae=16, architecture="relu")]
    assert differences(configs, [CONFIG, CONFIG]) == [{"architecture": "topk"}, {"architecture": "relu"}]
    configs.append(SAEConfig(d_in=8, d_sae=16, k=2))
    found = differences(configs, [CONFIG, CONFIG.replace(lr=0.01), CONFIG.replace(checkpoint_dir="somewhere")])
    assert [values.pop("checkpoint_every") for values in found] == [None, None, 50]
    assert found == [
        {"architecture": "topk", "k": 4, "lr": None},
        {"architecture": "relu", "k": None, "lr": 0.01},
        {"architecture": "topk", "k": 2, "lr": None},
    ]


def test_a_label_says_what_differs() -> None:
    assert label(3, {"architecture": "topk", "k": 4, "lr": 0.001}) == "3: topk, k=4, lr=0.001"
    assert label(0, {"k": None}) == label(0, {}) == "0"


def test_the_frontier_is_what_no_other_beats_in_both() -> None:
    l0, explained = [30.0, 10.0, 20.0, 20.0, math.nan, 40.0], [0.9, 0.5, 0.4, 0.6, 0.9, 0.9]
    assert frontier(l0, explained) == [1, 3, 0]
    assert frontier([], []) == []


def test_a_row_has_the_last_value_that_was_measured() -> None:
    row = {"l0": 4.0, "explained_variance": 0.5, "dead_fraction": 0.0, "loss": 1.0, "tokens": 5}
    rows = [[{**row, "ce_loss_recovered": 0.7}, {**row, "ce_loss_recovered": math.nan, "tokens": 9}], []]
    frame = table([{"k": 4}, {"k": None}], rows, {1: "gone"})
    assert frame.ce_loss_recovered[0] == 0.7 and math.isnan(frame.l0[1])
    assert frame.tokens.tolist() == [9, 0] and frame.error.tolist() == ["", "gone"] and str(frame.k.dtype) == "Int64"


def changes(*made: tuple[int | None, int, str, Any, Any], tokens: int = 512) -> list[tuple[int, dict[str, Any]]]:
    """Events (call, SAE, name, old, new), as a sweep sorts them: by their SAE."""
    told = [
        (sae, {"step": tokens // 2, "tokens": tokens, "name": name, "old": old, "new": new, "call": n})
        for n, sae, name, old, new in made
    ]
    return sorted(told, key=lambda pair: pair[0])


def test_each_call_is_a_mark_of_its_own_in_the_order_of_the_calls() -> None:
    one_then_all = changes((1, 0, "k", 4, 6), (2, 0, "k", 6, 6), (2, 1, "k", 8, 6), (2, 2, "k", 4, 6))
    assert marks(one_then_all, 3) == [("0: k 4 → 6", 256, 512), ("k → 6", 256, 512)]
    last_then_all = changes((1, 2, "lr", 0.002, 0.001), *[(2, sae, "k", 4, 6) for sae in range(3)])
    assert marks(last_then_all, 3) == [("2: lr 0.002 → 0.001", 256, 512), ("k 4 → 6", 256, 512)]
    to_and_fro = changes((1, 0, "lr", 1e-3, 5e-4), (2, 0, "lr", 5e-4, 1e-3), (3, 0, "lr", 1e-3, 5e-4))
    words = ["0: lr 0.001 → 0.0005", "0: lr 0.0005 → 0.001", "0: lr 0.001 → 0.0005"]
    assert [mark.label for mark in marks(to_and_fro, 2)] == words
    both = changes((1, 0, "lr", 0.002, 0.001), (1, 0, "k", 4, 6), (1, 1, "lr", 0.002, 0.001), (1, 1, "k", 8, 6))
    assert marks(both, 3) == [("0, 1: lr 0.002 → 0.001", 256, 512), ("0, 1: k → 6", 256, 512)]


def test_what_no_call_made_is_one_mark_for_all_that_have_it_at_a_step() -> None:
    apart = [
        *changes(*[(None, sae, "stacked", True, False) for sae in (0, 2)]),
        *changes((None, 1, "k", 4, 2), tokens=9),
    ]
    assert marks(apart, 3) == [("1: k 4 → 2", 4, 9), ("0, 2: stacked on → off", 256, 512)]
