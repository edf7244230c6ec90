"""The dashboard: what its view model answers, what its traits refuse, what an exported page carries."""

from __future__ import annotations

import json
from collections.abc import Callable

import duckdb
import numpy as np
import pandas as pd
import pytest
import traitlets

from saewidgets.features import FeatureIndex
from saewidgets.widgets.feature_dashboard import FeatureDashboard
from saewidgets.widgets.feature_dashboard_view import (
    EXAMPLES,
    INTERVALS,
    PER_INTERVAL,
    FeatureDashboardView,
    most_telling,
)

DEAD, DENSE, BRIDGE, MARKUP = 0, 1, 4, 5


@pytest.fixture
def view(word_index: FeatureIndex) -> FeatureDashboardView:
    return FeatureDashboardView(word_index)


def unpacked(answer: tuple[dict, list[bytes]]) -> list[tuple[list[str], np.ndarray]]:
    """The texts and the activations of each example, as the browser reads them."""
    result, (places, active, strengths) = answer
    words = [result["texts"][place] for place in np.frombuffer(places, "<u2")]
    values = np.zeros(len(words), np.float32)
    values[np.frombuffer(active, "<i4")] = np.frombuffer(strengths, "<f4")
    ends = np.cumsum(result["lengths"])
    return [(words[end - n : end], values[end - n : end]) for end, n in zip(ends, result["lengths"], strict=True)]


def test_a_feature_is_told_as_the_index_knows_it(view: FeatureDashboardView, word_index: FeatureIndex) -> None:
    result, (counts, edges, logits, _) = view.feature(BRIDGE)
    row = word_index.row(BRIDGE)
    assert result["count"] == row["count"] == np.frombuffer(counts, "<i4").sum()
    assert result["max"] == pytest.approx(np.frombuffer(edges, "<f4")[-1])
    assert result["tokens"][0] == {"text": " bridge"}
    highs = [each["high"] for each in result["intervals"]]
    assert len(highs) == INTERVALS and highs == sorted(highs, reverse=True)
    assert sum(each["share"] for each in result["intervals"]) == pytest.approx(1)
    assert result["positive"] == [] and logits == b""  # this index holds no effect on logits


def test_flags_are_sentences(view: FeatureDashboardView) -> None:
    assert view.feature(DEAD)[0]["flags"] == ["dead: never active on the scanned tokens"]
    assert any(flag.startswith("dense: active on more than 10 %") for flag in view.feature(DENSE)[0]["flags"])


def test_everything_told_is_json(view: FeatureDashboardView, word_index: FeatureIndex) -> None:
    for feature in range(word_index.d_sae):
        for result, _ in (view.feature(feature), view.related(feature), view.examples(feature)):
            json.dumps(result, allow_nan=False)


