"""Codes with signs, as a feature for each sign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig, load_sae, save_sae, split_signs


@pytest.mark.parametrize(
    ("options", "becomes"),
    [
        ({"architecture": "abstopk", "k": 5}, ("topk", 5)),
        ({"architecture": "abstopk", "k": 5, "normalize": "layer_norm"}, ("topk", 5)),
        ({"architecture": "abstopk", "k": 40}, ("topk", 40)),  # every feature by one of its sides
        ({"architecture": "dense", "activation": "linear"}, ("dense", 32)),
    ],
)
def test_each_side_is_a_feature_and_the_reconstruction_stays(
    options: dict[str, Any], becomes: tuple[str, int], tmp_path: Path
) -> None:
    sae = SAE(SAEConfig(d_in=12, d_sae=40, dtype="float64", **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.normal_(generator=generator)
        sae.input_scale.fill_(1.7)
    x = torch.randn(300, 12, dtype=torch.float64, generator=generator)
    both = split_signs(sae)
    assert (both.cfg.architecture, both.cfg.k, both.cfg.d_sae) == (*becomes, 80)
    with torch.no_grad():
        f, sides = sae.encode(x), both.encode(x)
        assert (f < 0).any() and (sides >= 0).all()
        assert torch.allclose(sides, torch.cat([f.relu(), (-f).relu()], dim=1), atol=1e-12)
        assert torch.allclose(both(x), sae(x), atol=1e-12)
    assert both.metadata == sae.metadata and not both.W_dec.requires_grad
    save_sae(both, tmp_path / "both")
    assert load_sae(tmp_path / "both").cfg.d_sae == 80


def test_activations_without_signs_are_left_alone() -> None:
    for options in ({"architecture": "topk", "k": 4}, {"architecture": "dense"}):
        with pytest.raises(ValueError, match="have no signs to split"):
            split_signs(SAE(SAEConfig(d_in=12, d_sae=40, **options)))
