"""Finding features by token and by id."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from saewidgets.features.search import COLUMNS, spelled

BRIDGE, RIVER, DEAD = 7, 20, 11


def test_a_token_finds_the_feature_that_is_about_it(index, made):
    found = index.search(" bridge")
    best = found.iloc[0]
    assert int(best.feature) == BRIDGE and best.token == " bridge"
    on = [v for i, v in made.of(BRIDGE).items() if made.tokens[i] == 1]
    assert best["count"] == len(on)
    assert best.share == pytest.approx(sum(on) / sum(made.of(BRIDGE).values()), rel=1e-5)
    assert best.coverage == pytest.approx(len(on) / ((made.tokens == 1) & made.scanned).sum())
    assert found["score"].is_monotonic_decreasing and found["feature"].is_unique
    assert index.row(int(best.feature))["top_texts"][0] == " bridge"


def test_share_and_coverage_of_every_feature_found(index, made):
    found = index.search(" cat", n=100)
    places = (made.tokens == 6) & made.scanned
    assert len(found) > 30
    for row in found.itertuples():
        whole = made.of(row.feature)
        on = [value for item, value in whole.items() if made.tokens[item] == 6]
        share, coverage = sum(on) / sum(whole.values()), len(on) / places.sum()
        assert (row.token, row.count) == (" cat", len(on))
        assert (row.share, row.coverage) == pytest.approx((share, coverage), rel=1e-5)
        f1 = 2 * share * coverage / (share + coverage)
        assert row.score == pytest.approx(f1 * len(on) / (len(on) + 1), rel=1e-5)


def test_spaces_and_case_match_less_closely(index):
    for text in ("bridge", "BRIDGE", " Bridge"):
        assert int(index.search(text).iloc[0].feature) == BRIDGE
    exact, loose = index.search(" bridge").iloc[0], index.search("BRIDGE ").iloc[0]
    assert loose.score == pytest.approx(0.8 * exact.score)
    assert index.search("ridge").iloc[0].score == pytest.approx(0.4 * exact.score)


def test_the_columns_are_the_same_whatever_is_found(index):
    for text in (" bridge", "#7", 7, "river", "nothing says this"):
        assert list(index.search(text).columns) == COLUMNS


def test_a_word_of_two_tokens_is_found_where_it_ends(index, made):
    best = index.search("river").iloc[0]
    assert int(best.feature) == RIVER and best.token == "river"
    assert best["count"] == len(made.of(RIVER)) and best.coverage == 1 and best.share == pytest.approx(1)
    texts = [token.text for token in index.tokens(range(14))]
    assert sorted(spelled(index._rows, texts, " River").tolist()) == sorted(made.of(RIVER))
    assert len(spelled(index._rows, texts, "rivet")) == 0


def test_nothing_is_found_across_contexts_or_by_half_a_word():
    texts = ["ri", "ver", " river", "o", "x", "Ri"]
    tokens = np.array([0, 1, 0, 1, 3, 1, 5, 1, 4, 0])
    starts = np.array([0, 3, len(tokens)])  # the second "ri" ends a context, its "ver" begins the next

    def contexts_of(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        context = np.searchsorted(starts, items, side="right") - 1
        return context, items - starts[context]

    source = SimpleNamespace(all_tokens=lambda: [(0, tokens)], contexts_of=contexts_of)
    assert spelled(source, texts, "river").tolist() == [1, 7]
    assert spelled(source, texts, "rivero").tolist() == []


def test_ids(index):
    for text in ("#7", " #7 ", 7, "7"):
        row = index.search(text).iloc[0]
        assert int(row.feature) == BRIDGE and row.score == 1 and row.token == " bridge"
    assert len(index.search("#7")) == 1
    assert index.search(DEAD).iloc[0].token == "" and index.search(DEAD).iloc[0].density == 0
    with pytest.raises(ValueError, match="feature 40 is not in this index"):
        index.search("#40")
    with pytest.raises(ValueError, match="feature 40 is not in this index"):
        index.search(40)


def test_digits_that_are_no_id_are_text(index):
    assert index.search("412").iloc[0].token == "412"  # a token of the vocabulary; the index has 40 features


def test_the_best_of_every_token_are_those_that_a_search_for_it_finds(index, made):
    best = index.best_of_tokens(n=6)
    assert best["token"].is_monotonic_increasing and set(best["token"]) == set(made.tokens[made.scanned])
    for token in (5, 6, 7, 11):  # nothing else says what these say
        mine, (said,) = best[best["token"] == token], index.tokens([token])
        found = index.search(said.text, n=6)
        assert mine["feature"].tolist() == found["feature"].tolist() and len(mine) == 6
        assert mine["score"].tolist() == pytest.approx(found["score"].tolist())
    n_tokens = best["token"].nunique()
    few = index.best_of_tokens(n=6, most=n_tokens + 1)  # each token's best, and one token's second
    assert set(few["token"]) == set(best["token"]) and len(few) == n_tokens + 1
    firsts = best.groupby("token")["feature"].first()
    assert few.groupby("token")["feature"].first().equals(firsts)


def test_no_match_is_an_empty_frame_that_says_so(index):
    found = index.search("xylophone")
    assert len(found) == 0
    assert found.attrs["message"] == "no feature is active on a token that says 'xylophone' in the scanned text"
    with pytest.raises(ValueError, match="empty"):
        index.search("")


def test_whitespace_and_hex_match_only_themselves(index):
    assert set(index.search("\n")["token"]) == {"\n"}
    assert len(index.search("   ")) == 0
    assert set(index.search("C3")["token"]) == {"C3"}
    assert len(index.search("c")) > 0 and "C3" not in set(index.search("c")["token"])
    assert len(index.search("bos")) == 0


@pytest.mark.parametrize("text", ["'; drop view items; --", "\ud800", "%", "\x00", "א", "a" * 10_000, " " * 10_000])
def test_strange_text_is_only_text(index, text):
    assert list(index.search(text).columns) == COLUMNS
    assert index.sql("select count(*) as n from items")["n"][0] > 0
