"""The slider's fast path is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.interventions import NextToken

PROMPT = "Once upon a time there was a little bridge."
EDITS = {7: sw.Clamp(6.0), 300: sw.Ablate(), 12: sw.Add(2.0)}


@pytest.mark.parametrize(
    "hook", ["blocks.2.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.2.attn.hook_z", "blocks.5.hook_resid_post"]
)
def test_probabilities_are_those_of_a_whole_steered_forward(demo_model: Any, tiny_sae: sw.SAE, hook: str) -> None:
    view = NextToken(demo_model, tiny_sae, PROMPT, hook_name=hook)
    with torch.no_grad():
        clean = demo_model(view.tokens)[0, -1].softmax(-1)
        with sw.steering(tiny_sae, demo_model, EDITS, hook_name=hook):
            steered = demo_model(view.tokens)[0, -1].softmax(-1)
    assert torch.equal(view.baseline, clean)
    assert torch.equal(view.probabilities({}), clean)
    assert (view.probabilities(EDITS) - steered).abs().max() <= 1e-5
    assert (steered - clean).abs().max() > 1e-3
    assert view.kl(EDITS) == pytest.approx(float((clean * (clean / steered).log()).sum()), rel=1e-3)
    assert view.kl({}) == 0.0


def test_activations_are_the_prompts(demo_model: Any, tiny_sae: sw.SAE) -> None:
    view = NextToken(demo_model, tiny_sae, PROMPT)
    with torch.no_grad():
        x = demo_model.run_with_cache(view.tokens, names_filter=view.site.hook_name)[1][view.site.hook_name][0]
    f = tiny_sae.encode(x).detach()
    features = [int(f[1:].sum(0).argmax()), 5]
    found = view.activations(features)
    assert found.shape == (view.tokens.shape[1], 2)
    assert torch.allclose(found[1:], f[1:, features], atol=1e-5)
    assert (found[0] == 0).all()


def test_bad_input_gets_a_sentence(demo_model: Any, tiny_sae: sw.SAE) -> None:
    with pytest.raises(ValueError, match="text is empty"):
        NextToken(demo_model, tiny_sae, "")
    view = NextToken(demo_model, tiny_sae, PROMPT)
    with pytest.raises(ValueError, match="no feature 512"):
        view.probabilities({512: sw.Ablate()})
    with pytest.raises(ValueError, match="no feature 512"):
        view.activations([512])


def test_an_sae_in_training_is_not_read(demo_model: Any) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=288, d_sae=64, k=4))
    view = NextToken(demo_model, sae, PROMPT, hook_name="blocks.2.hook_resid_post")
    before = view.probabilities({3: sw.Clamp(5.0)})
    with torch.no_grad():
        sae.W_dec.zero_()
    assert torch.equal(view.probabilities({3: sw.Clamp(5.0)}), before)
