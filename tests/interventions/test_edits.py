"""What an edit does to an activation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.interventions import RandomDirection, random_direction_edit, steering
from saewidgets.interventions.edits import check_edits
from saewidgets.models import to_ids, vocabulary_of

HOOK = "blocks.2.hook_resid_post"


def resid(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK]
    return found[0]


def test_targets_and_descriptions() -> None:
    f = torch.tensor([0.0, 2.0])
    cases = [
        (sw.Clamp(8.0), [8.0, 8.0], "clamp to 8"),
        (sw.Add(-1), [-1.0, 1.0], "add -1"),
        (sw.Scale(0.5), [0.0, 1.0], "scale by 0.5"),
        (sw.Ablate(), [0.0, 0.0], "ablate"),
    ]
    for edit, expected, said in cases:
        assert edit.target(f).tolist() == expected
        assert edit.describe() == said
    assert sw.Clamp(8.0) == sw.Clamp(8.0) and repr(sw.Clamp(8.0)) == "Clamp(value=8.0)"
    assert len({sw.Clamp(1.0), sw.Clamp(1.0), sw.Add(1.0)}) == 2


@pytest.mark.parametrize(("make", "kind"), [(lambda: sw.Clamp("8"), TypeError), (lambda: sw.Scale(True), TypeError)])
def test_edits_need_numbers(make: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="needs a number"):
        make()
    with pytest.raises(ValueError, match="needs a finite number"):
        sw.Add(float("nan"))


def test_steering_moves_along_the_decoder_row_and_leaves_bos(demo_model: Any, tiny_sae: sw.SAE) -> None:
    tokens = to_ids(demo_model, "Once upon a time there was a cat.")
    before = resid(demo_model, tokens)
    f = tiny_sae.encode(before)[1:].detach()
    active, silent = int(f.sum(0).argmax()), int(f.sum(0).argmin())
    assert f[:, silent].max() == 0
    edits = {active: sw.Ablate(), silent: sw.Clamp(3.0)}
    with steering(tiny_sae, demo_model, edits) as steered:
        assert steered is demo_model
        after = resid(demo_model, tokens)
    moved = torch.zeros_like(before)
    moved[1:] = 3.0 * tiny_sae.W_dec.detach()[silent] - f[:, active, None] * tiny_sae.W_dec.detach()[active]
    assert torch.allclose(after, before + moved, atol=1e-5)
    assert torch.equal(after[0], before[0])
    assert torch.equal(resid(demo_model, tokens), before)


def test_an_sae_that_brings_each_vector_to_size_moves_it_by_its_own_size(demo_model: Any) -> None:
    cfg = sw.SAEConfig(d_in=288, d_sae=64, architecture="relu", normalize="constant_norm")
    sae = sw.SAE(cfg, sw.SAEMetadata(hook_name=HOOK)).clone()
    tokens = demo_model.to_tokens("Once upon a time")
    before = resid(demo_model, tokens)
    with sw.steering(sae, demo_model, {3: sw.Add(2.0)}):
        after = resid(demo_model, tokens)
    size = before[1:].norm(dim=1, keepdim=True) / 288**0.5
    assert torch.allclose((after - before)[1:], 2.0 * size * sae.W_dec[3], atol=1e-4)
    f = sae.encode(before[1:])
    f[:, 3] += 2.0  # the same as an edit of the code
    moved = sae.decode(f, before[1:]) - sae(before[1:])
    assert torch.allclose(moved, (after - before)[1:], atol=1e-4)


def test_steering_reaches_z_and_mlp_out(demo_model: Any, tiny_sae: sw.SAE) -> None:
    tokens = to_ids(demo_model, "Once upon a time")
    for hook in ("blocks.2.attn.hook_z", "blocks.2.hook_mlp_out"):
        with torch.no_grad():
            before = demo_model.run_with_cache(tokens, names_filter=hook)[1][hook].flatten(2)
            with sw.steering(tiny_sae, demo_model, {3: sw.Add(2.0)}, hook_name=hook):
                after = demo_model.run_with_cache(tokens, names_filter=hook)[1][hook].flatten(2)
        assert torch.allclose((after - before)[0, 1:], 2.0 * tiny_sae.W_dec[3], atol=1e-5)
        assert torch.equal(after[0, 0], before[0, 0])


def test_a_random_direction_moves_every_token_as_far(demo_model: Any, tiny_sae: sw.SAE) -> None:
    tokens = to_ids(demo_model, "Once upon a time there was a cat.")
    before = resid(demo_model, tokens)
    feature = int(tiny_sae.encode(before)[1:].sum(0).argmax())
    edits = {feature: sw.Scale(3.0)}
    control = random_direction_edit(tiny_sae, feature, edits, seed=1)
    assert control == {feature: RandomDirection(sw.Scale(3.0), 1)}
    assert "random direction" in control[feature].describe()
    moves = []
    for some in (edits, control, random_direction_edit(tiny_sae, None, edits, seed=2)):
        with steering(tiny_sae, demo_model, some):
            moves.append(resid(demo_model, tokens) - before)
    for other in moves[1:]:
        assert torch.allclose(other.norm(dim=1), moves[0].norm(dim=1), atol=1e-4)
        assert moves[0].norm() > 0.1
        assert torch.cosine_similarity(other.flatten(), moves[0].flatten(), dim=0).abs() < 0.3
    with pytest.raises(ValueError, match="Feature 5 is not among the edits"):
        random_direction_edit(tiny_sae, 5, {6: sw.Ablate()})


def test_bad_edits_get_a_sentence(demo_model: Any, tiny_sae: sw.SAE) -> None:
    for wrong in (512, -1):
        with pytest.raises(ValueError, match=f"no feature {wrong}: this SAE's features are 0 to 511"):
            check_edits(tiny_sae, {wrong: sw.Ablate()})
        with (
            pytest.raises(ValueError, match=f"no feature {wrong}"),
            steering(tiny_sae, demo_model, {wrong: sw.Ablate()}),
        ):
            pass
    with pytest.raises(TypeError, match=r"Edits are a dict such as \{412: sw.Clamp\(8.0\)\}, got list"):
        check_edits(tiny_sae, [sw.Ablate()])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="edit of feature 4 is 8.0; expected"):
        check_edits(tiny_sae, {4: 8.0})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="whole number, got 'x'"):
        check_edits(tiny_sae, {"x": sw.Ablate()})  # type: ignore[dict-item]


def test_no_edits_change_nothing(demo_model: Any, tiny_sae: sw.SAE) -> None:
    tokens = to_ids(demo_model, "A cat.")
    before = resid(demo_model, tokens)
    with steering(tiny_sae, demo_model, {}):
        assert torch.equal(resid(demo_model, tokens), before)


def test_generate_with_a_cache_steers_as_without(demo_model: Any, tiny_sae: sw.SAE) -> None:
    prompt = to_ids(demo_model, "Once upon a time")
    options = {"max_new_tokens": 12, "do_sample": False, "verbose": False, "return_type": "tokens"}
    plain = demo_model.generate(prompt, **options)
    with sw.steering(tiny_sae, demo_model, {7: sw.Clamp(6.0)}):
        cached = demo_model.generate(prompt, **options)
        whole = demo_model.generate(prompt, use_past_kv_cache=False, **options)
    vocabulary = vocabulary_of(demo_model)
    assert vocabulary.text(cached) == vocabulary.text(whole) != vocabulary.text(plain)
