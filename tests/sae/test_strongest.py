"""The strongest vectors of a feature, against the code of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.architectures import _REGISTRY, architectures, get_architecture
from saewidgets.sae.architectures.relu import ReLU
from saewidgets.sae.strongest import active, strongest

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


def first(sae: SAE, x: torch.Tensor, feature: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The n strongest, of as few groups as give them."""
    values, rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for more_values, more_rows in strongest(sae, x, feature):
        values, rows = torch.cat([values, more_values]), torch.cat([rows, more_rows])
        if len(values) >= n:
            break
    assert (values.diff() <= 0).all() and (values > 0).all()
    return values[:n], rows[:n]


@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
@pytest.mark.parametrize("name", architectures())
def test_it_finds_what_the_code_of_all_vectors_says(name: str, normalize: str) -> None:
    sae = made(name, normalize=normalize)
    x = vectors().half()
    whole = sae.encode(x.float()).float()
    close = {"rtol": 1e-4, "atol": 1e-5}
    for feature in (0, 5, 17):
        expected = whole[:, feature].clamp_min(0)
        for n in (3, N):  # the first few, and all there are
            values, rows = first(sae, x, feature, n)
            assert torch.allclose(values, expected.sort(descending=True).values[: len(values)], **close)
            assert len(values) == min(n, int((expected > 0).sum()))
            assert torch.allclose(expected[rows], values, **close) and len(set(rows.tolist())) == len(rows)
        values, rows = active(sae, x, feature)
        assert rows.tolist() == sorted(rows.tolist()) and torch.allclose(expected[rows], values, **close)


@pytest.mark.parametrize("name", sorted({*architectures()} - {"matching_pursuit"}))
def test_no_activation_is_above_its_bound_and_what_is_outdone_is_silent(name: str) -> None:
    sae = made(name)
    x = sae.scaled(vectors())
    for feature in (0, 17):
        bound = get_architecture(name).upper_bound(sae, x, feature)
        assert bound is not None
        f = sae.architecture.encode(sae, x)[:, feature]
        assert (f <= bound + 1e-4).all()
        outdone = get_architecture(name).outdone(sae, x[bound > 0], feature)
        if outdone is not None:
            assert outdone.any() and not f[bound > 0][outdone].any()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many codes are taken, call by call."""
    taken: list[int] = []
    encode = SAE.encode_features
    monkeypatch.setattr(SAE, "encode_features", lambda sae, x, f: taken.append(len(x)) or encode(sae, x, f))
    return taken


def test_few_codes_are_taken_where_a_bound_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, x = counted(monkeypatch), vectors(20_000)
    first(made("topk"), x, 0, 10)
    assert sum(taken) <= 320  # of 20,000
    taken.clear()
    first(made("matching_pursuit"), x[:5_000], 0, 10)
    assert sum(taken) == 5_000


@pytest.mark.parametrize("name", ["topk", "batchtopk", "jumprelu", "gated"])
def test_few_codes_are_taken_of_a_feature_that_is_seldom_active(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its preactivation is above 0 on many vectors, and it is active on few: no n of them end the search early."""
    sae = SAE(SAEConfig(d_in=32, d_sae=1_024, architecture=name, **({"k": 8} if name in ("topk", "batchtopk") else {})))
    with torch.no_grad():
        sae.W_enc[:, 7] *= 0.8 if name == "topk" else 0.4
        if name == "batchtopk":
            sae.get_buffer("threshold").fill_(1.2)
        elif name == "jumprelu":
            sae.get_parameter("log_threshold").fill_(0.2)
        elif name == "gated":
            sae.get_parameter("b_mag").fill_(2.0)
            sae.b_enc[7] = -1.2
    sae.requires_grad_(False)
    x = torch.randn(4_000, 32, generator=torch.Generator().manual_seed(4))
    whole = sae.encode(x)[:, 7]
    n = int((whole > 0).sum())
    assert 0 < n < 64
    taken = counted(monkeypatch)
    values, rows = first(sae, x, 7, 4_000)
    assert torch.allclose(values, whole[whole > 0].sort(descending=True).values) and len(rows) == n
    assert sum(taken) < 400


class Squares(ReLU):
    """A class of a user's, on ReLU, with another code: what ReLU says of its own does not hold for it."""

    def encode_sparse(self, sae: SAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, indices = super().encode_sparse(sae, x)
        return values.square(), indices


class Known(Squares):
    def upper_bound(self, sae: SAE, x: torch.Tensor, feature: int) -> torch.Tensor | None:
        bound = super().upper_bound(sae, x, feature)
        return None if bound is None else bound.square()


@pytest.mark.parametrize(("cls", "all_taken"), [(Squares, True), (Known, False)])
def test_a_bound_holds_for_the_code_of_the_class_that_defines_it(
    cls: type[ReLU], all_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_REGISTRY, "squares", cls())
    sae, x = made("squares"), 10 * vectors(3_000)
    whole = sae.encode(x)[:, 17]
    taken = counted(monkeypatch)
    values, _ = first(sae, x, 17, 5)
    assert torch.allclose(values, whole.sort(descending=True).values[:5]) and values[0] > 4
    assert (sum(taken) == 3_000) is all_taken


def test_of_equal_vectors_the_earlier_comes_first_and_a_silent_feature_has_none() -> None:
    sae = made("topk")
    x = vectors(3).repeat(50, 1)
    values, rows = first(sae, x, int(sae.encode(x[:1]).argmax()), 4)
    assert rows.tolist() == sorted(rows.tolist()) and (values == values[0]).all() and len(rows) == 4
    assert list(strongest(sae, x, 5)) == []
    with pytest.raises(ValueError, match="no feature 40"):
        strongest(sae, x, 40)
