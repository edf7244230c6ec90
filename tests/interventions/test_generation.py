"""Continuations: the same seed, the same text; the model is free between two tokens."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.interventions import continuations, edit_hooks
from saewidgets.models import lock_of, to_ids


@pytest.fixture(scope="module")
def prompt(demo_model: Any) -> torch.Tensor:
    return to_ids(demo_model, "Once upon a time")


def test_the_same_seed_gives_the_same_text(demo_model: Any, prompt: torch.Tensor) -> None:
    said = [list(continuations(demo_model, prompt, [], 20, 1.0, seed)) for seed in (0, 0, 1)]
    torch.manual_seed(123)
    assert said[0] == said[1] == list(continuations(demo_model, prompt, n_tokens=20, temperature=1.0, seed=0))
    assert said[0] != said[2]


def test_threads_do_not_change_it(demo_model: Any, prompt: torch.Tensor, tiny_sae: sw.SAE) -> None:
    hooks = edit_hooks(tiny_sae, demo_model, {7: sw.Clamp(6.0)})
    alone = [list(continuations(demo_model, prompt, some, 15, 1.0, 3)) for some in ([], hooks)]
    assert alone[0] != alone[1]
    together: dict[int, list[int]] = {}

    def run(i: int) -> None:
        together[i] = list(continuations(demo_model, prompt, [[], hooks][i % 2], 15, 1.0, 3))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [together[i] for i in range(4)] == alone * 2


def test_the_model_is_free_between_two_tokens(demo_model: Any, prompt: torch.Tensor, tiny_sae: sw.SAE) -> None:
    tokens = to_ids(demo_model, "A cat.")
    with torch.no_grad():
        plain = demo_model(tokens)
    stream = continuations(demo_model, prompt, edit_hooks(tiny_sae, demo_model, {7: sw.Clamp(6.0)}), 3, 1.0, 0)
    next(stream)
    with torch.no_grad():
        assert torch.equal(demo_model(tokens), plain), "the edits stayed on between two tokens"
    taken: list[bool] = []

    def take() -> None:
        with lock_of(demo_model):
            taken.append(True)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(10)
    assert taken == [True]


def test_greedy_is_what_generate_says(demo_model: Any, prompt: torch.Tensor) -> None:
    said = list(continuations(demo_model, prompt, [], 20, temperature=0))
    expected = demo_model.generate(prompt, max_new_tokens=20, do_sample=False, verbose=False, return_type="tokens")
    assert said == expected[0, prompt.shape[1] :].tolist()[: len(said)]


def test_a_cache_says_what_whole_forwards_say(
    demo_model: Any, prompt: torch.Tensor, tiny_sae: sw.SAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = edit_hooks(tiny_sae, demo_model, {7: sw.Clamp(6.0)})
    cached = [list(continuations(demo_model, prompt, some, 20, 0.7, 5)) for some in ([], hooks)]
    monkeypatch.setattr(demo_model.adapter, "supports_kv_cache", False)
    assert [list(continuations(demo_model, prompt, some, 20, 0.7, 5)) for some in ([], hooks)] == cached


def test_plain_and_hardly_steered_share_their_luck(demo_model: Any, prompt: torch.Tensor, tiny_sae: sw.SAE) -> None:
    hardly = edit_hooks(tiny_sae, demo_model, {7: sw.Add(1e-4)})
    for seed in range(4):
        plain, steered = (list(continuations(demo_model, prompt, some, 10, 1.0, seed)) for some in ([], hardly))
        assert plain == steered


def test_samples_follow_the_distribution(demo_model: Any, prompt: torch.Tensor) -> None:
    with torch.no_grad():
        expected = demo_model(prompt)[0, -1].softmax(-1)
    likeliest = int(expected.argmax())
    said = [list(continuations(demo_model, prompt, [], 1, 1.0, seed)) for seed in range(150)]
    share = sum(ids == [likeliest] for ids in said) / len(said)
    p = float(expected[likeliest])
    assert abs(share - p) < 4 * (p * (1 - p) / len(said)) ** 0.5 + 0.01


def test_it_ends_at_the_end_of_a_text_and_of_the_context(demo_model: Any, prompt: torch.Tensor) -> None:
    eos = demo_model.tokenizer.eos_token_id

    def end(logits: torch.Tensor, hook: Any) -> torch.Tensor:
        logits = logits.clone()
        logits[..., eos] = 1e4
        return logits

    assert list(continuations(demo_model, prompt, [("unembed.hook_out", end)], 20)) == []
    n_ctx = demo_model.cfg.n_ctx
    long = torch.full((1, n_ctx - 2), 100)
    assert len(list(continuations(demo_model, long, [], 20))) <= 2


def test_bad_prompts_get_a_sentence(demo_model: Any, prompt: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="text is empty"):
        continuations(demo_model, [])
    with pytest.raises(ValueError, match="at most 256 fit"):
        continuations(demo_model, [5] * 257)
    with pytest.raises(ValueError, match="Token id 5000 is out of range"):
        continuations(demo_model, [5000])
    with pytest.raises(ValueError, match="temperature=-1 must be 0"):
        continuations(demo_model, prompt, temperature=-1)
