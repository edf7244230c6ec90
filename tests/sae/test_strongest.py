"""The strongest vectors of a feature, against the code of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import architectures, get_architecture
from saewidgets.sae.strongest import strongest

D_IN, D_SAE, N = 12, 40, 700


def made(name: str, **options: Any) -> SAE:
    """An SAE with weights that are no longer those of the beginning: some features are seldom active, one is never."""
    k = {"k": 3} if "k" in (get_architecture(name).reads or ()) else {}
    sae = SAE(SAEConfig(d_in=D_IN, d_sae=D_SAE, architecture=name, **k, **options))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in (sae.b_enc, sae.b_dec, *(sae.get_parameter(p) for p in ("r_mag", "b_mag") if hasattr(sae, p))):
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
        sae.b_enc[5] = -100.0
        sae.input_scale.fill_(0.7)
        if name in ("batchtopk", "matryoshka"):
            sae.get_buffer("threshold").fill_(0.8)
    return sae.requires_grad_(False)


def vectors(n: int = N) -> torch.Tensor:
    return 2 * torch.randn(n, D_IN, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
@pytest.mark.parametrize("name", architectures())
def test_it_finds_what_the_code_of_all_vectors_says(name: str, normalize: str) -> None:
    sae = made(name, normalize=normalize)
    x = vectors().half()
    whole = sae.encode(x.float()).float()
    for feature in (0, 5, 17):
        values, rows = strongest(sae, x, feature, 10)
        active = whole[:, feature].clamp_min(0)
        expected = active.sort(descending=True).values[: min(10, int((active > 0).sum()))]
        assert torch.allclose(values, expected, rtol=1e-4, atol=1e-5)
        assert torch.allclose(active[rows], values, rtol=1e-4, atol=1e-5) and len(set(rows.tolist())) == len(rows)


@pytest.mark.parametrize("name", sorted({*architectures()} - {"matching_pursuit"}))
def test_no_activation_is_above_its_bound(name: str) -> None:
    sae = made(name)
    x = sae.scaled(vectors())
    for feature in (0, 17):
        bound = get_architecture(name).bound(sae, x, feature)
        assert bound is not None
        assert (sae.architecture.encode(sae, x)[:, feature] <= bound + 1e-4).all()


def test_few_codes_are_taken_where_a_bound_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    encode = SAE.encode_features
    monkeypatch.setattr(SAE, "encode_features", lambda sae, x, f: taken.append(len(x)) or encode(sae, x, f))
    x = vectors(20_000)
    strongest(made("topk"), x, 0, 10)
    assert sum(taken) <= 1_280  # of 20,000
    taken.clear()
    strongest(made("matching_pursuit"), x[:5_000], 0, 10)
    assert sum(taken) == 5_000


def test_of_equal_vectors_the_earlier_comes_first_and_a_silent_feature_has_none() -> None:
    sae = made("topk")
    x = vectors(3).repeat(50, 1)
    values, rows = strongest(sae, x, int(sae.encode(x[:1]).argmax()), 4)
    assert rows.tolist() == sorted(rows.tolist()) and (values == values[0]).all() and len(rows) == 4
    assert len(strongest(sae, x, 5, 4)[0]) == 0
    with pytest.raises(ValueError, match="no feature 40"):
        strongest(sae, x, 40, 4)
