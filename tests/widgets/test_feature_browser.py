"""The browser: its table as columns, its search, its choice of an index, what an exported page carries."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import traitlets

from saewidgets.features import FLAGS, FeatureIndex
from saewidgets.features.matching import Wanted
from saewidgets.widgets.feature_browser import (
    FOUND_RECORDED,
    SPARK_BINS,
    FeatureBrowser,
    FeatureBrowserView,
    spark_heights,
)

DEAD, DENSE, BRIDGE = 0, 1, 4


@pytest.fixture(scope="module")
def other_index(write_word_index: Callable[..., FeatureIndex]) -> FeatureIndex:
    return write_word_index("another", seed=1)


def test_the_table_holds_what_the_index_holds(word_index: FeatureIndex) -> None:
    view = FeatureBrowserView([word_index])
    result, buffers = view.table(word_index.name)
    expected = word_index.table()
    for place, name in enumerate(["density", "count", "max", "mean", "enc_dec_cosine"]):
        kind = "<i4" if name == "count" else "<f4"
        np.testing.assert_allclose(np.frombuffer(buffers[place], kind), expected[name], rtol=1e-6)
    flags = np.frombuffer(buffers[5], "u1")
    assert flags[DEAD] == 1 << list(FLAGS).index("dead")
    assert flags[DENSE] & 1 << list(FLAGS).index("dense")
    assert len(buffers[6]) == word_index.d_sae * SPARK_BINS == word_index.d_sae * result["bars"]
    json.dumps(result, allow_nan=False)


def test_top_tokens_come_back_exactly(word_index: FeatureIndex) -> None:
    _, buffers = FeatureBrowserView([word_index]).table(word_index.name)
    ends = np.cumsum(np.frombuffer(buffers[8], "<u2"))
    texts = [buffers[9][start:end].decode() for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    per_feature = np.frombuffer(buffers[7], "u1")
    first = per_feature[:BRIDGE].sum()
    assert texts[first : first + per_feature[BRIDGE]] == [" bridge"]
    assert per_feature[DEAD] == 0
    assert {"<script>alert(1)</script>", "\u202eabc", "C3", "\n"} <= set(texts)
    kinds = buffers[10]
    assert len(kinds) == len(texts)
    assert {text for text, kind in zip(texts, kinds, strict=True) if kind == 2} == {"C3"}


def test_small_histograms_show_what_is_there() -> None:
    heights = spark_heights(np.array([[0] * 40, [1_000_000] + [0] * 38 + [1]]))
    assert heights.dtype == np.uint8 and not heights[0].any()
    assert heights[1, 0] == 255 and heights[1, -1] > 0 and heights[1, 1:-1].sum() == 0


def test_search_is_the_index_s(word_index: FeatureIndex) -> None:
    view = FeatureBrowserView([word_index])
    result, (found,) = view.search(word_index.name, " bridge")
    assert np.frombuffer(found, "<i4")[0] == BRIDGE and result["message"] is None
    assert np.frombuffer(view.search(word_index.name, "#7")[1][0], "<i4").tolist() == [7]
    result, (found,) = view.search(word_index.name, "zebra")
    assert found == b"" and "no feature is active on a token that says 'zebra'" in result["message"]
    with pytest.raises(ValueError, match="it holds 0 to 29"):
        view.search(word_index.name, "#30")


@pytest.mark.parametrize("text", [" bridge", "BRIDGE", "e", ".", "script", "C3", "\n", "zebra"])
def test_what_a_page_carries_finds_what_the_index_finds(word_index: FeatureIndex, text: str) -> None:
    """The rule of matching.ts, on what the page gets, against `index.search`."""
    _, (counts, features, scores, lengths, texts, kinds) = FeatureBrowserView([word_index]).matches(word_index.name)
    ends = np.cumsum(np.frombuffer(lengths, "<u2"))
    place = np.repeat(np.arange(len(kinds)), np.frombuffer(counts, "<u2"))
    said = [texts[start:end].decode() for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    close = np.array([Wanted(text).closeness(word, kind > 0) for word, kind in zip(said, kinds, strict=True)])
    best: dict[int, float] = {}
    for feature, score in zip(np.frombuffer(features, "<i4"), close[place] * np.frombuffer(scores, "<f4"), strict=True):
        if score > 0:
            best[int(feature)] = max(best.get(int(feature), 0), score)
    ranked = sorted(best, key=lambda feature: (-best[feature], feature))[:FOUND_RECORDED]
    assert ranked == word_index.search(text, n=FOUND_RECORDED)["feature"].tolist()


def test_of_several_indexes_one_is_chosen_by_name(word_index: FeatureIndex, other_index: FeatureIndex) -> None:
    browser = FeatureBrowser([word_index, other_index, other_index], feature=BRIDGE, range=[1, 2])
    names = [word_index.name, other_index.name, f"{other_index.name} (2)"]
    assert browser._view.names == names and browser.index_name == names[0]
    assert browser.range == [1, 2]
    browser.index_name = names[1]
    assert browser.range is None
    assert browser.answer("feature", {"index": names[1], "feature": 3})[0]["feature"] == 3
    with pytest.raises(traitlets.TraitError, match="There is no index 'x' in this browser: it holds 'made up"):
        browser.index_name = "x"
    with pytest.raises(ValueError, match="There is no index 'x'"):
        browser.answer("table", {"index": "x"})


def test_what_does_not_exist_is_refused(word_index: FeatureIndex) -> None:
    with pytest.raises(ValueError, match="at least one index"):
        FeatureBrowser([])
    with pytest.raises(traitlets.TraitError, match="There is no feature #30"):
        FeatureBrowser(word_index, feature=30)
    with pytest.raises(traitlets.TraitError):
        FeatureBrowser(word_index, sort="beauty")
    with pytest.raises(traitlets.TraitError, match="There is no index 'x'"):
        FeatureBrowser(word_index, index_name="x")
    with pytest.raises(TypeError, match="no option 'sorted'"):
        FeatureBrowser(word_index, sorted="max")
    browser = FeatureBrowser(word_index, feature=0)
    assert browser.feature == 0
    with pytest.raises(traitlets.TraitError):
        browser.feature = -1
    assert browser.feature == 0


def test_a_page_carries_the_table_and_as_many_features_as_asked(word_index: FeatureIndex, tmp_path) -> None:
    browser = FeatureBrowser(word_index, feature=DENSE, recorded=3)
    taken = browser.snapshot()
    recorded = taken["state"]["_recorded"]
    assert len(recorded) == 4 and DENSE in recorded  # never more than asked for, beside the selected one
    assert {answer["params"].get("feature") for answer in taken["answers"]} == {None, *recorded}
    linked = set(word_index.similar(DENSE)["feature"])
    assert set(recorded) <= {DENSE, *linked}  # what the dashboard links to comes first
    assert {DENSE, *linked} <= set(FeatureBrowser(word_index, feature=DENSE, recorded=12).recorded_features())
    page = browser.to_html(tmp_path / "features.html")
    assert page.read_text("utf-8").count("<script") == 3


def test_it_says_what_it_shows_and_stays_the_same(word_index: FeatureIndex) -> None:
    assert repr(FeatureBrowser(word_index, feature=BRIDGE)) == (
        "FeatureBrowser(index_name='made up · blocks.0.hook_resid_post · 30…', feature=4)"
    )


def test_a_range_ends_with_its_index_though_the_number_stays(word_index: FeatureIndex) -> None:
    browser = FeatureBrowser([word_index, word_index], range=[1, 2])
    before = browser.feature
    browser.index_name = browser._view.names[1]
    assert browser.feature == before and browser.range is None
