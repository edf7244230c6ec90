"""TokenHeatmap's view model and traits, on the embedded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import traitlets

import saewidgets as sw
from saewidgets.widgets.token_heatmap import TokenHeatmapView

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

PROMPT = "Lily saw a bridge."
MARKUP = ["<script>alert(1)</script>", "</style>"]
HOSTILE = [*MARKUP, "a\ud800b", " " * 100, "\u202eright to left", "\x00\x07", "\U0001f98a"]


def test_values_are_the_saes_own(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    result, (values, features, probability) = TokenHeatmapView(demo_sae, demo_model).tokens(PROMPT)
    n, k = len(result["tokens"]), result["k"]
    found = np.frombuffer(values, "<f4").reshape(n, k), np.frombuffer(features, "<i4").reshape(n, k)
    logits, cache = demo_model.run_with_cache(PROMPT)
    f = demo_sae.encode(cache[demo_sae.metadata.hook_name][0]).detach()
    for token in range(1, n):
        active = found[0][token] > 0
        assert sorted(found[1][token][active]) == f[token].nonzero().squeeze(1).tolist()
        assert found[0][token][0] == pytest.approx(float(f[token].max()), rel=1e-4)
    assert not found[0][0].any()  # BOS was left out of training
    ids = demo_model.to_tokens(PROMPT)[0]
    given = logits[0, 3].log_softmax(-1)[ids[4]].exp()
    assert np.frombuffer(probability, "<f4")[4] == pytest.approx(given.item(), rel=1e-3)


@pytest.mark.parametrize("prompt", HOSTILE, ids=ascii)
def test_hostile_text_is_only_text(demo_model: TransformerBridge, demo_sae: sw.SAE, prompt: str) -> None:
    tokens = TokenHeatmapView(demo_sae, demo_model).tokens(prompt)[0]["tokens"][1:]
    said = b"".join(bytes.fromhex(t["text"]) if t["hex"] else t["text"].encode() for t in tokens)
    assert said.decode() == prompt.replace("\ud800", "\ufffd")


def test_prompts_that_cannot_be_read_get_a_sentence(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    view = TokenHeatmapView(demo_sae, demo_model)
    with pytest.raises(ValueError, match="empty"):
        view.tokens("")
    with pytest.raises(ValueError, match="256"):
        view.tokens("bridge " * 400)


def test_what_does_not_exist_is_refused(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    heatmap = sw.TokenHeatmap(demo_sae, demo_model, PROMPT)
    for name, value in (("feature", demo_sae.cfg.d_sae), ("features", [0, -1]), ("token", 99)):
        with pytest.raises(traitlets.TraitError, match=r"There is no (feature #|token )-?\d+"):
            setattr(heatmap, name, value)
    with pytest.raises(TypeError, match="featur.*Did you mean 'feature'"):
        sw.TokenHeatmap(demo_sae, demo_model, PROMPT, featur=3)
    other = sw.SAE(sw.SAEConfig(d_in=16, d_sae=32, k=4))
    with pytest.raises(ValueError, match="16.*288"):
        sw.TokenHeatmap(other, demo_model, PROMPT, hook_name="blocks.2.hook_resid_post")


def test_another_prompt_lets_go_of_the_token(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    heatmap = sw.TokenHeatmap(demo_sae, demo_model, PROMPT, token=3)
    heatmap.prompt = "Once"
    assert heatmap.token is None
    assert heatmap.snapshot()["state"]["prompt"] == "Once"


def test_a_heatmap_reads_a_copy(demo_model: TransformerBridge, tiny_sae: sw.SAE) -> None:
    sae = tiny_sae.clone()
    view = TokenHeatmapView(sae, demo_model)
    before = view.tokens(PROMPT)[1][0]
    with torch.no_grad():
        sae.W_enc.zero_()
    assert view.tokens(PROMPT)[1][0] == before
