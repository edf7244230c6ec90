"""The one rule of searching; js/src/feature_browser/matching.test.ts reads the same cases."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from saewidgets.features.matching import Wanted
from saewidgets.features.search import best_first

CASES = json.loads((Path(__file__).parent / "matching_cases.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES["tokens"], ids=lambda case: f"{case['text']!r} on {case['token']!r}")
def test_how_closely_a_token_matches(case: dict) -> None:
    assert Wanted(case["text"]).closeness(case["token"], case.get("whole", False)) == case["closeness"]


@pytest.mark.parametrize("case", CASES["numbers"], ids=lambda case: repr(case["text"]))
def test_which_feature_is_named(case: dict) -> None:
    wanted = Wanted(case["text"])
    assert (wanted.number, wanted.is_number_only) == (case["number"], case["only"])


@pytest.mark.parametrize("case", CASES["rankings"], ids=lambda case: repr(case["text"]))
def test_in_which_order_features_are_found(case: dict) -> None:
    """The part of a search behind the feature that is named; of those there are ten."""
    wanted = Wanted(case["text"])
    named = [wanted.number] if wanted.number is not None and wanted.number < 10 else []
    found = [
        (feature, score * wanted.closeness(token["token"], token.get("whole", False)))
        for token in case["tokens"]
        for feature, score in token["features"]
    ]
    ranked = best_first(pd.DataFrame([row for row in found if row[1] > 0], columns=["feature", "score"]))
    rest = [] if wanted.is_number_only else [feature for feature in ranked["feature"] if feature not in named]
    assert [*named, *rest] == case["ranked"]
