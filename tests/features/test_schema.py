"""Folders that do not open, and why."""

from __future__ import annotations

import json
import shutil

import pytest

from saewidgets.features import FeatureIndex


@pytest.fixture
def copy(index, tmp_path):
    shutil.copytree(index.path, tmp_path / "copy")
    return tmp_path / "copy"


def edit(folder, **changes):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **changes}))


def test_a_copy_opens(copy, index):
    assert FeatureIndex.open(copy).table().equals(index.table())


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        FeatureIndex.open(tmp_path / "nowhere")


def test_a_file_or_another_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="is a file; a feature index is a folder"):
        FeatureIndex.open(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"is not a feature index: it has no meta.json"):
        FeatureIndex.open(tmp_path)
    (tmp_path / "meta.json").write_text('{"format": "something"}')
    with pytest.raises(ValueError, match="belongs to something else"):
        FeatureIndex.open(tmp_path)


def test_an_unfinished_build(copy):
    (copy / "meta.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is unfinished: .*build it again"):
        FeatureIndex.open(copy)


def test_a_newer_format(copy):
    edit(copy, format_version=99)
    with pytest.raises(ValueError, match="format version 99, this saewidgets reads up to 1; upgrade"):
        FeatureIndex.open(copy)


def test_damaged_folders(copy):
    edit(copy, d_sae="many")
    with pytest.raises(ValueError, match="lacks a valid 'd_sae'"):
        FeatureIndex.open(copy)
    edit(copy, d_sae=40)
    whole = (copy / "activations.parquet").read_bytes()
    (copy / "activations.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"is damaged: activations.parquet cannot be read"):
        FeatureIndex.open(copy)
    (copy / "activations.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"is incomplete: activations.parquet is missing"):
        FeatureIndex.open(copy)
    (copy / "meta.json").write_text("{not json")
    with pytest.raises(ValueError, match="cannot be read"):
        FeatureIndex.open(copy)
