"""The numbers of an index against counting."""

from __future__ import annotations

import filecmp
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from saewidgets.features.schema import TABLES, file_of
from saewidgets.features.weights import Unembedding, unembedding_of, weight_numbers

DENSE, DEAD, FIRST, BRIDGE, RIVER, COPY = 3, 11, 5, 7, 20, 21


def test_counts_means_and_maxima_are_those_of_every_activation(index, sampled, made):
    for opened in (index, sampled):  # sampling touches the rows stored, never these
        table = opened.table().set_index("feature")
        assert list(table.index) == list(range(40))
        for feature in range(40):
            values = made.value[made.feature == feature].astype(float)
            assert table.loc[feature, "count"] == len(values)
            assert table.loc[feature, "density"] == pytest.approx(len(values) / made.scanned.sum())
            assert table.loc[feature, "max"] == pytest.approx(values.max(initial=0))
            assert table.loc[feature, "mean"] == pytest.approx(values.mean() if len(values) else 0)


def test_histogram_counts_every_activation_once(index, sampled, made):
    for opened in (index, sampled):
        for feature in (BRIDGE, DENSE, 0, 1):
            values = made.value[made.feature == feature].astype(float)
            counts, edges = opened.histogram(feature)
            assert counts.tolist() == np.histogram(values, bins=40, range=(0, values.max()))[0].tolist()
            assert edges[0] == 0 and edges[-1] == pytest.approx(values.max()) and len(edges) == 41
            intervals = opened.intervals(feature, n=5)
            assert intervals["count"].sum() == len(values)
            assert intervals["hi"].iloc[0] == edges[-1] and intervals["lo"].iloc[-1] == 0
            assert intervals["share"].sum() == pytest.approx(1)


def test_items_hold_every_token_and_say_which_were_scanned(index, made):
    items = index.sql("select * from items order by item")
    assert items["token"].tolist() == made.tokens.tolist()
    assert items["context"].tolist() == made.contexts.tolist()
    assert items["position"].tolist() == made.positions.tolist()
    assert items["scanned"].tolist() == made.scanned.tolist()
    assert index.n_tokens == made.scanned.sum() < len(items)


def test_activations_are_all_there_sorted_by_feature_and_falling_value(index, made):
    rows = pq.read_table(file_of(index.path, "activations")).to_pandas()
    wanted = pd.DataFrame({"feature": made.feature, "item": made.item, "value": made.value})
    wanted = wanted.sort_values(["feature", "value", "item"], ascending=[True, False, True], ignore_index=True)
    pd.testing.assert_frame_equal(rows[["feature", "item", "value"]], wanted, check_dtype=False)
    assert (rows["weight"] == 1).all()


def test_top_tokens_hold_the_most_activation(index, made):
    row = index.row(BRIDGE)
    mass = np.bincount(made.tokens[made.item], weights=made.value * (made.feature == BRIDGE), minlength=14)
    order = np.argsort(-mass)[: (mass > 0).sum()]
    assert row["top_tokens"] == order[:10].tolist()
    assert row["top_shares"] == pytest.approx((mass / mass.sum())[order][:10], rel=1e-5)
    assert row["top_texts"][0] == " bridge"
    assert index.table()["top_tokens"].iloc[BRIDGE].startswith("bridge, ")


def test_top_position_is_where_a_feature_is_most_often(index, made):
    table = index.table()
    for feature in range(40):
        at = np.bincount(made.positions[made.item[made.feature == feature]], minlength=16)
        if feature == DEAD:
            assert pd.isna(table["top_position"][feature]) and table["top_position_share"][feature] == 0
        else:
            assert table["top_position"][feature] == at.argmax()
            assert table["top_position_share"][feature] == pytest.approx(at.max() / at.sum())


def test_flags(index):
    flags = index.table()["flags"]
    assert flags[DEAD] == "dead"
    assert flags[DENSE] == "dense"
    assert "one position" in flags[FIRST] and index.row(FIRST)["top_position"] == 1
    assert "near duplicate" in flags[RIVER] and "near duplicate" in flags[COPY]
    assert flags[0] == ""
    assert index.table()["nearest"][RIVER] == COPY


def test_a_dense_feature_is_stored_by_whole_contexts(sampled, made):
    rows = sampled.sql(f"select * from activations where feature = {DENSE}")
    assert 400 <= len(rows) < 450
    whole = made.of(DENSE)
    contexts = set(made.contexts[rows["item"]].tolist())
    expected = {item: value for item, value in whole.items() if made.contexts[item] in contexts}
    assert dict(zip(rows["item"], rows["value"], strict=True)) == expected
    above = sampled.row(DENSE)["complete_above"]
    assert 0 < above < rows["value"].max()
    assert {i for i, v in whole.items() if v > above} <= set(rows["item"])
    assert sampled.row(0)["complete_above"] == 0
    assert sampled.row(DENSE)["stored"] == len(rows)


def test_weights_of_a_sampled_feature_add_up_to_its_count(sampled, made):
    rows = sampled.sql(f"select * from activations where feature = {DENSE}")
    assert rows["weight"].sum() == pytest.approx(len(made.of(DENSE)), rel=1e-5)
    # The estimate of the mean from the stored rows is near the exact one; without weights it is far above.
    exact = np.mean(list(made.of(DENSE).values()))
    assert np.average(rows["value"], weights=rows["weight"]) == pytest.approx(exact, rel=0.1)
    assert rows["value"].mean() > 1.15 * exact


