"""SQL that only reads, from several threads."""

from __future__ import annotations

import os
import shutil
import threading

import pytest

from saewidgets.features import FeatureIndex


def test_sql_over_all_tables(index, made):
    counts = index.sql("select feature, count(*) as n from activations group by feature order by feature")
    assert dict(zip(counts["feature"], counts["n"], strict=True)) == {
        f: (made.feature == f).sum() for f in range(40) if f != 11
    }
    joined = index.sql(
        "with best as (select * from token_features order by share desc, feature limit 1) "
        "select text, feature from best join vocabulary using (token);"
    )
    assert len(joined) == 1
    assert len(index.sql("from features")) == 40
    assert len(index.sql("describe items -- a comment")) == 6


@pytest.mark.parametrize(
    "query",
    [
        "create table t as select 1",
        "drop view items",
        "insert into items values (1)",
        "update activations set value = 0",
        "copy items to 'stolen.parquet'",
        "copy items to 'stolen.csv' (format csv)",
        "attach 'other.db'",
        "export database 'stolen'",
        "set threads = 1",
        "pragma enable_profiling",
        "install httpfs",
        "load httpfs",
        "select 1; drop view items",
        "explain analyze copy items to 'stolen.parquet'",
        "prepare p as select 1",
        "begin",
        "",
    ],
)
def test_anything_that_writes_is_refused(index, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="an index is read-only: give one SELECT"):
        index.sql(query)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "query",
    [
        "with x as (copy (select 1) to '{file}') select 1",
        "with x as (copy items to '{file}' (format parquet) ) from x",
        "with x as (copy (select 1) to '{file}' (format parquet, use_tmp_file false)) select 1",
        "select * from (with x as (copy (select 1) to '{file}') select 1)",
        "select 1) ; copy (select 1) to '{file}' ; select (1",
        "select * from query('with x as (copy (select 1) to ''{file}'') select 1')",
    ],
)
def test_writes_hidden_in_a_select_reach_no_file(index, query):
    file = index.path / "activations.parquet"  # one that DuckDB may open
    before = file.read_bytes()
    with pytest.raises(ValueError):
        index.sql(query.format(file=file))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_text('/etc/hostname')",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/etc/*')",
        "select * from read_blob('/proc/self/environ')",
        "select * from read_parquet('https://example.invalid/x.parquet')",
        "select * from secret_frame",
    ],
)
def test_nothing_outside_is_read(index, query):
    import pandas as pd

    secret_frame = pd.DataFrame({"a": [1]})  # DuckDB would find it in the caller's frame
    with pytest.raises(ValueError):
        index.sql(query)
    assert len(secret_frame) == 1


def test_a_mistake_in_sql_is_answered_with_duckdbs_words(index):
    with pytest.raises(ValueError, match="selct"):
        index.sql("selct * from items")
    with pytest.raises(ValueError, match="nofeature"):
        index.sql("select nofeature from items")


def test_threads_get_the_answers_that_one_gets(index):
    def answers(opened):
        return [
            (opened.examples(f, n=5)["item"].tolist(), opened.search(" cat")["feature"].tolist()[:3])
            for f in range(0, 40, 3)
        ]

    wanted = answers(index)
    fresh = FeatureIndex.open(index.path)  # nothing read yet: the threads race for the caches too
    got: list[object] = []

    def ask():
        got.append(answers(fresh))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [wanted] * 6


def test_an_index_replaced_under_an_open_one_is_noticed(index, write, tmp_path):
    opened = write(tmp_path / "here")
    opened.examples(0, n=1)
    shutil.rmtree(tmp_path / "here")
    with pytest.raises(RuntimeError, match="removed or built anew since it was opened"):
        opened.examples(1, n=1)
    write(tmp_path / "here", seed=5)
    with pytest.raises(RuntimeError, match="open it again with FeatureIndex.open"):
        opened.sql("select 1")


def test_repr_says_what_it_is(index):
    assert repr(index) == (
        f"FeatureIndex(40 features of topk SAE on blocks.0.hook_resid_post, {index.n_tokens:,} tokens, "
        f"path={str(index.path)!r})"
    )
    assert index.name == "made up · blocks.0.hook_resid_post · 40 features"
