"""What is built for others to install: the JavaScript and the demo data are inside, the tests are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA_LIMIT = 22_000_000  # bytes of model, SAE, tokenizer and text together, as the wheel packs them


def build(source: Path, kind: str, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(target), str(source)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    done = build(ROOT, "wheel", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_the_wheel_holds_every_bundle(wheel: zipfile.ZipFile) -> None:
    views = {path.parent.name for path in (ROOT / "js" / "src").glob("*/index.ts*")}
    static = "saewidgets/widgets/static/"
    inside = {name.removeprefix(static) for name in wheel.namelist() if name.startswith(static)}
    assert inside == {f"{view}.js" for view in views}


def test_the_wheel_holds_the_demo_data_within_its_limit(wheel: zipfile.ZipFile) -> None:
    data = "saewidgets/models/demo/data/"
    packed = {
        info.filename.removeprefix(data): info.compress_size
        for info in wheel.infolist()
        if info.filename.startswith(data)
    }
    weights = {"model/model.safetensors", "sae/sae_weights.safetensors"}
    assert weights | {"model/tokenizer.json", "text/train.txt", "text/held_out.txt"} <= set(packed)
    assert sum(packed.values()) <= DATA_LIMIT


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"saewidgets"}
    assert [name for name in wheel.namelist() if "__pycache__" in name or name.endswith((".tsx", ".partial"))] == []


def test_the_exporter_is_announced(wheel: zipfile.ZipFile) -> None:
    points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "saewidgets-html = saewidgets.widgets.nbconvert_exporter:" in wheel.read(points).decode()


def test_a_source_archive_builds_a_wheel_without_node(tmp_path: Path) -> None:
    """It carries the bundles, and no environment or package folder."""
    done = build(ROOT, "sdist", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    assert [name for name in names if "node_modules" in name or "/.venv/" in name or "/build/" in name] == []
    source = next(path for path in tmp_path.iterdir() if path.is_dir())
    done = build(source, "wheel", tmp_path, PATH=without_node(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_checkout_without_node_says_what_to_do(tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    for name in (
        "pyproject.toml",
        "hatch_build.py",
        "README.md",
        "LICENSE",
        "js/src",
        "js/build.mjs",
        "js/package-lock.json",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    (source / "saewidgets").mkdir()
    (source / "saewidgets" / "__init__.py").touch()
    done = build(source, "wheel", tmp_path, PATH=without_node(tmp_path))
    assert done.returncode != 0
    assert "install Node.js 20 or newer" in done.stdout + done.stderr


def without_node(folder: Path) -> str:
    """A PATH on which there is neither Node nor npm."""
    empty = folder / "bin"
    empty.mkdir(exist_ok=True)
    return str(empty)
