"""A small index of the embedded model and SAE, made once for all browser tests that look at features."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import saewidgets as sw


@cache
def folder() -> Path:
    """The folder of an index of 8,000 tokens; opened in a notebook with `FeatureIndex.open`."""
    path = Path(tempfile.mkdtemp(prefix="saewidgets-")) / "features"
    sw.FeatureIndex.build(sw.load_sae(), sw.load_model(), sw.load_texts()[:120], path, max_tokens=8_000)
    return path
