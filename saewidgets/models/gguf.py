"""A `.gguf` file, converted once into a folder that loads fast."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

_ENDS = 4 * 1024 * 1024


def cache_folder() -> Path:
    """Where converted models are kept: ~/.cache/saewidgets/gguf, or below XDG_CACHE_HOME."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "saewidgets" / "gguf"


def key_of(path: Path) -> str:
    """A name for a file's content: its size and a hash of its first and last 4 MB."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        digest.update(file.read(_ENDS))
    return f"{path.stem}-{digest.hexdigest()[:16]}"


def convert(path: Path, report: Callable[[str, float], None]) -> Path:
    """Dequantise a `.gguf` file to float32 safetensors beside its tokenizer; the folder in the cache.

    The folder appears whole or not at all: it is written under another name and then renamed.

    Raises:
        ValueError: the file cannot be read as a model.
    """
    folder = cache_folder() / key_of(path)
    if folder.is_dir():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report("Converting the .gguf file (once; it is slow)", 0.05)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        source = {"gguf_file": path.name, "local_files_only": True}
        try:
            with _silent_conversion():
                model = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **source)
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **source)
        except Exception as error:
            raise ValueError(
                f"The file {str(path)!r} cannot be read as a language model ({error}). Is it whole, and of an "
                "architecture that transformers can read from .gguf?"
            ) from error
        # what was read is dequantised already; only these two marks keep it from being saved
        model.hf_quantizer = None
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


@contextmanager
def _silent_conversion() -> Iterator[None]:
    """No progress bar on a stream: transformers has no switch for this one."""
    from transformers import modeling_gguf_pytorch_utils as reader

    shown = reader.tqdm
    reader.tqdm = partial(shown, disable=True)
    try:
        yield
    finally:
        reader.tqdm = shown
