"""Each architecture through the rest of the package: evaluation, index, steering, with a code of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.sae.architectures import architectures, get_architecture

HOOK = "blocks.2.hook_resid_post"
NAMES = [
    name
    for name in architectures()
    if type(get_architecture(name)).__module__.startswith("saewidgets.") and not get_architecture(name).predicts_target
]


def make(name: str) -> sw.SAE:
    k = {"k": 8} if "k" in (get_architecture(name).reads or ()) else {}
    cfg = sw.SAEConfig(d_in=288, d_sae=64, architecture=name, **k)
    sae = sw.SAE(cfg, sw.SAEMetadata(hook_name=HOOK, context_size=32))
    with torch.no_grad():
        sae.W_dec.mul_(3 / sae.W_dec.norm(dim=1, keepdim=True))
        sae.W_enc.copy_(sae.W_dec.t())
    return sae.clone()


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_and_index(name: str, demo_model: Any, texts: list[str], tmp_path: Path) -> None:
    sae = make(name)
    scores = sw.evaluate(sae, demo_model, texts[:2], max_tokens=60)
    assert 0 < scores.l0 <= 64 and scores.kl > 0
    if sae.architecture.without_signs(sae.cfg) is not None:
        with pytest.raises(ValueError, match=r"have two sides.*split_signs.* 64 \+ i is the negative side"):
            sw.FeatureIndex.build(sae, demo_model, texts[:2], path=tmp_path / "index", max_tokens=60)
        sae = sw.split_signs(sae)
        assert sw.evaluate(sae, demo_model, texts[:2], max_tokens=60).l0 == scores.l0
    index = sw.FeatureIndex.build(sae, demo_model, texts[:2], path=tmp_path / "index", max_tokens=60)
    counted = index.sql("select count(*) as n from activations").n[0] / 60
    assert 0 < counted <= scores.l0 * 1.2 + 1
    feature = int(index.table().sort_values("density").feature.iloc[-1])
    with sw.steering(sae, demo_model, {feature: sw.Clamp(9.0)}):
        steered = demo_model(demo_model.to_tokens("Once upon a time"))
    assert not torch.allclose(steered, demo_model(demo_model.to_tokens("Once upon a time")))


def test_vectors_brought_to_size_are_scored_in_their_own_units(demo_model: Any, texts: list[str]) -> None:
    pairs = torch.cat([torch.eye(288), -torch.eye(288)])
    whole = sw.SAE(sw.SAEConfig(d_in=288, d_sae=576, architecture="relu", normalize="layer_norm"))
    whole.metadata = make("relu").metadata
    with torch.no_grad():
        whole.W_dec.copy_(pairs)
        whole.W_enc.copy_(pairs.t())
    assert sw.evaluate(whole, demo_model, texts[:2], max_tokens=60).explained_variance == pytest.approx(1, abs=1e-4)
