"""Where hooks are, what is harvested there, and whether an SAE fits."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.activations import HookSite, check_fits, harvest, hook_site
from saewidgets.activations.hooks import capture
from saewidgets.models import to_ids

SITES = [
    HookSite("blocks.2.hook_resid_pre", 2, 288, 3, False),
    HookSite("blocks.2.hook_resid_mid", 2, 288, 3, False),
    HookSite("blocks.2.hook_resid_post", 2, 288, 3, False),
    HookSite("blocks.2.hook_mlp_out", 2, 288, 3, False),
    HookSite("blocks.2.hook_attn_out", 2, 288, 3, False),
    HookSite("blocks.2.attn.hook_z", 2, 288, 3, True),
    HookSite("blocks.2.mlp.hook_post", 2, 768, 3, False),
    HookSite("blocks.5.hook_resid_post", 5, 288, None, False),
    HookSite("hook_embed", None, 288, 0, False),
]


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.hook_name)
def test_a_harvest_is_what_run_with_cache_says(demo_model: Any, site: HookSite) -> None:
    assert hook_site(demo_model, site.hook_name) == site
    tokens = to_ids(demo_model, "Once upon a time there was a bridge.").repeat(2, 1)
    with torch.no_grad():
        cache = demo_model.run_with_cache(tokens, names_filter=site.hook_name)[1]
    expected = cache[site.hook_name]
    found = harvest(demo_model, tokens, site)
    assert found.shape == (*tokens.shape, site.d_in)
    assert torch.equal(found, expected.flatten(2))
    assert not found.requires_grad


def test_the_model_runs_only_up_to_the_hook(demo_model: Any) -> None:
    ran: list[int] = []
    watch = [b.register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i, b in enumerate(demo_model.blocks)]
    try:
        harvest(demo_model, to_ids(demo_model, "A cat."), hook_site(demo_model, "blocks.2.hook_resid_post"))
    finally:
        for handle in watch:
            handle.remove()
    assert ran == [0, 1, 2]


def test_unknown_hooks_offer_the_nearest(demo_model: Any) -> None:
    with pytest.raises(
        ValueError, match=r"no hook named 'blocks.2.resid_post'. Did you mean .*blocks.2.hook_resid_post"
    ):
        hook_site(demo_model, "blocks.2.resid_post")


def test_hooks_without_a_vector_per_token_are_refused(demo_model: Any) -> None:
    with pytest.raises(ValueError, match="does not give one vector per token"):
        hook_site(demo_model, "blocks.2.attn.hook_pattern")


@pytest.mark.parametrize(
    ("hook", "setter", "instead"),
    [
        ("hook_mlp_in", "set_use_hook_mlp_in", "mlp.hook_in"),
        ("hook_attn_in", "set_use_attn_in", "attn.hook_in"),
        ("hook_q_input", "set_use_split_qkv_input", "attn.hook_in"),
        ("attn.hook_v_input", "set_use_split_qkv_input", "attn.hook_in"),
        ("attn.hook_result", "set_use_attn_result", "hook_attn_out"),
    ],
)
def test_a_hook_that_is_switched_off_names_what_switches_it_on(
    demo_model: Any, hook: str, setter: str, instead: str
) -> None:
    name = f"blocks.2.{hook}"
    with pytest.raises(ValueError, match=rf"never fires in .* until model.{setter}\(True\).* 'blocks.2.{instead}'"):
        hook_site(demo_model, name)
    assert hook_site(demo_model, f"blocks.2.{instead}").d_in == 288
    tokens = to_ids(demo_model, "A cat.")
    getattr(demo_model, setter)(True)
    try:
        assert capture(demo_model, tokens, name)[0] is not None
    finally:
        getattr(demo_model, setter)(False)
    assert capture(demo_model, tokens, name)[0] is None


def test_every_hook_that_the_stream_names_is_there(demo_model: Any) -> None:
    said = sw.ActivationStream.__init__.__doc__ or ""
    named = set(re.findall(r"`(?:blocks\.N\.)?([a-z.]*hook_\w+)`", said))
    assert {"hook_resid_pre", "hook_resid_mid", "hook_attn_out", "mlp.hook_in", "attn.hook_z"} <= named
    for hook in named:
        assert hook_site(demo_model, f"blocks.2.{hook}").d_in == 288


def test_an_sae_is_checked_against_the_hook(demo_model: Any, tiny_sae: sw.SAE) -> None:
    assert check_fits(tiny_sae, demo_model).hook_name == "blocks.2.hook_resid_post"
    assert check_fits(tiny_sae, demo_model, "blocks.3.hook_mlp_out").layer == 3
    with pytest.raises(ValueError, match=r"reads vectors of 288 numbers, but 'blocks.2.mlp.hook_post' .* gives 768"):
        check_fits(tiny_sae, demo_model, "blocks.2.mlp.hook_post")
    with pytest.raises(ValueError, match="does not say which hook"):
        check_fits(sw.SAE(sw.SAEConfig(d_in=288, d_sae=64, k=4)), demo_model)


def test_an_sae_of_plain_tensors_is_told_what_the_model_gives(demo_model: Any) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=32, d_sae=64, k=4))
    said = "which hook it was trained at, and it reads vectors of 32 numbers, but the residual stream of .* gives 288"
    with pytest.raises(ValueError, match=said):
        sw.evaluate(sae, demo_model, ["Once upon a time"])
    with pytest.raises(ValueError, match="reads vectors of 32 numbers, but 'blocks.2.hook_resid_post' of .* gives 288"):
        sw.FeatureIndex.build(sae, demo_model, ["Once"], "nowhere", hook_name="blocks.2.hook_resid_post")
