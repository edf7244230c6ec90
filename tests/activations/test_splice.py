"""The splice, against forwards written out by hand."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.nn import functional

import saewidgets as sw
from saewidgets.activations import hook_site, pack, splice, splice_scores
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


@pytest.mark.parametrize("kept_bytes", [splice.KEPT_BYTES, 0])
@pytest.mark.parametrize("names", [HOOKS[2:3], HOOKS[1:4:2]], ids=" to ".join)
def test_many_saes_are_scored_to_the_bit_and_the_clean_model_runs_once(
    demo_model: Any, texts: list[str], monkeypatch: Any, names: list[str], kept_bytes: int
) -> None:
    monkeypatch.setattr(splice, "KEPT_BYTES", kept_bytes)
    sites = [hook_site(demo_model, name) for name in names]
    target = sites[1] if len(sites) > 1 else None
    packed = pack(demo_model, texts[:20], 32)[:20]
    architecture = "transcoder" if target else "topk"
    saes = [sw.SAE(sw.SAEConfig(d_in=288, d_sae=64, k=k, architecture=architecture)) for k in (4, 8, 8)]
    saes[2].metadata = saes[2].metadata.replace(excluded_positions=(0, 1))
    expected = [splice_scores(sae, demo_model, packed.tokens, packed.mask, sites[0], None, target) for sae in saes]
    ran: dict[str, int] = {"run_halfway": 0, "run_on": 0}

    def counted(name: str, real: Any) -> Any:
        def count(*given: Any) -> Any:
            ran[name] += 1
            return real(*given)

        return count

    for name in ran:
        monkeypatch.setattr(splice, name, counted(name, getattr(splice, name)))
    score = splice.SpliceScorer(demo_model, packed.tokens, packed.mask, sites[0], target)
    assert [score(sae) for sae in saes[:2]] == [scores.ce_loss_recovered for scores in expected[:2]]
    assert ran == {"run_halfway": 3 if kept_bytes else 9, "run_on": 9}  # three forwards hold all contexts
    assert score(saes[2]) == expected[2].ce_loss_recovered  # other positions: all anew
    assert expected[0].ce_loss_recovered != expected[1].ce_loss_recovered


def a_scorer(model: Any, texts: list[str], sae: sw.SAE) -> tuple[splice.SpliceScorer, float]:
    """A scorer, and what it is to give for this SAE."""
    packed, site = pack(model, texts[:20], 32)[:20], hook_site(model, sae.metadata.hook_name or "")
    expected = splice_scores(sae, model, packed.tokens, packed.mask, site).ce_loss_recovered
    return splice.SpliceScorer(model, packed.tokens, packed.mask, site), expected


def test_a_scorer_gives_back_its_memory_and_still_works(demo_model: Any, texts: list[str], tiny_sae: sw.SAE) -> None:
    score, expected = a_scorer(demo_model, texts, tiny_sae)
    assert score(tiny_sae) == expected
    kept = [weakref.ref(halfway.activation) for halfway, _ in score._kept.values()]
    assert len(kept) == 3 and all(one() is not None for one in kept)
    score.release()
    assert all(one() is None for one in kept)
    assert score(tiny_sae) == expected


def test_what_is_kept_on_another_device_is_computed_anew(
    demo_model: Any, texts: list[str], tiny_sae: sw.SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, expected = a_scorer(demo_model, texts, tiny_sae)
    assert score(tiny_sae) == expected
    before = {id(vectors) for _, vectors in score._kept.values()}
    assert score(tiny_sae) == expected and {id(vectors) for _, vectors in score._kept.values()} == before
    held = list(score._kept.values())  # or their numbers might be given again
    monkeypatch.setattr(splice, "device_of", lambda model: torch.device("cpu:0"))  # as after model.to(another)
    assert score(tiny_sae) == expected
    assert len(held) == 3 and before.isdisjoint(id(vectors) for _, vectors in score._kept.values())


def test_a_scorer_that_was_broken_off_begins_again(
    demo_model: Any, texts: list[str], tiny_sae: sw.SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, expected = a_scorer(demo_model, texts, tiny_sae)
    other = tiny_sae.clone()
    other.metadata = other.metadata.replace(excluded_positions=(0, 1))
    assert score(tiny_sae) == expected
    ran: list[int] = []

    def limited(*given: Any) -> Any:
        ran.append(1)
        if len(ran) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return run_halfway(*given)

    monkeypatch.setattr(splice, "run_halfway", limited)
    with pytest.raises(RuntimeError, match="out of memory"):
        score(other)
    assert score(tiny_sae) == expected  # the positions of before, of which there are no sums any more


def test_nothing_to_score_is_said(demo_model: Any, tiny_sae: sw.SAE) -> None:
    site = hook_site(demo_model, tiny_sae.metadata.hook_name or "")
    with pytest.raises(ValueError, match="nothing to score"):
        splice_scores(tiny_sae, demo_model, torch.tensor([[0, 5]]), torch.ones(1, 2, dtype=torch.bool), site)


def test_recovered_has_no_answer_where_zeros_do_no_harm() -> None:
    assert recovered(1.0, 1.5, 2.0) == 0.5
    assert recovered(2.0, 1.5, 2.0) != recovered(2.0, 1.5, 2.0)
