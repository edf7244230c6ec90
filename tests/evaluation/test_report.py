"""The report, against the same numbers written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.activations import harvest, hook_site, pack, splice_scores
from saewidgets.evaluation import Evaluation


@pytest.fixture(scope="module")
def few(texts: list[str]) -> list[str]:
    return texts[:5]


def test_scores_are_those_of_the_whole_set(demo_model: Any, few: list[str], tiny_sae: sw.SAE) -> None:
    found = sw.evaluate(tiny_sae, demo_model, few, context_size=48)
    site = hook_site(demo_model, tiny_sae.metadata.hook_name or "")
    packed = pack(demo_model, few, 48)
    wanted = packed.mask.clone()
    wanted[:, 0] = False
    x = harvest(demo_model, packed.tokens, site)[wanted].double()
    with torch.no_grad():
        f = tiny_sae.encode(x.float()).double()
        error = (x - tiny_sae(x.float()).double()).square().sum()
    active = (f > 0).double()
    assert found.n_tokens == len(x) == int(wanted.sum())
    assert found.l0 == pytest.approx(float(active.sum(1).mean()), rel=1e-4)
    assert found.explained_variance == pytest.approx(1 - float(error / (x - x.mean(0)).square().sum()), abs=1e-4)
    assert found.dead_fraction == pytest.approx(float((active.sum(0) == 0).double().mean()), abs=0.01)
    assert found.dense_fraction == pytest.approx(float((active.mean(0) > 0.1).double().mean()), abs=0.01)
    splice = splice_scores(tiny_sae, demo_model, packed.tokens, packed.mask, site)
    assert (found.ce_clean, found.ce_spliced, found.ce_zero, found.kl) == pytest.approx(
        (splice.ce_clean, splice.ce_spliced, splice.ce_zero, splice.kl), rel=1e-5
    )
    assert found.ce_loss_recovered == splice.ce_loss_recovered


def test_a_perfect_sae_recovers_everything(demo_model: Any, few: list[str]) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=288, d_sae=576, k=576))
    with torch.no_grad():  # x = relu(x) - relu(-x)
        signs = torch.cat([torch.eye(288), -torch.eye(288)])
        sae.W_dec.copy_(signs)
        sae.W_enc.copy_(signs.t())
    sae.metadata = sae.metadata.replace(hook_name="blocks.2.hook_resid_post")
    found = sw.evaluate(sae, demo_model, few, context_size=48, max_tokens=300)
    assert found.explained_variance == pytest.approx(1.0, abs=1e-5)
    assert found.ce_loss_recovered == pytest.approx(1.0, abs=1e-4)
    assert abs(found.kl) < 1e-5
    assert found.n_tokens <= 300
    assert found.l0 == pytest.approx(288, rel=0.01)


@pytest.mark.parametrize("architecture", ["transcoder", "skip_transcoder"])
def test_a_transcoder_is_scored_at_the_hook_that_it_predicts(
    demo_model: Any, few: list[str], architecture: str
) -> None:
    read, give = "blocks.2.hook_resid_mid", "blocks.2.mlp.hook_post"
    sae = sw.SAE(sw.SAEConfig(d_in=288, d_out=768, d_sae=64, k=8, architecture=architecture))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    sae.metadata = sae.metadata.replace(hook_name=read, context_size=48, extra={"target_hook_name": give})
    found = sw.evaluate(sae, demo_model, few)
    packed = pack(demo_model, few, 48)
    wanted = packed.mask.clone()
    wanted[:, 0] = False
    x, y = (harvest(demo_model, packed.tokens, hook_site(demo_model, name))[wanted] for name in (read, give))
    with torch.no_grad():
        predicted, active = sae(x), sae.encode(x) > 0
    error = (y.double() - predicted.double()).square().sum()
    variance = (y.double() - y.double().mean(0)).square().sum()
    assert found.explained_variance == pytest.approx(1 - float(error / variance), abs=1e-4)
    assert found.l0 == pytest.approx(float(active.double().sum(1).mean()), rel=1e-4)
    sites = [hook_site(demo_model, name) for name in (read, give)]
    splice = splice_scores(sae, demo_model, packed.tokens, packed.mask, sites[0], target_site=sites[1])
    assert (found.ce_spliced, found.kl) == pytest.approx((splice.ce_spliced, splice.kl), rel=1e-4)
    assert sw.evaluate(sae, demo_model, few, target_hook_name=give) == found

    sae.metadata = sae.metadata.replace(extra={})
    with pytest.raises(ValueError, match="does not say which hook it predicts"):
        sw.evaluate(sae, demo_model, few)
    with pytest.raises(ValueError, match="predicts vectors of 768 numbers, but 'blocks.2.hook_mlp_out' .* gives 288"):
        sw.evaluate(sae, demo_model, few, target_hook_name="blocks.2.hook_mlp_out")


def test_a_random_decoder_is_worse_and_keeps_the_norms(demo_model: Any, few: list[str], demo_sae: sw.SAE) -> None:
    control = sw.random_decoder(demo_sae)
    assert torch.allclose(control.W_dec.norm(dim=1), demo_sae.W_dec.norm(dim=1), atol=1e-5)
    assert torch.equal(control.W_enc, demo_sae.W_enc)
    assert torch.equal(control.W_dec, sw.random_decoder(demo_sae).W_dec)
    real, random = (sw.evaluate(sae, demo_model, few, max_tokens=800) for sae in (demo_sae, control))
    assert real.explained_variance > 0.6 > random.explained_variance
    assert real.ce_loss_recovered > random.ce_loss_recovered
    assert real.kl < random.kl


def test_a_random_decoder_is_none_that_the_config_draws() -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=16, d_sae=32, k=4, seed=0))
    assert torch.cosine_similarity(sw.random_decoder(sae, seed=0).W_dec, sae.W_dec).abs().mean() < 0.5


def test_its_repr_is_a_table() -> None:
    shown = repr(Evaluation(31.987, 0.85321, 0.0812, 0.01234, 0.003, 99_000, 1.6581, 1.7512, 10.372))
    assert shown == (
        "Evaluation on 99,000 tokens\n"
        "  L0                         32   active features per token\n"
        "  explained variance      0.853   of the whole set\n"
        "  CE loss recovered       0.989   cross entropy 1.66 clean, 1.75 spliced, 10.4 zeroed\n"
        "  KL                     0.0812   nats per token, clean to spliced\n"
        "  dead features          0.0123   silent on all of these 99,000 tokens\n"
        "  dense features          0.003   active on more than 10% of them"
    )


def test_bad_input_gets_a_sentence(demo_model: Any, tiny_sae: sw.SAE) -> None:
    with pytest.raises(ValueError, match="texts are empty"):
        sw.evaluate(tiny_sae, demo_model, [""])
    with pytest.raises(ValueError, match="gives 768"):
        sw.evaluate(tiny_sae, demo_model, ["A cat."], hook_name="blocks.2.mlp.hook_post")
    with pytest.raises(ValueError, match="max_tokens=0 must be at least 1"):
        sw.evaluate(tiny_sae, demo_model, ["A cat sat."], max_tokens=0)
    with pytest.raises(ValueError, match="'topk' reconstructs what it reads: leave target_hook_name out"):
        sw.evaluate(tiny_sae, demo_model, ["A cat sat."], target_hook_name="blocks.2.hook_mlp_out")