def test_examples_carry_the_text_with_its_activations(view: FeatureDashboardView, word_index: FeatureIndex) -> None:
    answer = view.examples(BRIDGE)
    result = answer[0]
    examples = unpacked(answer)
    assert len(examples) == EXAMPLES["top"]
    peaks = [values[peak] for (_, values), peak in zip(examples, result["peaks"], strict=True)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == pytest.approx(word_index.row(BRIDGE)["max"])
    for (texts, values), peak, position in zip(examples, result["peaks"], result["positions"], strict=True):
        assert texts[0] == "<bos>" and peak == position  # the whole context
        assert texts[peak] == " bridge"
        assert all((value > 0) == (text == " bridge") for text, value in zip(texts, values, strict=True))
    assert result["texts"].index("<bos>") in result["special"]


def test_groups_and_ranges_keep_their_bounds(view: FeatureDashboardView) -> None:
    intervals = view.feature(BRIDGE)[0]["intervals"]
    for group, interval in enumerate(intervals):
        answer = view.examples(BRIDGE, group=group)
        assert len(answer[0]["peaks"]) <= PER_INTERVAL
        for (_, values), peak in zip(unpacked(answer), answer[0]["peaks"], strict=True):
            assert interval["low"] <= values[peak] <= interval["high"]
    answer = view.examples(BRIDGE, range=[2.0, 3.0])
    assert answer[0]["peaks"]
    assert all(2 <= values[peak] < 3 for (_, values), peak in zip(unpacked(answer), answer[0]["peaks"], strict=True))
    assert view.examples(BRIDGE, "random") == view.examples(BRIDGE, "random")


def test_nothing_to_show_is_no_error(view: FeatureDashboardView) -> None:
    assert view.examples(DEAD)[0]["lengths"] == []
    assert view.examples(BRIDGE, range=[1e6, 2e6])[0]["lengths"] == []
    assert view.related(DEAD)[0]["coactive"] == []


def test_questions_that_make_no_sense_get_a_sentence(view: FeatureDashboardView) -> None:
    with pytest.raises(ValueError, match="feature 30 is not in this index: it holds 0 to 29"):
        view.feature(30)
    with pytest.raises(ValueError, match="There is no group 'best' of examples"):
        view.examples(BRIDGE, "best")
    with pytest.raises(ValueError, match=f"has no interval {INTERVALS}"):
        view.examples(BRIDGE, INTERVALS)


def test_without_a_feature_the_most_telling_is_shown(word_index: FeatureIndex) -> None:
    first = most_telling(word_index, 3)
    assert len(first) == 3 and DEAD not in first and DENSE not in first
    assert FeatureDashboard(word_index).feature == first[0]
    assert sorted(most_telling(word_index, 100)) == list(range(30))


class Read:
    """As much of an index as the choice of the first feature asks: one query over three tables."""

    def __init__(self, **tables: pd.DataFrame) -> None:
        self.connection = duckdb.connect()
        for name, frame in tables.items():
            self.connection.register(name, frame)

    def sql(self, query: str) -> pd.DataFrame:
        return self.connection.sql(query).df()


def test_several_whole_words_come_before_one_and_before_pieces() -> None:
    words = [" red", " blue", " old", " green", " prac", "tice", ".", " a"]
    vocabulary = pd.DataFrame({"token": range(len(words)), "text": words, "hex": False})
    text = [0, 6, 1, 6, 2, 6, 3, 6, 4, 5, 6, 7, 6] * 20  # " prac" is always followed by "tice"
    items = pd.DataFrame({"item": range(len(text)), "token": text})
    tops = {
        0: ([4, 5], [0.6, 0.4]),  # a word in two pieces
        1: ([0], [1.0]),
        2: ([0, 1, 2, 3], [0.4, 0.3, 0.2, 0.1]),
        3: ([0, 1, 2, 3], [0.4, 0.3, 0.2, 0.1]),  # the same, seen once
        4: ([7, 6], [0.5, 0.5]),
    }
    features = pd.DataFrame(
        {
            "feature": list(tops),
            "top_tokens": [tokens for tokens, _ in tops.values()],
            "top_shares": [shares for _, shares in tops.values()],
            "count": [500, 500, 500, 1, 400],
            "density": 0.001,
            "flags": [[]] * len(tops),
        }
    )
    index = Read(features=features, vocabulary=vocabulary, items=items)
    assert most_telling(index, 5) == [2, 1, 0, 4, 3]


def test_what_does_not_exist_is_refused(word_index: FeatureIndex) -> None:
    dashboard = FeatureDashboard(word_index, feature=BRIDGE)
    with pytest.raises(traitlets.TraitError, match="There is no feature #30: this SAE has features 0 to 29"):
        dashboard.feature = 30
    with pytest.raises(traitlets.TraitError, match="There is no group 'best' of examples"):
        dashboard.group = "best"
    with pytest.raises(traitlets.TraitError, match="low below high"):
        dashboard.range = [3, 2]
    assert (dashboard.feature, dashboard.group, dashboard.range) == (BRIDGE, "top", None)
    with pytest.raises(traitlets.TraitError):
        FeatureDashboard(word_index, feature=-1)
    with pytest.raises(TypeError, match="no option 'contex'. Did you mean 'context'"):
        FeatureDashboard(word_index, contex="full")


def test_a_feature_that_the_browser_sets_wrongly_goes_back_with_a_sentence(
    word_index: FeatureIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard = FeatureDashboard(word_index, feature=BRIDGE)
    sent: list[dict] = []
    monkeypatch.setattr(dashboard, "send", lambda content, buffers=None: sent.append(content))
    dashboard.set_state({"feature": 500})
    assert dashboard.feature == BRIDGE
    assert sent == [{"kind": "refused", "message": "There is no feature #500: this SAE has features 0 to 29."}]


def test_a_range_ends_with_its_feature(word_index: FeatureIndex) -> None:
    dashboard = FeatureDashboard(word_index, feature=BRIDGE, range=[2, 4], group=0, context="full")
    assert dashboard.range == [2, 4]
    dashboard.feature = MARKUP
    assert dashboard.range is None
    assert (dashboard.group, dashboard.context) == (0, "full")


def test_a_page_carries_the_feature_and_all_that_it_links_to(word_index: FeatureIndex) -> None:
    dashboard = FeatureDashboard(word_index, feature=BRIDGE)
    taken = dashboard.snapshot()
    linked = word_index.similar(BRIDGE)["feature"].tolist()
    assert taken["state"]["_recorded"] == [BRIDGE, *dict.fromkeys(linked)] and len(linked) > 5
    mine = [answer for answer in taken["answers"] if answer["params"]["feature"] == BRIDGE]
    asked = {(answer["method"], answer["params"].get("group")) for answer in mine}
    assert {("feature", None), ("examples", "top"), ("examples", "random"), ("examples", INTERVALS - 1)} <= asked
    json.dumps([taken["state"], [answer["result"] for answer in taken["answers"]]], allow_nan=False)


def test_hostile_tokens_do_not_end_the_page(word_index: FeatureIndex, tmp_path) -> None:
    written = FeatureDashboard(word_index, feature=MARKUP).to_html(tmp_path / "page.html").read_text("utf-8")
    assert "<script>alert(1)" not in written
    assert "\\u003Cscript>alert(1)\\u003C/script>" in written
    assert len(written) < 2_000_000


def test_it_says_what_it_shows_and_stays_the_same(word_index: FeatureIndex) -> None:
    assert repr(FeatureDashboard(word_index, feature=BRIDGE)) == "FeatureDashboard(feature=4, top_tokens=[' bridge'])"


def test_the_place_is_named_with_its_step(write_word_index: Callable[..., FeatureIndex]) -> None:
    plain = FeatureDashboardView(write_word_index())
    assert plain.feature(BRIDGE)[0]["source"] == "topk · blocks.0.hook_resid_post"
    plain.index.meta["sae"] = {"metadata": {"step": 12345}}
    assert plain.feature(BRIDGE)[0]["source"] == "topk · blocks.0.hook_resid_post · step 12,345"
