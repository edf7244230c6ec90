"""Other architectures than the embedded model's: what is said of it must hold for them too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, GPTNeoXConfig, MistralConfig, Qwen2Config

import saewidgets as sw
from saewidgets.activations import harvest, hook_site
from saewidgets.activations.resume import run_halfway, run_on
from saewidgets.interventions import continuations, edit_hooks
from saewidgets.models import forward_hooks, to_ids

TOKENIZER = Path(sw.__file__).parent / "models" / "demo" / "data" / "model"
COMMON = {"vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, Any] = {
    "gpt2": GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=64, **COMMON),
    "gpt_neox": GPTNeoXConfig(**LLAMA_LIKE, **COMMON),
    "mistral": MistralConfig(**LLAMA_LIKE, num_key_value_heads=2, **COMMON),
    "qwen2": Qwen2Config(**LLAMA_LIKE, num_key_value_heads=2, **COMMON),
    "gemma": GemmaConfig(**LLAMA_LIKE, num_key_value_heads=2, head_dim=8, **COMMON),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIGS[request.param])
    for weight in made.parameters():  # initial weights are so small that nothing would be seen
        weight.data.mul_(5.0) if weight.ndim > 1 else None
    made.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, folder)
    return sw.load_model(folder, device="cpu")


HOOKS = [f"blocks.1.{name}" for name in ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "attn.hook_z")]


@pytest.mark.parametrize("name", HOOKS)
def test_harvest_and_running_on_are_exact(model: Any, name: str) -> None:
    tokens = to_ids(model, "Once upon a time there was a bridge.").repeat(2, 1)
    site = hook_site(model, name)
    assert (site.d_in, site.layer) == (32, 1)

    def change(x: torch.Tensor, hook: Any) -> torch.Tensor:
        return x * 0.5 + 0.3

    with torch.no_grad():
        expected = model.run_with_cache(tokens, names_filter=name)[1][name].flatten(2)
        with forward_hooks(model, [(name, change)]):
            changed = model(tokens)
        plain = model(tokens)
    assert torch.equal(harvest(model, tokens, site), expected)
    halfway = run_halfway(model, tokens, site)
    assert torch.equal(halfway.logits, plain)
    assert (run_on(model, halfway, change) - changed).abs().max() <= 1e-5
    assert (changed - plain).abs().max() > 1e-3


def test_a_cache_says_what_whole_forwards_say(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = sw.SAE(sw.SAEConfig(d_in=32, d_sae=64, k=4)).requires_grad_(False)
    prompt = to_ids(model, "Once upon a time")
    hooks = edit_hooks(sae, model, {3: sw.Add(2.0)}, "blocks.1.hook_resid_post")
    cached = [list(continuations(model, prompt, some, 8, 1.0, 5)) for some in ([], hooks)]
    monkeypatch.setattr(model.adapter, "supports_kv_cache", False)
    assert [list(continuations(model, prompt, some, 8, 1.0, 5)) for some in ([], hooks)] == cached


def test_a_session_runs_on_it(model: Any, texts: list[str]) -> None:
    acts = sw.ActivationStream(model, texts[:12], "blocks.1.hook_resid_post", context_size=32, batch_size=64)
    assert next(iter(acts)).shape == (64, 32)
    sae = sw.SAE(sw.SAEConfig(d_in=32, d_sae=64, k=4), acts.metadata)
    assert sw.evaluate(sae, model, texts[:2], max_tokens=100).n_tokens > 0
