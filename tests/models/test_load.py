"""Booting models: the embedded one, a folder, a .gguf file, names; and what is said when that fails."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import saewidgets as sw
from saewidgets.models import gguf, to_ids, vocabulary_of


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to leave the machine fails, and is written down."""
    attempts: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


def test_the_embedded_model_needs_no_network_and_says_its_name(no_network: list[Any]) -> None:
    said: list[tuple[str, float]] = []
    model = sw.load_model(device="cpu", on_progress=lambda what, share: said.append((what, share)))
    assert not no_network
    assert type(model).__name__ == "TransformerBridge"
    assert model.cfg.model_name == "saewidgets-demo"
    assert {p.dtype for p in model.original_model.parameters()} == {torch.float32}
    assert model.tokenizer.padding_side == "right"
    assert said[-1] == ("done", 1.0)
    assert [share for _, share in said] == sorted(share for _, share in said)
    assert model.generate("Once upon a time", max_new_tokens=4, verbose=False).startswith("Once upon a time")


def test_the_embedded_model_boots_in_under_three_seconds_and_silently(
    demo_model: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    start = time.process_time()  # not the clock on the wall: a busy machine says nothing about us
    sw.load_model(device="cpu")
    assert time.process_time() - start < 3.0
    assert capfd.readouterr() == ("", "")


def test_a_folder_boots_without_network_in_the_dtype_asked_for(stories15m: Path, no_network: list[Any]) -> None:
    model = sw.load_model(str(stories15m), device="cpu")
    assert not no_network
    assert model.cfg.model_name == "stories15M"
    assert {p.dtype for p in model.original_model.parameters()} == {torch.float32}
    half = sw.load_model(stories15m, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in half.original_model.parameters()} == {torch.bfloat16}


def test_a_gguf_file_is_converted_once(smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(smollm2_gguf.parent))
    model = sw.load_model(smollm2_gguf, device="cpu")
    folder = gguf.cache_folder() / gguf.key_of(smollm2_gguf)
    assert folder.is_dir() and not list(folder.parent.glob(f"{folder.name}.*"))
    assert gguf.convert(smollm2_gguf, lambda what, share: pytest.fail("it was converted again")) == folder
    text = model.generate("The capital of France is", max_new_tokens=3, do_sample=False, verbose=False)
    assert " Paris" in text
    vocabulary = vocabulary_of(model)
    ids = to_ids(model, "naïve 漢字\n  x", prepend_bos=False)[0].tolist()
    assert b"".join(vocabulary.bytes_of(i) for i in ids).decode() == "naïve 漢字\n  x"


def test_a_broken_gguf_file_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ValueError, match="cannot be read as a language model"):
        sw.load_model(broken)
    assert not list(gguf.cache_folder().iterdir())


def test_the_gguf_extra_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(RuntimeError, match=r'needs the package gguf.*pip install "saewidgets\[gguf\]"'):
        sw.load_model(file)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("./nowhere", "is not a folder"),
        ("nowhere.gguf", "no file 'nowhere.gguf'"),
    ],
)
def test_missing_files_get_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(FileNotFoundError, match=sentence):
        sw.load_model(name)


def test_incomplete_folders_get_a_sentence(tmp_path: Path, stories15m: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config.json"):
        sw.load_model(tmp_path)
    shutil.copy(stories15m / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        sw.load_model(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(stories15m / file, tmp_path)
    with pytest.raises(FileNotFoundError, match="has no weights"):
        sw.load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((stories15m / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(ValueError, match="cannot be read"):
        sw.load_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "nonsense", "architectures": ["No"]}))
    with pytest.raises(ValueError, match="TransformerLens cannot boot"):
        sw.load_model(tmp_path)


def test_an_unreachable_hub_gets_a_sentence(no_network: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(ConnectionError, match="not in the local cache, and the model hub cannot be reached"):
        sw.load_model("someone/no-such-model")


def test_bad_devices_and_dtypes_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="Unknown dtype 'int8'"):
        sw.load_model(dtype="int8")
    with pytest.raises(ValueError, match="Unknown device 'gpu'"):
        sw.load_model(device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no 'cuda' device"):
            sw.load_model(device="cuda")


def test_texts_come_by_split(texts: list[str]) -> None:
    held_out = sw.load_texts(split="held_out")
    assert len(texts) == 200 and all(text.strip() for text in texts)
    assert held_out and not set(held_out) & set(sw.load_texts())
    assert not any("<|endoftext|>" in text for text in held_out)
    with pytest.raises(ValueError, match="no split 'test'.*'train' and 'held_out'"):
        sw.load_texts("test")


def test_a_bar_ends_when_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    said: list[tuple[str, float]] = []
    with pytest.raises(FileNotFoundError):
        sw.load_model(tmp_path / "nothing", on_progress=lambda *phase: said.append(phase))
    assert said[-1] == ("done", 1.0)
