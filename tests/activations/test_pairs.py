"""A stream of two hooks: what a transcoder reads, and what it is to give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.activations import harvest, hook_site, splice_scores
from saewidgets.activations.harvest import harvest_all
from saewidgets.models import to_ids

PAIRS = [
    ("blocks.2.hook_resid_mid", "blocks.2.hook_mlp_out"),
    ("blocks.2.hook_mlp_out", "blocks.2.hook_resid_mid"),
    ("blocks.1.attn.hook_z", "blocks.5.hook_resid_post"),
    ("blocks.2.hook_mlp_out", "blocks.2.mlp.hook_post"),
    ("hook_embed", "hook_embed"),
]


@pytest.mark.parametrize("names", PAIRS, ids=" to ".join)
def test_both_hooks_are_read_in_one_forward(demo_model: Any, names: tuple[str, str]) -> None:
    sites = [hook_site(demo_model, name) for name in names]
    tokens = to_ids(demo_model, "Once upon a time there was a bridge.").repeat(2, 1)
    forwards: list[Any] = []
    handle = demo_model.original_model.register_forward_pre_hook(lambda module, args: forwards.append(args))
    try:
        found = harvest_all(demo_model, tokens, sites)
    finally:
        handle.remove()
    assert len(forwards) == 1
    for site, vectors in zip(sites, found, strict=True):
        assert torch.equal(vectors, harvest(demo_model, tokens, site))


def test_a_stream_of_pairs_gives_each_vector_its_target(demo_model: Any, texts: list[str]) -> None:
    read, give = "blocks.2.hook_mlp_out", "blocks.2.mlp.hook_post"
    options: dict[str, Any] = {"context_size": 32, "batch_size": 64, "block_batches": 3}
    acts = sw.ActivationStream(demo_model, texts[:6], read, target_hook_name=give, **options)
    assert (acts.d_in, acts.d_out, acts.target_hook_name) == (288, 768, give)
    assert acts.metadata.extra == {"target_hook_name": give}
    assert f"to '{give}', d_out=768" in repr(acts)
    alone = sw.ActivationStream(demo_model, texts[:6], read, **options)
    targets = sw.ActivationStream(demo_model, texts[:6], give, **options)
    assert (alone.d_out, alone.target_hook_name, alone.metadata.extra) == (288, None, {})
    n = 0
    for (x, y), expected_x, expected_y in zip(acts.batches(1), alone.batches(1), targets.batches(1), strict=True):
        assert torch.equal(x, expected_x) and torch.equal(y, expected_y)
        n += 1
    assert n == acts.n_batches > 6
    assert acts.fingerprints() != alone.fingerprints()


def test_an_unknown_target_gets_a_sentence(demo_model: Any) -> None:
    with pytest.raises(ValueError, match="no hook named 'blocks.2.mlp_out'. Did you mean"):
        sw.ActivationStream(demo_model, ["A cat."], "blocks.2.hook_mlp_out", target_hook_name="blocks.2.mlp_out")


class Linear:
    """What splice_scores asks of a transcoder, for a prediction that can be written out."""

    metadata = sw.SAEMetadata()

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def encode_sparse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, torch.arange(x.shape[1]).expand(len(x), -1)

    def decode_sparse(self, values: torch.Tensor, indices: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_a_prediction_takes_the_targets_place(demo_model: Any, texts: list[str], tmp_path: Path) -> None:
    read, give = "blocks.2.hook_resid_mid", "blocks.2.mlp.hook_post"
    tokens = to_ids(demo_model, "Once upon a time there was a bridge.")
    guess: Any = Linear(0.01 * torch.randn(288, 768, generator=torch.Generator().manual_seed(0)))
    sites = [hook_site(demo_model, name) for name in (read, give)]
    scores = splice_scores(guess, demo_model, tokens, torch.ones_like(tokens).bool(), sites[0], target_site=sites[1])
    x = harvest(demo_model, tokens, sites[0])

    def ce(put: torch.Tensor | None) -> float:
        def hook(activation: torch.Tensor, hook: Any) -> torch.Tensor:
            return activation if put is None else torch.cat([activation[:, :1], put[:, 1:]], dim=1)

        with torch.no_grad():
            logits = demo_model.run_with_hooks(tokens, fwd_hooks=[(give, hook)])
        return float(torch.nn.functional.cross_entropy(logits[0, 1:-1], tokens[0, 2:]))

    expected = [ce(None), ce(x @ guess.weight), ce(torch.zeros(1, tokens.shape[1], 768))]
    assert [scores.ce_clean, scores.ce_spliced, scores.ce_zero] == pytest.approx(expected, rel=1e-4)
    acts = sw.ActivationStream(demo_model, texts[:20], read, target_hook_name=give, context_size=32)
    recovered = acts.ce_loss_recovered(guess)
    assert recovered == recovered and recovered < 1
    assert acts.cache(tmp_path / "pairs").ce_loss_recovered(guess) == recovered