def test_the_same_scan_gives_the_same_files_and_another_seed_another_sample(sampled, write, tmp_path):
    again = write(tmp_path / "again", row_cap=400)
    for table in TABLES:
        assert filecmp.cmp(file_of(sampled.path, table), file_of(again.path, table), shallow=False), table
    assert (sampled.path / "meta.json").read_text() == (again.path / "meta.json").read_text()
    other = write(tmp_path / "other", seed=1, row_cap=400)
    query = f"select item from activations where feature = {DENSE} order by item"
    assert other.sql(query)["item"].tolist() != sampled.sql(query)["item"].tolist()
    assert other.table().equals(sampled.table())  # what is exact does not depend on the seed


def test_quantiles_follow_the_weights(index, sampled, made):
    values = np.array(list(made.of(DENSE).values()))
    assert index.quantiles(DENSE, (0.5, 0.99)) == pytest.approx(np.quantile(values, (0.5, 0.99)), rel=0.02)
    assert sampled.quantiles(DENSE, (0.5,)) == pytest.approx([np.quantile(values, 0.5)], rel=0.15)
    assert index.quantiles(DEAD) == [0, 0, 0]


def test_logits_are_the_decoder_row_through_the_norms_weight_and_the_unembedding(index, made):
    effect = made.W_dec[BRIDGE] @ (made.unembedding.gain[:, None] * made.unembedding.W_U)
    effect = effect - effect.mean()
    positive, negative = index.logits(BRIDGE, n=3)
    order = effect.argsort(descending=True)
    assert positive["token"].tolist() == order[:3].tolist()
    assert negative["token"].tolist() == order.flip(0)[:3].tolist()
    assert positive["value"].tolist() == pytest.approx(effect[order[:3]].tolist(), abs=1e-5)
    assert positive["text"].iloc[0] == index.tokens([int(order[0])])[0].text
    counts, edges = index.logit_histogram(BRIDGE)
    assert counts.sum() == len(effect)
    assert edges[0] == pytest.approx(float(effect.min()), abs=1e-5)
    assert edges[-1] == pytest.approx(float(effect.max()), abs=1e-5)


def test_a_layernorm_takes_the_mean_out_first():
    W_dec, W_U, gain = torch.randn(4, 6), torch.randn(6, 30), torch.rand(6) + 0.5
    numbers = weight_numbers(torch.randn(6, 4), W_dec, Unembedding(W_U, gain, centred=True), lambda done: None)
    effect = ((W_dec - W_dec.mean(1, keepdim=True)) * gain) @ W_U
    effect = effect - effect.mean(1, keepdim=True)
    assert np.allclose(numbers.logit_max, effect.max(1).values, atol=1e-5)


def test_gemmas_norm_keeps_its_weight_less_one():
    W_U, weight = torch.randn(6, 30), torch.rand(6)
    model = SimpleNamespace(W_U=W_U, ln_final=SimpleNamespace(weight=weight), cfg=SimpleNamespace(uses_rms_norm=True))
    plain = unembedding_of(model)
    assert plain.gain.equal(weight) and not plain.centred
    model.cfg = SimpleNamespace(rmsnorm_uses_offset=True, normalization_type="RMS")
    assert unembedding_of(model).gain.equal(weight + 1) and not unembedding_of(model).centred
    model.cfg = SimpleNamespace(normalization_type="LN")
    assert unembedding_of(model).centred
    del model.ln_final
    assert unembedding_of(model).gain.equal(torch.ones(6))


def test_vectors_that_are_not_the_residual_streams_have_no_logits():
    numbers = weight_numbers(
        torch.randn(6, 4), torch.randn(4, 6), Unembedding(torch.randn(8, 30), torch.ones(8), False), lambda done: None
    )
    assert numbers.positive_tokens.shape == (4, 0) and np.isnan(numbers.logit_max).all()
    assert numbers.neighbours.shape == (4, 3)


def test_decoder_numbers(index, made):
    table = index.table()
    assert np.allclose(table["decoder_norm"], 1)
    cosine = torch.nn.functional.cosine_similarity(made.W_enc.T, made.W_dec)
    assert np.allclose(table["enc_dec_cosine"], cosine, atol=1e-6)


def test_similar_finds_the_neighbour_and_the_companions(index, sampled, made):
    decoder = index.similar(RIVER).query("relation == 'decoder'")
    assert decoder["feature"].iloc[0] == COPY and decoder["value"].iloc[0] == pytest.approx(1)
    for opened in (index, sampled):
        for feature in (RIVER, DENSE, 0):
            mine = made.of(feature).keys()
            together = {
                other: len(mine & made.of(other).keys()) / np.sqrt(len(mine) * max(len(made.of(other)), 1))
                for other in range(40)
                if other != feature
            }
            best = sorted(together, key=lambda other: (-together[other], other))[:5]
            coactive = opened.similar(feature).query("relation == 'coactive'")
            assert coactive["feature"].tolist() == best
            assert coactive["value"].tolist() == pytest.approx([together[other] for other in best], rel=1e-5)
    assert len(index.similar(DEAD).query("relation == 'coactive'")) == 0
    assert len(index.similar(RIVER, n=2)) == 4


def test_companions_do_not_depend_on_how_many_features_are_counted_at_once(index, write, tmp_path, monkeypatch):
    import saewidgets.features.coactive as coactive

    monkeypatch.setattr(coactive, "_PAIRS", 50)
    again = write(tmp_path / "again")
    assert again.sql("select coactive, coactive_cosines from features").equals(
        index.sql("select coactive, coactive_cosines from features")
    )
    monkeypatch.setattr(coactive, "SAMPLE", 1500)
    fewer = write(tmp_path / "fewer").similar(DENSE)["value"]
    assert 0.5 < fewer.mean() / index.similar(DENSE)["value"].mean() < 2


def test_plot_says_how_many_are_dead(index):
    figure = index.plot()
    assert "1 dead" in figure.layout.title.text
    assert len(figure.data[0].x) == 39
