"""The one rule of searching; js/src/feature_browser/matching.test.ts reads the same cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saewidgets.features.matching import Wanted

CASES = json.loads((Path(__file__).parent / "matching_cases.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES["tokens"], ids=lambda case: f"{case['text']!r} on {case['token']!r}")
def test_how_closely_a_token_matches(case: dict) -> None:
    assert Wanted(case["text"]).closeness(case["token"], case.get("whole", False)) == case["closeness"]


@pytest.mark.parametrize("case", CASES["numbers"], ids=lambda case: repr(case["text"]))
def test_which_feature_is_named(case: dict) -> None:
    wanted = Wanted(case["text"])
    assert (wanted.number, wanted.is_number_only) == (case["number"], case["only"])
