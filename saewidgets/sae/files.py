"""Reading and writing SAEs. One row of `FORMATS` per layout; so far SAELens: cfg.json, sae_weights.safetensors"""

from __future__ import annotations

import dataclasses
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

from saewidgets.sae.architectures import Architecture, get_architecture
from saewidgets.sae.config import SAEConfig, SAEMetadata
from saewidgets.sae.normalize import BY_ITSELF
from saewidgets.sae.sae import SAE

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAE_LENS_VERSION = "6.0.0"
"""The layout's version. Below 6.0.0 sae-lens would throw the metadata away."""

EMBEDDED = Path(str(files("saewidgets") / "models" / "demo" / "data" / "sae"))
"""The SAE that comes with the demo model."""

OURS = "saewidgets"
"""Entry of the metadata that holds what SAELens has no field for: our architecture's name and its options."""

HAS_K = ("topk", "abstopk")
"""Architectures of SAELens whose cfg.json has a k."""

READ_AS = {
    "standard": "relu",
    "topk": "topk",
    "abstopk": "abstopk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "batchtopk": "batchtopk",
}
"""Architectures of sae-lens, and ours that compute the same."""

NORMALIZE = {"none": "expected_norm", "layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}
"""SAELens's names of how the input is brought to size, and ours; a shared factor is in the weights."""

ARCHITECTURE_PREFIX = "saewidgets_"
"""Before the name of an architecture that SAELens does not have, so that its library refuses it by name."""

FULL = ("threshold",)
"""Tensors that are never stored in half precision: a feature's threshold decides whether it is active at all."""

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
    """The file's tensors and its config to the tensors that the architecture's `load` wants."""


def _sae_lens_config(cfg: Mapping[str, Any]) -> SAEConfig:
    ours = dict(cfg.get("metadata", {}).get(OURS, {}))
    theirs = cfg.get("architecture", "standard")
    name = saved_by_us = ours.pop("architecture", None)
    if name is None or _saved_as(get_architecture(name)) != theirs:
        name = READ_AS.get(theirs)
    if name is None:
        raise ValueError(
            f"it holds a {theirs!r} SAE, which is not one of those that can be read: {', '.join(READ_AS)}."
        )
    normalisation = cfg.get("normalize_activations", "none")
    if normalisation not in NORMALIZE:
        raise ValueError(
            f"it wants its input normalised ({normalisation!r}) by a factor that the files do not hold. "
            "Fold the factor into the weights where the SAE was trained, and save it again."
        )
    if normalisation != "none":
        ours.setdefault("normalize", NORMALIZE[normalisation])
    reads = get_architecture(name).reads
    if reads is None or "k" in reads:
        # elsewhere than in HAS_K ours keep k with their own options, and leave out those that are as by default
        if "k" not in cfg and "k" not in ours and (saved_by_us is None or theirs in HAS_K):
            raise ValueError("its cfg.json has no k.")
        if "k" in cfg:
            # sae-lens keeps the k of a batch as a float
            ours["k"] = int(cfg["k"]) if isinstance(cfg["k"], float) else cfg["k"]
    if reads is not None and "d_out" in reads and "d_out" in cfg:
        ours["d_out"] = cfg["d_out"]
    # half precision is a way to store: a CPU computes in float32
    dtype = "float64" if cfg.get("dtype") == "float64" else "float32"
    return SAEConfig(d_in=cfg["d_in"], d_sae=cfg["d_sae"], architecture=name, dtype=dtype, **ours)


def _sae_lens_metadata(cfg: Mapping[str, Any]) -> SAEMetadata:
    metadata = {name: value for name, value in cfg.get("metadata", {}).items() if name != OURS}
    return SAEMetadata.from_dict(metadata)


def _sae_lens_tensors(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    """What sae-lens computes in other ways than we do, brought to our form; names stay those of the layout."""
    weights = dict(tensors)
    if "topk_threshold" in weights:  # a training checkpoint of batchtopk
        weights["threshold"] = weights.pop("topk_threshold").expand(weights["W_enc"].shape[1])
    if not cfg.get("apply_b_dec_to_input", True) and cfg.get("d_out") is None:
        shift = weights["b_dec"] @ weights["W_enc"]
        for name in ("b_enc", "b_gate"):
            if name in weights:
                weights[name] = weights[name] + shift
        if "b_mag" in weights:
            weights["b_mag"] = weights["b_mag"] + shift * weights["r_mag"].exp()
    if cfg.get("rescale_acts_by_decoder_norm", False):
        # its selection is from h ||W_dec||, its decoder W_dec / ||W_dec||: the same with the norms in the encoder
        norms = weights["W_dec"].norm(dim=1)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norms, weights["b_enc"] * norms
        weights["W_dec"] = weights["W_dec"] / norms.clamp_min(torch.finfo(norms.dtype).tiny).unsqueeze(1)
    return weights


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
        sae = SAE(cfg, layout.metadata(raw), device)
        tensors = layout.tensors(_read_tensors(folder / layout.weights_file), raw)
        with torch.no_grad():
            sae.architecture.load(sae, _checked(tensors, sae, layout.weights_file))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Cannot read the SAE in {folder}: its {layout.config_file} is not JSON, or is cut off ({error})."
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"Cannot read the SAE in {folder}: {error}") from error
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
        key: value.detach().to("cpu", STORED[name if key not in FULL else sae.cfg.dtype]).clone().contiguous()
        for key, value in sae.architecture.save(folded).items()
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


def _saved_as(architecture: Architecture) -> str:
    """What cfg.json calls it."""
    return architecture.saved_as or ARCHITECTURE_PREFIX + architecture.name


def _to_sae_lens(sae: SAE) -> dict[str, Any]:
    """cfg.json of the SAELens layout."""
    cfg, architecture = sae.cfg, sae.architecture
    ours = {
        option.name: getattr(cfg, option.name)
        for option in dataclasses.fields(cfg)
        if option.name not in ("d_in", "d_sae", "dtype", "d_out") and getattr(cfg, option.name) != option.default
    }
    has_k = architecture.saved_as in HAS_K
    if has_k:
        ours.pop("k", None)
    normalisation = {"layer_norm": "layer_norm"}.get(cfg.normalize, "constant_norm_rescale")
    written = {
        "architecture": _saved_as(architecture),
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": cfg.dtype,
        "device": "cpu",
        "apply_b_dec_to_input": not architecture.predicts_target,
        "normalize_activations": normalisation if cfg.normalize in BY_ITSELF else "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAE_LENS_VERSION,
            **sae.metadata.to_dict(),
            OURS: {"architecture": cfg.architecture, **ours},
        },
    }
    if cfg.d_out is not None:
        written["d_out"] = cfg.d_out
    if has_k:
        written |= {"k": cfg.k, "rescale_acts_by_decoder_norm": False}
    return written


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


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"its {file.name} is damaged or cut off ({error}).") from error


def _checked(tensors: Mapping[str, Tensor], sae: SAE, file_name: str) -> dict[str, Tensor]:
    """The tensors that the SAE's architecture saves, in the compute type; checked for names, shapes and values."""
    expected = {name: tuple(tensor.shape) for name, tensor in sae.architecture.save(sae).items()}
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ValueError(f"its {file_name} has no {', '.join(missing)}.")
    checked = {}
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"its {name} has shape {tuple(tensors[name].shape)}, but its config says {shape}.")
        checked[name] = tensors[name].to(sae.dtype)
        if not torch.isfinite(checked[name]).all():
            raise ValueError(f"its {name} holds NaN or infinities.")
    return checked
