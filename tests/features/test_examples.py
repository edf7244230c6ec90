"""Windows of text."""

from __future__ import annotations

import numpy as np
import pytest

DENSE, DEAD, BRIDGE = 3, 11, 7


def test_top_examples_are_the_strongest_with_the_values_of_every_token(index, made):
    whole = made.of(BRIDGE)
    frame = index.examples(BRIDGE, n=8, window=4)
    assert len(frame) == 8 and frame["rank"].tolist() == list(range(8))
    assert frame["value"].iloc[0] == max(whole.values())
    assert frame["value"].is_monotonic_decreasing
    for row in frame.itertuples():
        first = row.item - row.peak
        items = range(first, first + len(row.tokens))
        assert row.tokens == made.tokens[list(items)].tolist()
        assert row.values == [whole.get(i, 0.0) for i in items]
        assert row.texts == [token.text for token in index.tokens(row.tokens)]
        assert row.values[row.peak] == row.value and row.tokens[row.peak] == row.token
        assert set(made.contexts[list(items)]) == {row.context}
        assert made.positions[row.item] == row.position
        assert row.peak <= 4 and len(row.tokens) <= 9
        assert row.doc == row.context // 3


def test_a_window_ends_at_its_context_and_none_is_all_of_it(index, made):
    frame = index.examples(BRIDGE, n=20, window=None)
    for row in frame.itertuples():
        assert row.tokens == made.tokens[made.contexts == row.context].tolist()
        assert row.texts[0] == "<bos>" and row.peak == row.position


def test_near_identical_windows_are_shown_once(index):
    frame = index.examples(DENSE, n=500, window=2)
    keys = [(row.peak, *row.tokens) for row in frame.itertuples()]
    assert len(keys) == len(set(keys)) > 50


def test_a_peak_inside_a_window_shown_already_is_left_out(index):
    frame = index.examples(DENSE, n=200, window=3)
    for _, group in frame.groupby("context"):
        positions = np.sort(group["position"])
        assert (np.diff(positions) > 3).all()


def test_random_examples_follow_the_distribution_not_the_top(index, made):
    values = np.array(list(made.of(DENSE).values()))
    drawn = index.examples(DENSE, n=300, kind="random", window=5)["value"]
    assert drawn.mean() == pytest.approx(values.mean(), rel=0.1)
    again = index.examples(DENSE, n=300, kind="random", window=5)["value"]
    assert drawn.tolist() == again.tolist()
    other = index.examples(DENSE, n=300, kind="random", window=5, seed=1)["value"]
    assert drawn.tolist() != other.tolist()


def test_random_examples_of_a_sampled_feature_are_not_biased_to_its_top(sampled, made):
    values = np.array(list(made.of(DENSE).values()))
    stored = sampled.sql(f"select value from activations where feature = {DENSE}")["value"]
    means = [sampled.examples(DENSE, n=60, kind="random", seed=s, window=5)["value"].mean() for s in range(20)]
    assert np.mean(means) == pytest.approx(values.mean(), rel=0.1)
    assert stored.mean() > 1.15 * values.mean()


def test_windows_of_a_sampled_feature_have_no_holes(sampled, made):
    whole = made.of(DENSE)
    for kind in ("top", "random"):
        for row in sampled.examples(DENSE, n=20, kind=kind, window=None).itertuples():
            first = row.item - row.peak
            assert row.values == [whole.get(first + i, 0.0) for i in range(len(row.tokens))]


def test_interval_examples_lie_in_the_interval(index):
    intervals = index.intervals(DENSE, n=5)
    for i, (lo, hi) in enumerate(zip(intervals["lo"], intervals["hi"], strict=True)):
        frame = index.examples(DENSE, n=6, kind=(lo, hi))
        assert len(frame) > 0 and frame["value"].is_monotonic_decreasing
        assert (frame["value"] >= lo).all()
        assert (frame["value"] <= hi).all() if i == 0 else (frame["value"] < hi).all()
    top = index.examples(DENSE, n=50, kind=(intervals["lo"][0], intervals["hi"][0]))
    assert top["value"].max() == pytest.approx(index.row(DENSE)["max"])


def test_windows_at_given_places(index, made):
    whole = made.of(BRIDGE)
    frame = index.windows(BRIDGE, [(3, 2), (0, 0)], window=1)
    assert frame["context"].tolist() == [3, 0] and frame["position"].tolist() == [2, 0]
    assert frame["value"].tolist() == [whole.get(i, 0.0) for i in frame["item"]]
    assert frame["peak"].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"no position 99 in a context 3"):
        index.windows(BRIDGE, [(3, 99)])
    with pytest.raises(ValueError, match="holds contexts 0 to 399"):
        index.windows(BRIDGE, [(400, 0)])


def test_a_dead_feature_has_no_examples_but_the_same_columns(index):
    frame = index.examples(DEAD)
    assert len(frame) == 0 and list(frame.columns) == list(index.examples(BRIDGE, n=1).columns)
    assert len(index.intervals(DEAD)) == 0


def test_bad_requests_are_sentences(index):
    with pytest.raises(ValueError, match=r"^feature 99999 is not in this index: it holds 0 to 39$"):
        index.examples(99999)
    with pytest.raises(ValueError, match="feature -1 is not in this index"):
        index.histogram(-1)
    with pytest.raises(TypeError, match="a feature is a whole number, 0 to 39, not True"):
        index.row(True)
    with pytest.raises(TypeError, match="not '7'"):
        index.logits("7")
    with pytest.raises(ValueError, match="kind='bottom' is not known"):
        index.examples(BRIDGE, kind="bottom")
    with pytest.raises(ValueError, match=r"interval \(5, 2\) is empty"):
        index.examples(BRIDGE, kind=(5, 2))
