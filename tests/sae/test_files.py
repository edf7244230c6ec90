"""SAE files: our own, and what sae-lens wrote (tests/interop/make_saelens_topk.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saewidgets.sae import SAE, SAEConfig, SAEMetadata, load_sae, save_sae
from saewidgets.sae.architectures import architectures, get_architecture
from saewidgets.sae.files import CFG, WEIGHTS

INTEROP = Path(__file__).parent.parent / "interop" / "saelens_topk"


@pytest.fixture
def sae() -> SAE:
    metadata = SAEMetadata(model_name="demo", hook_name="blocks.2.hook_resid_post", context_size=128, extra={"step": 9})
    sae = SAE(SAEConfig(d_in=12, d_sae=40, k=4, aux_k=5, seed=3), metadata)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        sae.b_enc.normal_(generator=generator)
        sae.b_dec.normal_(generator=generator)
        sae.input_scale.fill_(2.5)
    return sae


def x(d_in: int = 12) -> torch.Tensor:
    return torch.randn(20, d_in, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("form", ["plain", "rescaled", "no_b_dec"])
def test_sae_lens_files_give_what_sae_lens_computes(form: str) -> None:
    sae = load_sae(INTEROP / form)
    expected = load_file(INTEROP / form / "expected.safetensors")
    with torch.no_grad():
        assert (sae.encode(expected["x"]) - expected["f"]).abs().max() < 1e-6 * expected["f"].abs().max()
        assert (sae(expected["x"]) - expected["xhat"]).abs().max() < 1e-6 * expected["xhat"].abs().max()
    metadata = sae.metadata
    assert (metadata.model_name, metadata.hook_name, metadata.context_size) == ("tiny", "blocks.1.hook_resid_post", 64)
    assert metadata.extra["model_from_pretrained_kwargs"] == {"center_writing_weights": True}
    assert repr(sae) == "SAE(topk, d_in=16, d_sae=64, k=4, hook_name='blocks.1.hook_resid_post')"


def test_saved_and_loaded_it_is_the_same_function(sae: SAE, tmp_path: Path) -> None:
    folder = save_sae(sae, tmp_path / "deep" / "mine")
    loaded = load_sae(folder)
    assert torch.allclose(loaded.encode(x()), sae.encode(x()), atol=1e-6)
    assert torch.allclose(loaded(x()), sae(x()), atol=1e-6)
    assert float(loaded.input_scale) == 1 and float(sae.input_scale) == 2.5  # folded in the file, not in memory
    assert loaded.cfg == sae.cfg
    extra = dict(loaded.metadata.extra)
    assert extra.pop("sae_lens_version") == "6.0.0"
    assert loaded.metadata.replace(extra=extra) == sae.metadata
    again = load_sae(save_sae(loaded, tmp_path / "again"))
    assert again.fingerprint() == loaded.fingerprint() and again.metadata == loaded.metadata
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "deep"]  # no scratch folder stays


def test_half_precision_is_a_way_to_store(sae: SAE, tmp_path: Path) -> None:
    whole, half = save_sae(sae, tmp_path / "whole"), save_sae(sae, tmp_path / "half", dtype="float16")
    assert (half / WEIGHTS).stat().st_size < 0.6 * (whole / WEIGHTS).stat().st_size
    loaded = load_sae(half)
    assert loaded.dtype == torch.float32 and torch.allclose(loaded(x()), sae(x()), atol=1e-2)
    with pytest.raises(ValueError, match="dtype must be one of"):
        save_sae(sae, tmp_path / "other", dtype="int8")


def test_saving_again_replaces_the_files_and_leaves_others(sae: SAE, tmp_path: Path) -> None:
    folder = save_sae(sae, tmp_path / "mine")
    (folder / "notes.txt").write_text("keep")
    with torch.no_grad():
        sae.b_dec += 1
    assert torch.allclose(load_sae(save_sae(sae, folder)).b_dec, sae.b_dec / 2.5)
    assert sorted(p.name for p in folder.iterdir()) == sorted([CFG, WEIGHTS, "notes.txt"])


def test_a_write_that_fails_leaves_the_old_sae(sae: SAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_sae(sae, tmp_path / "mine")
    before = load_sae(folder).fingerprint()

    def full(*_: Any, **__: Any) -> int:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with torch.no_grad():
        sae.b_dec += 1
    with pytest.raises(OSError, match="No space left"):
        save_sae(sae, folder)
    assert load_sae(folder).fingerprint() == before and [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(sae: SAE, tmp_path: Path) -> None:
    folder = save_sae(sae, tmp_path / "mine")
    tensors = load_file(folder / WEIGHTS)
    tensors["W_dec"][3, 4] = float("nan")
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match="W_dec holds NaN or infinities"):
        load_sae(folder)
    with torch.no_grad():
        sae.W_enc[0, 0] = float("inf")
    with pytest.raises(ValueError, match="W_enc holds NaN or infinities as float32"):
        save_sae(sae, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def edit_cfg(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    cfg = json.loads((folder / CFG).read_text())
    change(cfg)
    (folder / CFG).write_text(json.dumps(cfg))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda cfg: cfg.update(k=41), "k is 41, but there are only 40 features"),
        (lambda cfg: cfg.update(architecture="nosuch"), "it holds a 'nosuch' SAE, which is not one of"),
        (lambda cfg: cfg["metadata"]["saewidgets"].update(k=3, multi_k=99), "multi_k must be above k"),
        (lambda cfg: cfg["metadata"]["saewidgets"].update(p_final=0.5), "'topk' does not use p_final"),
        (lambda cfg: cfg["metadata"]["saewidgets"].update(architecture="mine"), "no architecture 'mine'"),
        (
            lambda cfg: cfg.update(normalize_activations="expected_average_only_in"),
            "normalised .'expected_average_only_in'",
        ),
        (lambda cfg: cfg.update(d_in=13), r"W_dec has shape \(40, 12\), but its config says \(40, 13\)"),
        (lambda cfg: cfg.pop("d_sae"), "has no d_sae"),
        (lambda cfg: cfg.pop("k"), "has no k"),
    ],
)
def test_configs_that_cannot_be_read(
    sae: SAE, tmp_path: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    folder = save_sae(sae, tmp_path / "mine")
    edit_cfg(folder, change)
    with pytest.raises(ValueError, match=sentence) as error:
        load_sae(folder)
    assert str(error.value).startswith(f"Cannot read the SAE in {folder}")


def test_damaged_and_missing_files(sae: SAE, tmp_path: Path) -> None:
    folder = save_sae(sae, tmp_path / "mine")
    whole = (folder / WEIGHTS).read_bytes()
    for size in (len(whole) // 2, 4, 0):
        (folder / WEIGHTS).write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged or cut off"):
            load_sae(folder)
    tensors = load_file(INTEROP / "plain" / WEIGHTS)
    save_file({name: t for name, t in tensors.items() if name != "b_enc"}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="has no b_enc"):
        load_sae(folder)
    (folder / CFG).write_text('{"d_in": 12,')
    with pytest.raises(ValueError, match="not JSON, or is cut off"):
        load_sae(folder)
    (folder / CFG).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {CFG}"):
        load_sae(folder)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_sae(tmp_path / "nowhere")


def test_pickles_are_refused_and_a_file_is_no_folder(sae: SAE, tmp_path: Path) -> None:
    pickle = tmp_path / "ae.pt"
    pickle.write_bytes(b"cos\nsystem\n")
    with pytest.raises(FileNotFoundError, match="Pickled weights are never loaded"):
        load_sae(pickle)
    with pytest.raises(ValueError, match="is a file; save_sae writes a folder"):
        save_sae(sae, pickle)
    with pytest.raises(TypeError, match="needs an SAE"):
        save_sae(sae.state_dict(), tmp_path / "mine")  # type: ignore[arg-type]


CHOICES: dict[str, dict[str, Any]] = {
    "topk": {"multi_k": 9},
    "matryoshka": {"matryoshka_widths": (8, 40)},
    "jumprelu": {"penalty": "tanh", "bandwidth": 0.25},
    "p_anneal": {"p_final": 0.5},
    "relu_kl": {"target_rate": 0.1},
    "dense": {"activation": "sigmoid"},
    "transcoder": {"d_out": 9},
    "skip_transcoder": {"d_out": 9},
}
LENS_NAMES = {
    "topk": "topk", "abstopk": "abstopk", "relu": "standard", "relu_kl": "standard", "p_anneal": "standard",
    "jumprelu": "jumprelu", "batchtopk": "jumprelu", "matryoshka": "jumprelu", "gated": "gated",
}  # fmt: skip


def filled(name: str, **options: Any) -> SAE:
    """An SAE with random weights and scales that are not 1."""
    k = {"k": 4} if "k" in (get_architecture(name).reads or ()) else {}
    sae = SAE(SAEConfig(d_in=12, d_sae=40, architecture=name, seed=3, **k, **CHOICES.get(name, {}), **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for buffer_name, buffer in sae.named_buffers():
            buffer.copy_(0.5 + 0.5 * torch.rand(buffer.shape, generator=generator))
            if buffer_name.endswith("_scale"):
                buffer.mul_(3)
        if name == "matching_pursuit":
            sae.W_enc.copy_(sae.W_dec.t())
    return sae


@pytest.mark.parametrize("name", [n for n in architectures() if "saewidgets" in type(get_architecture(n)).__module__])
def test_every_architecture_is_the_same_function_when_loaded(name: str, tmp_path: Path) -> None:
    sae = filled(name)
    f, xhat = sae.encode(x()), sae(x())
    folded = sae.clone()
    assert torch.allclose(folded.encode(x()), f, atol=1e-5) and torch.allclose(folded(x()), xhat, atol=1e-5)
    loaded = load_sae(save_sae(sae, tmp_path / "mine"))
    assert (f != 0).any() and xhat.shape == (20, sae.cfg.d_out or 12)
    assert loaded.cfg == sae.cfg
    assert torch.allclose(loaded.encode(x()), f, atol=1e-5) and torch.allclose(loaded(x()), xhat, atol=1e-5)
    assert load_sae(save_sae(loaded, tmp_path / "again")).fingerprint() == loaded.fingerprint()
    half = load_sae(save_sae(sae, tmp_path / "half", dtype="float16"))
    assert torch.allclose(half(x()), xhat, atol=0.2)
    cfg = json.loads((tmp_path / "mine" / CFG).read_text())
    assert cfg["architecture"] == LENS_NAMES.get(name, f"saewidgets_{name}")
    if name in LENS_NAMES:  # sae-lens refuses a tensor that it does not know
        biases = {"gated": {"b_gate", "b_mag", "r_mag"}, "jumprelu": {"b_enc", "threshold"}}
        expected = {"W_enc", "W_dec", "b_dec"} | biases.get(LENS_NAMES[name], {"b_enc"})
        assert load_file(tmp_path / "mine" / WEIGHTS).keys() == expected


@pytest.mark.parametrize("name", [n for n in architectures() if "saewidgets" in type(get_architecture(n)).__module__])
def test_options_that_are_as_by_default_come_back_too(name: str, tmp_path: Path) -> None:
    sae = SAE(SAEConfig(d_in=12, d_sae=40, architecture=name))
    assert load_sae(save_sae(sae, tmp_path / "mine")).cfg == sae.cfg


@pytest.mark.parametrize("normalize", ["unit_norm", "constant_norm", "layer_norm", "none"])
def test_vectors_brought_to_size_one_by_one_are_brought_back(normalize: str, tmp_path: Path) -> None:
    sae = filled("relu", normalize=normalize)
    stretched = x() * torch.linspace(0.1, 30, 20).unsqueeze(1)
    xhat = sae(stretched)
    loaded = load_sae(save_sae(sae, tmp_path / "mine"))
    assert loaded.cfg.normalize == normalize
    assert torch.allclose(loaded(stretched), xhat, rtol=1e-4, atol=1e-4)
    if normalize == "none":
        return
    size = stretched.norm(dim=1) / 12**0.5 if normalize != "layer_norm" else stretched.std(1) + 1e-5
    shift = stretched.mean(1) if normalize == "layer_norm" else torch.zeros(20)
    sized = (stretched - shift.unsqueeze(1)) / size.unsqueeze(1) * sae.input_scale
    f = ((sized - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    expected = (f @ sae.W_dec + sae.b_dec) / sae.input_scale * size.unsqueeze(1) + shift.unsqueeze(1)
    assert torch.allclose(xhat, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=rf"size by itself \({normalize}\): decode needs the vectors"):
        sae.decode(sae.encode(stretched))
    cfg = json.loads((tmp_path / "mine" / CFG).read_text())
    assert cfg["normalize_activations"] == ("layer_norm" if normalize == "layer_norm" else "constant_norm_rescale")


def test_a_standard_sae_of_sae_lens_is_a_relu(sae: SAE, tmp_path: Path) -> None:
    folder = save_sae(sae, tmp_path / "mine")

    def foreign(cfg: dict[str, Any]) -> None:
        del cfg["metadata"]["saewidgets"], cfg["k"]
        cfg.update(architecture="standard", apply_b_dec_to_input=False)

    edit_cfg(folder, foreign)
    loaded, weights = load_sae(folder), load_file(folder / WEIGHTS)
    assert repr(loaded) == "SAE(relu, d_in=12, d_sae=40, hook_name='blocks.2.hook_resid_post')"
    expected = (x() @ weights["W_enc"] + weights["b_enc"]).relu()
    assert torch.allclose(loaded.encode(x()), expected, atol=1e-5)


def test_a_checkpoint_of_batchtopk_brings_its_threshold(sae: SAE, tmp_path: Path) -> None:
    folder = save_sae(sae, tmp_path / "mine")

    def foreign(cfg: dict[str, Any]) -> None:
        del cfg["metadata"]["saewidgets"]
        cfg.update(architecture="batchtopk", k=4.0)

    edit_cfg(folder, foreign)
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "topk_threshold": torch.tensor(1.5, dtype=torch.float64)}, folder / WEIGHTS)
    loaded = load_sae(folder)
    h = (x() - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    assert loaded.cfg.k == 4 and torch.allclose(loaded.encode(x()), h * (h > 1.5), atol=1e-5)
