"""What sets the SAEs of a sweep apart, and which of them no other beats."""

from __future__ import annotations

import math

from saewidgets.sae import SAEConfig
from saewidgets.training import TrainConfig
from saewidgets.training.sweep_table import differences, frontier, label, table

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
