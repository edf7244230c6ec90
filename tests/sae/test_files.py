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
        (lambda cfg: cfg.update(architecture="nosuch"), "no architecture 'nosuch'"),
        (lambda cfg: cfg.update(architecture="standard"), "`standard` SAE"),
        (lambda cfg: cfg.update(normalize_activations="layer_norm"), "normalised .'layer_norm'"),
        (lambda cfg: cfg.update(d_in=13), r"W_enc has shape \(12, 40\), but its config says \(13, 40\)"),
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
