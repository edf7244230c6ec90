"""The splice, against forwards written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import saewidgets as sw
from saewidgets.activations import hook_site, pack, splice_scores
from saewidgets.activations.resume import run_halfway, run_on
from saewidgets.activations.splice import recovered
from saewidgets.models import forward_hooks, to_ids

HOOKS = [
    "blocks.2.hook_resid_pre",
    "blocks.2.hook_resid_mid",
    "blocks.2.hook_resid_post",
    "blocks.2.hook_mlp_out",
    "blocks.2.attn.hook_z",
    "blocks.5.hook_resid_post",
    "blocks.0.hook_resid_pre",
    "hook_embed",
]


@pytest.mark.parametrize("name", HOOKS)
def test_running_on_is_exact_to_a_full_forward(demo_model: Any, name: str) -> None:
    tokens = to_ids(demo_model, "Once upon a time there was a bridge.").repeat(2, 1)
    site = hook_site(demo_model, name)

    def change(x: torch.Tensor, hook: Any) -> torch.Tensor:
        assert hook.name
        return x * 0.7 + 0.1

    with torch.no_grad():
        clean = demo_model(tokens)
        with forward_hooks(demo_model, [(name, change)]):
            expected = demo_model(tokens)
    halfway = run_halfway(demo_model, tokens, site)
    assert torch.equal(halfway.logits, clean)
    assert torch.equal(run_on(demo_model, halfway, change), expected)
    assert torch.equal(run_on(demo_model, halfway, lambda x, hook: None), clean)
    with torch.no_grad():
        assert torch.equal(demo_model(tokens), clean), "blocks stayed passed over"


def test_blocks_before_the_hook_do_not_run_again(demo_model: Any) -> None:
    halfway = run_halfway(demo_model, to_ids(demo_model, "A cat."), hook_site(demo_model, "blocks.2.hook_resid_post"))
    ran: list[int] = []
    inner = [block.original_component for block in demo_model.blocks]
    watch = [block.register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i, block in enumerate(inner)]
    try:
        run_on(demo_model, halfway, lambda x, hook: x * 2)
    finally:
        for handle in watch:
            handle.remove()
    assert ran == [3, 4, 5]


def test_scores_are_those_of_forwards_written_out(demo_model: Any, texts: list[str], tiny_sae: sw.SAE) -> None:
    packed = pack(demo_model, [*texts[:5], "A cat."], 48)
    site = hook_site(demo_model, tiny_sae.metadata.hook_name or "")
    scores = splice_scores(tiny_sae, demo_model, packed.tokens, packed.mask, site)
    sums, n = torch.zeros(4, dtype=torch.float64), 0
    for tokens, mask in zip(packed.tokens, packed.mask, strict=True):
        length = int(mask.sum())
        tokens = tokens[None, :length]

        def splice(x: torch.Tensor, hook: Any) -> torch.Tensor:
            return torch.cat([x[:, :1], tiny_sae(x[:, 1:])], dim=1)  # position 0 stays as it is

        def zero(x: torch.Tensor, hook: Any) -> torch.Tensor:
            return torch.cat([x[:, :1], 0 * x[:, 1:]], dim=1)

        with torch.no_grad():
            runs = [demo_model(tokens)]
            runs += [demo_model.run_with_hooks(tokens, fwd_hooks=[(site.hook_name, fn)]) for fn in (splice, zero)]
        logs = [run[0, 1:-1].double().log_softmax(-1) for run in runs]
        targets = tokens[0, 2:]
        sums[:3] += torch.stack([functional.nll_loss(log, targets, reduction="sum") for log in logs])
        sums[3] += (logs[0].exp() * (logs[0] - logs[1])).sum()
        n += len(targets)
    assert scores.n_tokens == n
    found = torch.tensor([scores.ce_clean, scores.ce_spliced, scores.ce_zero, scores.kl], dtype=torch.float64)
    assert torch.allclose(found, sums / n, rtol=1e-4)
    assert scores.ce_loss_recovered == pytest.approx(
        (scores.ce_zero - scores.ce_spliced) / (scores.ce_zero - scores.ce_clean)
    )


def test_nothing_to_score_is_said(demo_model: Any, tiny_sae: sw.SAE) -> None:
    site = hook_site(demo_model, tiny_sae.metadata.hook_name or "")
    with pytest.raises(ValueError, match="nothing to score"):
        splice_scores(tiny_sae, demo_model, torch.tensor([[0, 5]]), torch.ones(1, 2, dtype=torch.bool), site)


def test_recovered_has_no_answer_where_zeros_do_no_harm() -> None:
    assert recovered(1.0, 1.5, 2.0) == 0.5
    assert recovered(2.0, 1.5, 2.0) != recovered(2.0, 1.5, 2.0)
