"""TokenHeatmap's view model and traits, on the embedded model."""

from __future__ import annotations

import json
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
    said = b"".join(bytes.fromhex(t["text"]) if t.get("hex") else t["text"].encode() for t in tokens)
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


def test_a_token_given_at_the_beginning_stays(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    assert sw.TokenHeatmap(demo_sae, demo_model, PROMPT, token=3).token == 3
    assert sw.TokenHeatmap(demo_sae, demo_model, token=2, prompt=PROMPT).snapshot()["state"]["token"] == 2


def test_a_model_without_bos_is_read(demo_model: TransformerBridge, demo_sae: sw.SAE, no_bos: None) -> None:
    sae = demo_sae.clone()
    sae.metadata = sae.metadata.replace(prepend_bos=False, excluded_positions=())
    heatmap = sw.TokenHeatmap(sae, demo_model, PROMPT, token=1)
    result, _ = heatmap.answer("tokens", {"prompt": PROMPT})
    assert PROMPT.startswith(result["tokens"][0]["text"])
    assert result["excluded"] == []


@pytest.fixture
def wide_sae(demo_sae: sw.SAE) -> sw.SAE:
    """100 features active on each token: more than what travels of an SAE that does not say how many it has."""
    sae = sw.SAE(sw.SAEConfig(d_in=288, d_sae=512, k=100, seed=0))
    sae.metadata = demo_sae.metadata
    return sae


def test_all_k_features_of_a_token_are_shown(demo_model: TransformerBridge, wide_sae: sw.SAE) -> None:
    result, (values, features, _) = TokenHeatmapView(wide_sae, demo_model).tokens(PROMPT)
    shape = len(result["tokens"]), result["k"]
    shown = np.frombuffer(values, "<f4").reshape(shape), np.frombuffer(features, "<i4").reshape(shape)
    f = wide_sae.encode(demo_model.run_with_cache(PROMPT)[1][wide_sae.metadata.hook_name][0]).detach()
    for token in range(1, shape[0]):
        assert sorted(shown[1][token][shown[0][token] > 0]) == f[token].nonzero().squeeze(1).tolist()
    assert result["whole"] is True and result["excluded"] == [0]


def test_a_chosen_feature_is_exact_however_many_are_stronger(
    demo_model: TransformerBridge, wide_sae: sw.SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenHeatmapView, "width", 4)  # as of an SAE whose features are not limited by k
    heatmap = sw.TokenHeatmap(wide_sae, demo_model, PROMPT, feature=7, features=[9])
    assert heatmap.answer("tokens", {"prompt": PROMPT})[0]["whole"] is False
    result, (values,) = heatmap.answer("values", {"prompt": PROMPT, "features": [9, 7]})
    f = wide_sae.encode(demo_model.run_with_cache(PROMPT)[1][wide_sae.metadata.hook_name][0]).detach()
    f[0] = 0
    assert result["features"] == [9, 7] and bool(f[:, 7].any())
    shown = np.frombuffer(values, "<f4").reshape(2, -1)
    assert shown == pytest.approx(f[:, [9, 7]].T.numpy(), rel=1e-4, abs=1e-5)
    recorded = [answer["params"] for answer in heatmap.snapshot()["answers"] if answer["method"] == "values"]
    assert recorded == [{"prompt": PROMPT, "features": [7, 9]}]
    with pytest.raises(ValueError, match="There is no feature 512"):
        heatmap.answer("values", {"prompt": PROMPT, "features": [512]})


def test_a_lone_surrogate_is_no_text(demo_model: TransformerBridge, demo_sae: sw.SAE) -> None:
    heatmap = sw.TokenHeatmap(demo_sae, demo_model, "a\ud800b")
    assert heatmap.prompt == "a\ufffdb"
    assert json.dumps(heatmap.get_state("prompt"), ensure_ascii=False).encode()


def test_the_hook_is_named_with_its_step(demo_model: TransformerBridge, demo_sae: sw.SAE, tiny_sae: sw.SAE) -> None:
    trained, _ = TokenHeatmapView(demo_sae, demo_model).tokens(PROMPT)
    assert trained["source"] == "topk · blocks.2.hook_resid_post · step 5,005"
    untrained, _ = TokenHeatmapView(tiny_sae, demo_model).tokens(PROMPT)
    assert untrained["source"] == "topk · blocks.2.hook_resid_post"
