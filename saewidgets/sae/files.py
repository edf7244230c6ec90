"""Reading and writing SAEs. One row of `FORMATS` per layout; so far SAELens: cfg.json, sae_weights.safetensors"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from saewidgets.sae.architectures import get_architecture
from saewidgets.sae.config import SAEConfig, SAEMetadata
from saewidgets.sae.sae import SAE

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAE_LENS_VERSION = "6.0.0"
"""The layout's version. Below 6.0.0 sae-lens would throw the metadata away."""

EMBEDDED = Path(str(files("saewidgets") / "models" / "demo" / "data" / "sae"))
"""The SAE that comes with the demo model."""

OURS = "saewidgets"
"""Entry of the metadata that holds what SAELens has no field for: AuxK and the seed."""

STORED = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


@dataclass(frozen=True)
class Format:
    """A layout of SAE files: how to know it, and how to turn it into our weights."""

    name: str
    config_file: str
    weights_file: str
    config: Callable[[Mapping[str, Any]], SAEConfig]
    metadata: Callable[[Mapping[str, Any]], SAEMetadata]
    tensors: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Tensor]]
    """The file's tensors and its config to W_enc, b_enc, W_dec, b_dec as `SAE` means them."""


def _sae_lens_config(cfg: Mapping[str, Any]) -> SAEConfig:
    architecture = cfg.get("architecture", "standard")
    if architecture == "standard":
        raise ValueError("it holds a `standard` SAE (relu, no k); only `topk` can be read so far.")
    normalisation = cfg.get("normalize_activations", "none")
    if normalisation != "none":
        raise ValueError(
            f"it wants its input normalised ({normalisation!r}) by a factor that the files do not hold. "
            "Fold the factor into the weights where the SAE was trained, and save it again."
        )
    ours = cfg.get("metadata", {}).get(OURS, {})
    if "k" not in cfg:
        raise ValueError("its cfg.json has no k.")
    return SAEConfig(
        d_in=cfg["d_in"],
        d_sae=cfg["d_sae"],
        architecture=architecture,
        k=cfg["k"],
        aux_k=ours.get("aux_k"),
        aux_coefficient=ours.get("aux_coefficient", 1 / 32),
        # half precision is a way to store: a CPU computes in float32
        dtype="float64" if cfg.get("dtype") == "float64" else "float32",
        seed=ours.get("seed", 0),
    )


def _sae_lens_metadata(cfg: Mapping[str, Any]) -> SAEMetadata:
    metadata = {name: value for name, value in cfg.get("metadata", {}).items() if name != OURS}
    return SAEMetadata.from_dict(metadata)


