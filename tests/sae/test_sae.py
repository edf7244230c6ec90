"""The SAE itself: its config, its equations, its copies."""

from __future__ import annotations

import copy
import inspect
import threading
from typing import Any

import pytest
import torch

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.sae.architectures import Architecture, Knobs, Losses, get_architecture, register
from saewidgets.sae.sae import turn_of


def make(**options: Any) -> SAE:
    sae = SAE(SAEConfig(**{"d_in": 12, "d_sae": 40, "k": 4, "dtype": "float64", **options}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        sae.b_enc.normal_(generator=generator)
        sae.b_dec.normal_(generator=generator)
    return sae


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": 41}, "k is 41, but there are only 40 features"),
        ({"k": 0}, "k must be at least 1"),
        ({"d_in": 0}, "d_in must be at least 1"),
        ({"dtype": "float8"}, "dtype must be one of float32, float64"),
        ({"aux_coefficient": -1.0}, "aux_coefficient must be 0 or more"),
        ({"architecture": "standard"}, "no architecture 'standard'. Did you mean 'relu'?"),
        ({"architecture": "topkk"}, "no architecture 'topkk'. Did you mean 'topk'?"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SAEConfig(**{"d_in": 12, "d_sae": 40, "k": 4, **options})


def test_unknown_and_missing_keywords_are_named() -> None:
    with pytest.raises(TypeError, match=r"no option 'dsae'. Did you mean 'd_sae'\?"):
        SAEConfig(d_in=12, dsae=40)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="d_sae"):
        SAEConfig(d_in=12)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'expansion_factor'. Give the width itself: d_sae=8 \* d_in"):
        SAEConfig(d_in=12, expansion_factor=8)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="k must be a whole number"):
        SAEConfig(d_in=12, d_sae=40, k=4.0)  # type: ignore[arg-type]


def test_config_is_frozen_and_fills_in_aux_k() -> None:
    cfg = SAEConfig(d_in=288, d_sae=2048)
    assert cfg.aux_k == 144 and SAEConfig(d_in=288, d_sae=100).aux_k == 100
    with pytest.raises(AttributeError):
        cfg.k = 3  # type: ignore[misc]


def test_encode_and_decode_follow_the_equations() -> None:
    sae, x = make(), vectors(5, 7, 12)
    h = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    top = h.topk(4, dim=-1)
    expected = torch.zeros_like(h).scatter(-1, top.indices, top.values.relu())
    f = sae.encode(x)
    assert f.shape == (5, 7, 40) and torch.allclose(f, expected)
    assert torch.allclose(sae.decode(f), expected @ sae.W_dec + sae.b_dec)
    assert torch.allclose(sae(x), sae.decode(f)) and sae(x).shape == x.shape
    values, indices = sae.encode_sparse(x)
    assert values.shape == indices.shape == (35, 4) and indices.dtype == torch.int64 and values.min() >= 0
    assert torch.allclose(sae.decode_sparse(values, indices), sae(x).reshape(35, 12))


def test_a_few_features_are_as_in_encode() -> None:
    sae, x = make(), vectors(30, 12)
    wanted = torch.tensor([39, 0, 7, 7, 21])
    assert torch.equal(sae.encode_features(x, wanted), sae.encode(x)[:, wanted])
    with pytest.raises(ValueError, match="no feature 40: this SAE's features are 0 to 39"):
        sae.encode_features(x, torch.tensor([3, 40]))
    with pytest.raises(ValueError, match="no feature -1"):
        sae.encode_features(x, torch.tensor([-1]))


def test_fold_keeps_f_and_xhat() -> None:
    sae, x = make(), vectors(30, 12)
    sae.input_scale.fill_(3.5)
    f, xhat, rows = sae.encode(x), sae(x), sae.W_dec.clone()
    # in the units of the scaled input it is the plain SAE
    plain = make()
    assert torch.allclose(f, plain.encode(x * 3.5)) and torch.allclose(xhat, plain(x * 3.5) / 3.5)
    sae.fold_()
    assert float(sae.input_scale) == 1
    assert torch.allclose(sae.encode(x), f) and torch.allclose(sae(x), xhat)
    assert torch.allclose(sae.W_dec, rows / 3.5)


def test_initial_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = SAE(SAEConfig(d_in=12, d_sae=40, k=4, seed=7))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert first.fingerprint() == SAE(SAEConfig(d_in=12, d_sae=40, k=4, seed=7)).fingerprint()
    assert first.fingerprint() != SAE(SAEConfig(d_in=12, d_sae=40, k=4, seed=8)).fingerprint()
    assert torch.allclose(first.W_dec.norm(dim=1), torch.ones(40)) and torch.equal(first.W_enc, first.W_dec.T)
    assert first.W_enc.t().is_contiguous() and copy.deepcopy(first).W_enc.t().is_contiguous()


def test_clone_is_a_frozen_copy() -> None:
    sae = make()
    sae.metadata = SAEMetadata(hook_name="blocks.2.hook_resid_post")
    twin = sae.clone()
    assert twin.fingerprint() == sae.fingerprint() and twin.metadata == sae.metadata
    assert not any(p.requires_grad for p in twin.parameters())
    with torch.no_grad():
        sae.b_dec += 1
    assert twin.fingerprint() != sae.fingerprint()


def test_a_copy_waits_for_the_writer_and_is_next() -> None:
    """A writer that lets go and takes hold again at once must not keep a reader out, nor be read half way."""
    sae, stop = make(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            with turn_of(sae), torch.no_grad():
                sae.b_enc += 1
                stop.wait(0.002)
                sae.b_dec += 1

    difference = float((sae.b_enc[0] - sae.b_dec[0]).detach())
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            twin = sae.clone()
            assert float(twin.b_enc[0] - twin.b_dec[0]) == pytest.approx(difference)
    finally:
        stop.set()
        writer.join()


def test_repr_and_wrong_sizes() -> None:
    sae = make()
    sae.metadata = SAEMetadata(hook_name="blocks.2.hook_resid_post")
    assert repr(sae) == "SAE(topk, d_in=12, d_sae=40, k=4, hook_name='blocks.2.hook_resid_post')"
    with pytest.raises(ValueError, match="size 12 .*shape"):
        sae.encode(vectors(3, 13))
    with pytest.raises(TypeError, match="takes an SAEConfig"):
        SAE({"d_in": 3})  # type: ignore[arg-type]


def test_metadata_goes_to_a_dict_and_back() -> None:
    metadata = SAEMetadata(model_name="demo", excluded_positions=(0, 1), extra={"step": 3, "dataset": "x"})
    assert metadata.to_dict()["step"] == 3
    assert SAEMetadata.from_dict(metadata.to_dict()) == metadata
    assert metadata.replace(hook_name="h").hook_name == "h" and metadata.hook_name is None
    with pytest.raises(TypeError, match="Did you mean 'hook_name'"):
        SAEMetadata(hook="h")  # type: ignore[call-arg]


def test_another_architecture_needs_only_to_be_registered() -> None:
    @register("first-k")
    class FirstK(Architecture):
        def validate(self, cfg: SAEConfig) -> None:
            pass

        def encode_sparse(self, sae: SAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            indices = torch.arange(sae.cfg.k).expand(len(x), -1)
            return (x @ sae.W_enc)[:, : sae.cfg.k].relu(), indices

        def loss(
            self, sae: SAE, x: torch.Tensor, target: torch.Tensor, knobs: Knobs, dead: torch.Tensor | None
        ) -> Losses:
            raise RuntimeError("not trained here")

    assert get_architecture("first-k").name == "first-k"
    sae = SAE(SAEConfig(d_in=12, d_sae=40, k=4, architecture="first-k"))
    f = sae.encode(torch.randn(6, 12, generator=torch.Generator().manual_seed(0)))
    assert f[:, 4:].eq(0).all() and f[:, :4].gt(0).any()


def test_the_options_of_a_config_given_to_an_sae_are_told_where_they_belong():
    with pytest.raises(TypeError, match=r"an SAEConfig, which holds its shape: sw.SAE\(sw.SAEConfig\(d_in=32, k=4\)\)"):
        SAE(d_in=32, k=4)
    with pytest.raises(TypeError, match=r"sw.SAE\(sw.SAEConfig\(d_in=288, d_sae=2048, architecture=\"topk\", k=32\)\)"):
        SAE()
    sae = SAE(cfg=SAEConfig(d_in=8, d_sae=16, k=2), device="cpu")
    assert list(inspect.signature(SAE).parameters) == ["cfg", "metadata", "device"]
    assert torch.equal(copy.deepcopy(sae).W_dec, sae.W_dec)


def test_a_config_says_what_it_needs():
    with pytest.raises(TypeError, match=r"SAEConfig needs d_in and d_sae: sw.SAEConfig\(d_in=288"):
        SAEConfig()
    with pytest.raises(TypeError, match="SAEConfig needs d_sae"):
        SAEConfig(8)
