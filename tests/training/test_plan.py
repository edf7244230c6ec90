"""The plan: what it adds up, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

import saewidgets as sw
from saewidgets.training.machines import CARDS, Machine, measure
from saewidgets.training.plan import FILL

FLAT = Machine("flat", 1e12, 1e9, 1e9, 1e9, 1e12, 1e10, "made up")


def test_weights_and_moments_are_those_of_a_real_sae() -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=24, d_sae=200, k=4))
    said = sw.plan(24, 200, 4, 640, batch_size=64, device=FLAT)
    assert said.weights_bytes == 4 * sum(p.numel() for p in sae.parameters())
    assert said.adam_bytes == 2 * said.weights_bytes
    assert said.n_steps == 10 and (said.n_gpus, said.split) == (1, "none")


def test_each_part_of_a_step_takes_its_amount_by_its_rate() -> None:
    def seconds(**slower: float) -> float:
        rates = {"matmul": 1e30, "top_k": 1e30, "gather": 1e30, "update": 1e30, **slower}
        machine = Machine("one", memory=None, link=1e30, source="made up", **rates)
        return sw.plan(10, 1000, 4, 50, batch_size=5, device=machine, dead_fraction=0.1).step_seconds

    assert seconds(matmul=1.0) == pytest.approx(2 * 5 * 10 * 1000 + 5 * 100 * (4 * 10 + 6 * 10) / 4)
    assert seconds(top_k=1.0) == pytest.approx(5 * 1000 + 5 * 100 / 4)
    assert seconds(gather=1.0) == pytest.approx(4 * (4 * 5 * 4 * 10))
    assert seconds(update=1.0) == pytest.approx(2 * 10 * 1000 + 1000 + 10)


def test_flops_are_counted_and_a_transcoder_has_two_widths() -> None:
    sparse = sw.plan(10, 1000, 4, 5, batch_size=5, device=FLAT, dead_fraction=0)
    assert sparse.flops == 2 * 5 * 10 * 1000 + 8 * 5 * 4 * 10
    wide = sw.plan(10, 1000, 4, 5, batch_size=5, device=FLAT, d_out=30)
    assert wide.weights_bytes == 4 * (10 * 1000 + 1000 + 30 * 1000 + 30)


def test_34_million_features_are_split_over_the_fewest_cards_that_hold_them() -> None:
    options: dict[str, Any] = {"batch_size": 4096, "device": "h100", "precision": "bf16", "dead_fraction": 0.02}
    said = sw.plan(4096, 34_000_000, 300, 8_000_000_000, **options)
    assert said.split == "features" and said.n_gpus > 16 and said.fits
    assert said.weights_bytes * said.n_gpus == pytest.approx(4 * 2 * 4096 * 34e6, rel=0.01)
    fewer = sw.plan(4096, 34_000_000, 300, 8_000_000_000, **options, n_gpus=said.n_gpus // 2)
    assert not fewer.fits and fewer.memory_bytes > FILL * 80e9 and ": too little" in repr(fewer)
    assert "of the features on each" in repr(said) and "NVIDIA's data sheet, bf16" in repr(said)


def test_more_cards_than_needed_share_the_batch() -> None:
    one = sw.plan(768, 24_576, 32, 10**8, batch_size=8192, device="a100", n_gpus=1)
    four = sw.plan(768, 24_576, 32, 10**8, batch_size=8192, device="a100", n_gpus=4)
    assert (one.split, four.split) == ("none", "data")
    assert one.step_seconds / 4 < four.step_seconds < one.step_seconds
    assert four.weights_bytes == one.weights_bytes and four.aux_bytes == one.aux_bytes / 4


def test_a_slow_stream_is_waited_for() -> None:
    fast = sw.plan(64, 512, 8, 10_000, device=FLAT)
    slow = sw.plan(64, 512, 8, 10_000, device=FLAT, vectors_per_second=1.0)
    assert not fast.waits and fast.seconds == fast.n_steps * fast.step_seconds
    assert slow.waits and slow.seconds == 10_000 and "2.8 hours, waiting for activations" in repr(slow)


def test_the_table_says_what_is_known() -> None:
    said = repr(sw.plan(64, 512, 8, 10_000, device=FLAT))
    names = [line.split("  ")[0].strip() or line.split()[0] for line in said.splitlines()]
    assert names[:2] == ["device", "memory"] and names[-4:] == ["arithmetic", "step", "run", "rates"]
    assert "made up" in said and "of 1 TB" in said


def test_the_rates_of_this_machine_are_measured() -> None:
    machine = measure("cpu", 16, 64, 4)
    assert min(machine.matmul, machine.top_k, machine.gather, machine.update) > 0
    assert machine.source.startswith("measured just now") and machine.memory and machine.memory > 1e8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 600}, "k is 600, but there are only 512 features"),
        ({"d_in": 0}, "plan: d_in must be at least 1"),
        ({"n_gpus": 0}, "plan: n_gpus must be at least 1"),
        ({"device": "abacus"}, "there is no device 'abacus' here .* or a card: t4, a100, h100, h200"),
        ({"device": "h100", "precision": "int8"}, "precision must be one of float32, bf16"),
        ({"dead_fraction": 2}, "dead_fraction must be from 0 to 1"),
        ({"vectors_per_second": 0}, "vectors_per_second must be above 0"),
        ({"architecture": "topkk"}, "no architecture 'topkk'"),
    ],
)
def test_values_out_of_range_get_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sw.plan(**{"d_in": 64, "d_sae": 512, "k": 8, "n_tokens": 1000, "device": FLAT, **options})


def test_every_card_has_both_precisions() -> None:
    assert all(set(card) == {"float32", "bf16"} for card in CARDS.values())
    assert all(card["bf16"].matmul > card["float32"].matmul for card in CARDS.values())