def _sae_lens_tensors(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    W_enc, b_enc, W_dec, b_dec = (tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if not cfg.get("apply_b_dec_to_input", True):
        b_enc = b_enc + b_dec @ W_enc
    if cfg.get("rescale_acts_by_decoder_norm", False):
        # its top-k is of h ||W_dec||, its decoder W_dec / ||W_dec||: the same with the norms in the encoder
        norms = W_dec.norm(dim=1)
        W_enc, b_enc = W_enc * norms, b_enc * norms
        W_dec = W_dec / norms.clamp_min(torch.finfo(W_dec.dtype).tiny).unsqueeze(1)
    return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}


FORMATS = (Format("SAELens", CFG, WEIGHTS, _sae_lens_config, _sae_lens_metadata, _sae_lens_tensors),)


def load_sae(path: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu") -> SAE:
    """Read an SAE from a folder in the SAELens layout; None reads the one that comes with the demo model.

    Half-precision weights are computed with in float32. Decoder norms (`rescale_acts_by_decoder_norm`) are
    folded into the encoder: the same function, with feature activations in the units of the input.

    Raises FileNotFoundError for a path without such files, and ValueError for files that are cut off, of
    another shape than their config says, not finite, or in a form that cannot be read; each as a sentence.
    """
    folder = EMBEDDED if path is None else Path(path)
    if folder.is_file() and folder.name in (CFG, WEIGHTS):
        folder = folder.parent
    layout = _recognise(folder)
    try:
        raw = json.loads((folder / layout.config_file).read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ValueError(f"its {layout.config_file} is not a JSON object.")
        missing = [name for name in ("d_in", "d_sae") if name not in raw]
        if missing:
            raise ValueError(f"its {layout.config_file} has no {' and no '.join(missing)}.")
        cfg = layout.config(raw)
        stored = _read_tensors(folder / layout.weights_file, cfg)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Cannot read the SAE in {folder}: its {layout.config_file} is not JSON, or is cut off ({error})."
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"Cannot read the SAE in {folder}: {error}") from error
    sae = SAE(cfg, layout.metadata(raw), device)
    with torch.no_grad():
        for name, tensor in layout.tensors(stored, raw).items():
            getattr(sae, name).copy_(tensor)
    return sae


def save_sae(sae: SAE, path: str | os.PathLike[str], dtype: str | None = None) -> Path:
    """Write an SAE to the folder `path` in the SAELens layout, which sae-lens reads too. Gives back the path.

    The input scale is folded into the biases. `dtype`: how the weights are stored, "float16" or "bfloat16" to
    halve the file; None is the SAE's own. A new folder appears whole or not at all; in one that exists, each
    of the two files is replaced whole, and nothing else is touched.

    Raises ValueError for weights that are not finite (also in `dtype`) or an unknown dtype, TypeError for
    something that is not an SAE.
    """
    if not isinstance(sae, SAE):
        raise TypeError(f"save_sae needs an SAE, got {type(sae).__name__}.")
    name = dtype or sae.cfg.dtype
    if name not in STORED:
        raise ValueError(f"save_sae: dtype must be one of {', '.join(STORED)}, got {dtype!r}.")
    folded = sae.clone().fold_()
    tensors = {
        key: getattr(folded, key).detach().to("cpu", STORED[name]).contiguous()
        for key in ("W_enc", "b_enc", "W_dec", "b_dec")
    }
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{key} holds NaN or infinities as {name}: this SAE is not saved.")
    cfg = json.dumps(_to_sae_lens(folded), indent=2)

    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; save_sae writes a folder. Choose another path.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        # not save_file: it makes files that only their owner can read
        (scratch / WEIGHTS).write_bytes(save(tensors))
        (scratch / CFG).write_text(cfg + "\n", encoding="utf-8")
        if folder.exists():
            for file in (WEIGHTS, CFG):
                os.replace(scratch / file, folder / file)
        else:
            os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _to_sae_lens(sae: SAE) -> dict[str, Any]:
    """cfg.json of the SAELens layout."""
    cfg = sae.cfg
    ours = {"aux_k": cfg.aux_k, "aux_coefficient": cfg.aux_coefficient, "seed": cfg.seed}
    return {
        "architecture": get_architecture(cfg.architecture).name,
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "k": cfg.k,
        "dtype": cfg.dtype,
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": SAE_LENS_VERSION, **sae.metadata.to_dict(), OURS: ours},
    }


def _recognise(folder: Path) -> Format:
    """The row of FORMATS that the folder's files belong to."""
    for layout in FORMATS:
        if (folder / layout.config_file).is_file() and (folder / layout.weights_file).is_file():
            return layout
    if not folder.exists():
        raise FileNotFoundError(f"There is no SAE at {folder}: the path does not exist.")
    if folder.is_file():
        hint = " Pickled weights are never loaded: they can run code." if folder.suffix in (".pt", ".pth") else ""
        raise FileNotFoundError(f"{folder} is a file; a folder with {CFG} and {WEIGHTS} was expected.{hint}")
    missing = [name for name in (CFG, WEIGHTS) if not (folder / name).is_file()]
    raise FileNotFoundError(
        f"There is no SAE in {folder}: it has no {' and no '.join(missing)}. The SAELens layout was expected."
    )


def _read_tensors(file: Path, cfg: SAEConfig) -> dict[str, Tensor]:
    """The four weight tensors in the compute type; checked for names, shapes and values."""
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"its {file.name} is damaged or cut off ({error}).") from error
    d_in, d_sae = cfg.d_in, cfg.d_sae
    expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ValueError(f"its {file.name} has no {', '.join(missing)}.")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"its {name} has shape {tuple(tensors[name].shape)}, but its config says {shape}.")
        tensors[name] = tensors[name].to(getattr(torch, cfg.dtype))
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"its {name} holds NaN or infinities.")
    return {name: tensors[name] for name in expected}
