"""The directions that an SAE begins with, drawn block by block."""

from __future__ import annotations

import pytest
import torch

import saewidgets as sw
from saewidgets.sae import initial


@pytest.mark.parametrize("architecture", ["topk", "transcoder"])
def test_a_part_of_the_features_is_what_it_is_in_the_whole(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "BLOCK", 64)
    cfg = sw.SAEConfig(d_in=8, d_sae=300, k=4, seed=3, architecture=architecture)
    read, written = initial.unit_rows(cfg)
    assert torch.allclose(read.norm(dim=1), torch.ones(300))
    assert torch.equal(sw.SAE(cfg).W_enc.t(), read)
    for first, last in ((0, 10), (60, 70), (64, 128), (250, 300), (0, 300)):
        some, some_written = initial.unit_rows(cfg, first, last)
        assert torch.equal(some, read[first:last])
        if written is None or some_written is None:
            assert architecture == "topk" and some_written is None
        else:
            assert torch.equal(some_written, written[first:last])


def test_no_two_blocks_and_no_two_seeds_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "BLOCK", 16)
    rows = torch.cat([initial.unit_rows(sw.SAEConfig(d_in=64, d_sae=64, k=4, seed=seed))[0] for seed in (0, 1)])
    alike = rows @ rows.t() - torch.eye(128)
    assert alike.abs().max() < 0.7


def test_a_part_costs_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "BLOCK", 64)
    drawn = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **given: drawn.append(shape) or randn(*shape, **given))
    initial.unit_rows(sw.SAEConfig(d_in=8, d_sae=64_000, k=4), 130, 190)
    assert drawn == [(64, 8)]
