"""Booting a model: the embedded one, a folder, a `.gguf` file, or a name that TransformerLens knows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from saewidgets.models.lock import share
from saewidgets.progress import Report, reporting

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EMBEDDED_NAME = "saewidgets-demo"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_model(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    on_progress: Report | None = None,
) -> TransformerBridge:
    """Boot a model as a `TransformerBridge` that threads may share.

    Args:
        name: None for the embedded model; a folder in the Hugging Face layout; a `.gguf` file (converted once to
            ~/.cache/saewidgets, needs the `gguf` extra); or any name that TransformerLens boots. Only a name may
            reach for the network.
        device: "cuda", "mps" or "cpu"; the first of these that the machine has, by default.
        dtype: What the weights are cast to.
        on_progress: Called with what is being done and the share of it that is done (0 to 1), at last with "done";
            by default a bar is shown under IPython, except for the embedded model, which is there at once.

    The weights are the raw ones of the checkpoint; `model.enable_compatibility_mode()` folds LayerNorm.

    Raises:
        ValueError: an unknown name, device or dtype.
        FileNotFoundError: no such folder or file, or one that lacks its configuration, weights or tokenizer.
        ConnectionError: the name is not in the local cache and the hub does not answer.
        RuntimeError: the `gguf` extra is missing.
    """
    wanted = _dtype(dtype)
    placed = _device(device)
    with reporting(f"Loading {name}", on_progress or (_quiet if name is None else None)) as report:
        report("Starting TransformerLens", 0.0)
        model = _find(name, placed, wanted, report)
    if model.tokenizer is not None:
        # padding on the left shifts every position; generate() pads on the left by itself where it must
        model.tokenizer.padding_side = "right"
    shared: TransformerBridge = share(model)
    return shared


def _find(name: str | Path | None, device: torch.device, dtype: torch.dtype, report: Report) -> TransformerBridge:
    if name is None:
        with as_file(files("saewidgets") / "models" / "demo" / "data" / "model") as folder:
            return _boot_folder(folder, EMBEDDED_NAME, device, dtype, report)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return _boot_folder(_converted(path, report), path.stem, device, dtype, report)
    if path.is_dir():
        return _boot_folder(path, path.resolve().name, device, dtype, report)
    if isinstance(name, Path) or str(name).startswith(("/", "./", "../", "~")) or path.exists():
        raise FileNotFoundError(
            f"{str(name)!r} is not a folder. A local model is a folder with config.json, the weights and the "
            "tokenizer, or a .gguf file."
        )
    return _boot_name(str(name), device, dtype, report)


def _quiet(phase: str, share_done: float) -> None:
    """Hear and say nothing."""


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"Unknown dtype {dtype!r}; expected 'float32', 'bfloat16' or 'float16'.")
    return found


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        placed = torch.device(device)
    except RuntimeError:
        raise ValueError(f"Unknown device {device!r}; expected 'cuda', 'mps' or 'cpu'.") from None
    missing = placed.type == "cuda" and not torch.cuda.is_available()
    if missing or placed.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"This machine has no {placed.type!r} device that torch can use; pass device='cpu'.")
    return placed


def _boot_folder(
    folder: Path, name: str, device: torch.device, dtype: torch.dtype, report: Report
) -> TransformerBridge:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"The folder {str(folder)!r} is no model: it holds no config.json. Expected the Hugging Face layout, as "
            "model.save_pretrained(folder) and tokenizer.save_pretrained(folder) write it."
        )
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise FileNotFoundError(
            f"The model folder {str(folder)!r} has no tokenizer (looked for {', '.join(_TOKENIZER_FILES)}). Save the "
            "tokenizer that the model was trained with into it: tokenizer.save_pretrained(folder)."
        )
    try:
        with _offline():
            return _boot(str(folder), name, device, dtype, report)
    except Exception as error:
        if "no file named" in str(error):
            raise FileNotFoundError(
                f"The model folder {str(folder)!r} has no weights. Expected model.safetensors beside its config.json."
            ) from error
        if type(error).__name__ == "SafetensorError":
            raise ValueError(
                f"The weights in {str(folder)!r} cannot be read ({error}). Is the file cut off? Copy it again."
            ) from error
        raise ValueError(f"TransformerLens cannot boot the model in {str(folder)!r}: {error}") from error


def _boot_name(name: str, device: torch.device, dtype: torch.dtype, report: Report) -> TransformerBridge:
    try:
        return _boot(name, name, device, dtype, report)
    except (OSError, ValueError) as error:
        said = str(error)
        if any(sign in said for sign in ("connect to", "offline mode", "Connection", "resolve")):
            raise ConnectionError(
                f"The model {name!r} is not in the local cache, and the model hub cannot be reached. Check the "
                "network, pass a local folder, or use the embedded model: sw.load_model()."
            ) from error
        if "is not a local folder" in said or "not a valid model identifier" in said or "Repo id" in said:
            raise ValueError(
                f"There is no model {name!r}: it is neither a local folder nor a name on the model hub. Names look "
                "like 'gpt2' or 'EleutherAI/pythia-70m'; sw.load_model() is the embedded model."
            ) from error
        raise


def _boot(source: str, name: str, device: torch.device, dtype: torch.dtype, report: Report) -> TransformerBridge:
    from transformer_lens.model_bridge import TransformerBridge

    report("Loading the weights", 0.4)
    with _silent():
        model = TransformerBridge.boot_transformers(source, device=device, dtype=dtype)
    model.cfg.model_name = name
    return model


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bar on a stream: it would end up in the outputs of a committed notebook."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's own offline switch, for as long as local files are read."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _converted(path: Path, report: Report) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}. Expected the path of a .gguf file.")
    missing = [extra for extra in ("gguf", "accelerate") if importlib.util.find_spec(extra) is None]
    if missing:
        raise RuntimeError(
            f"Reading a .gguf file needs the package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}. "
            'Install the extra: pip install "saewidgets[gguf]".'
        )
    from saewidgets.models.gguf import convert

    with _silent(), _offline():
        return convert(path, report)
