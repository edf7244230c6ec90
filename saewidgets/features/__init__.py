"""The feature index: which feature fires where, stored as Parquet, asked through DuckDB."""

from __future__ import annotations

from saewidgets.features.index import FeatureIndex
from saewidgets.features.sample import TextSample
from saewidgets.features.table import FLAGS

__all__ = ["FLAGS", "FeatureIndex", "TextSample"]
