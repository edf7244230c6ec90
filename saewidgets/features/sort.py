"""From shards to the sorted, where necessary sampled, activations, and the numbers that need all of them.

Everything here is SQL over files under a memory limit: DuckDB sorts and groups on disk when it must. Sums of
floats depend on the order in which threads add them; where one is needed, values become whole numbers first (2^24
steps of the feature's maximum), so that the same inputs give the same index to the last bit.

A feature with more than `row_cap` activations is stored in part, and always by whole contexts, so that a window of
text never has holes: first the contexts where it is strongest, until they hold row_cap / 2 rows (weight 1; every
activation above `complete_above` is therefore stored), then contexts drawn by the seed until they hold as many
(weight = rows not among the strongest / rows drawn). The draw is the same for all features. Sums of `weight`
estimate counts without bias; the numbers of features.parquet are exact.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from saewidgets.features.coactive import coactive_features
from saewidgets.features.scan import ScanWriter
from saewidgets.features.schema import ACTIVATION_ROW_GROUP, N_BINS, N_TOP, file_of

_STEPS = 2**24  # a float32 has 24 bits of mantissa
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ScanNumbers:
    """What is known of each feature from its activations; arrays have a row per feature."""

    histogram: Array
    """[d_sae, N_BINS] counts, bins linear from 0 to the feature's maximum."""
    top_tokens: list[list[int]]
    """Tokens that hold most of its summed activation, best first."""
    top_shares: list[list[float]]
    """The share of its summed activation that each of them holds."""
    top_position: Array
    """[d_sae] the position where it is active most often; -1 for a dead one."""
    top_position_share: Array
    """[d_sae] the share of its activations there."""
    stored: Array
    """[d_sae] rows in activations.parquet."""
    complete_above: Array
    """[d_sae] every activation above this is stored; 0 where all are."""
    coactive: list[list[int]]
    """The features that fire on the same tokens, see `features.coactive`."""
    coactive_cosines: list[list[float]]


def quoted(path: Path) -> str:
    """A path as an SQL string."""
    return "'" + path.as_posix().replace("'", "''") + "'"


def connect(folder: Path, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB that works in `folder` and under `memory_limit`; raises ValueError where the limit is not one."""
    connection = duckdb.connect()
    try:
        connection.execute("set memory_limit = ?", [memory_limit])
    except duckdb.Error:
        connection.close()
        raise ValueError(f"memory_limit={memory_limit!r} is not a size; write it like '2GB' or '500MB'") from None
    connection.execute(f"set temp_directory = {quoted(folder / 'spill')}")
    connection.execute(f"set threads = {min(os.cpu_count() or 1, 8)}")
    connection.execute("set autoinstall_known_extensions = false; set enable_progress_bar = false")
    return connection


def sort_activations(
    scan: ScanWriter,
    folder: Path,
    *,
    seed: int,
    row_cap: int,
    memory_limit: str,
    report: Callable[[float], None],
) -> ScanNumbers:
    """Write activations.parquet and token_features.parquet of a finished scan, and give the features' numbers.

    `report` hears the share done. Raises RuntimeError where the memory limit or the disk does not suffice.
    """
    connection = connect(folder, memory_limit)
    try:
        # Only read after this call; DuckDB takes the arrays where they are.
        features = pa.table(
            {"feature": np.arange(len(scan.counts), dtype=np.int32), "n": scan.counts, "m": scan.maxima}
        )
        connection.register("counters", features)
        connection.execute("create temp table scanned as select * from counters")
        connection.execute(f"create view rows as select * from read_parquet({quoted(scan.shards / '*.parquet')})")
        connection.execute(f"create view items as select * from read_parquet({quoted(file_of(folder, 'items'))})")
        complete_above = _choose_rows(connection, scan, seed, row_cap)
        report(0.1)
        _write_sorted(connection, folder)
        report(0.6)
        histogram = _histogram(connection, len(scan.counts))
        report(0.7)
        position, position_share = _positions(connection, scan)
        report(0.75)
        coactive, coactive_cosines = coactive_features(connection, len(scan.counts), scan.n_items, seed)
        report(0.85)
        top_tokens, top_shares = _write_token_features(connection, folder, len(scan.counts))
        report(1.0)
        stored = np.zeros(len(scan.counts), np.int64)
        for feature, n in connection.execute(
            f"select feature, count(*) from read_parquet({quoted(file_of(folder, 'activations'))}) group by feature"
        ).fetchall():
            stored[feature] = n
    except duckdb.OutOfMemoryException as error:
        raise RuntimeError(
            f"the index does not fit under memory_limit={memory_limit!r}; give more, or a lower max_tokens ({error})"
        ) from None
    finally:
        connection.close()
    return ScanNumbers(
        histogram,
        top_tokens,
        top_shares,
        position,
        position_share,
        stored,
        complete_above,
        coactive,
        coactive_cosines,
    )


def _choose_rows(connection: duckdb.DuckDBPyConnection, scan: ScanWriter, seed: int, row_cap: int) -> Array:
    """Make the table `kept` (feature, context, weight) for features above the cap; gives complete_above."""
    connection.execute(
        f"""
        create temp table capped as select feature from scanned where n > {row_cap};
        create temp table groups as
            select feature, context, max(value) as m, count(*) as n
            from rows where feature in (select feature from capped) group by feature, context;
        create temp table ranked as
            select *, coalesce(sum(n) over (partition by feature order by m desc, context
                rows between unbounded preceding and 1 preceding), 0) < {row_cap // 2} as strongest
            from groups;
        create temp table rest as
            select *, coalesce(sum(n) over (partition by feature order by md5('{seed}:' || context), context
                rows between unbounded preceding and 1 preceding), 0) < {row_cap - row_cap // 2} as drawn
            from ranked where not strongest;
        create temp table kept as
            select feature, context, 1::float as weight from ranked where strongest
            union all
            select feature, context, weight from rest
            join (select feature, (sum(n) / sum(n) filter (drawn))::float as weight from rest group by feature)
                using (feature)
            where drawn;
        """
    )
    above = np.zeros(len(scan.counts), np.float32)
    for feature, m in connection.execute(
        "select feature, max(m) from rest where not drawn group by feature"
    ).fetchall():
        above[feature] = m
    return above


def _write_sorted(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    connection.execute(
        f"""
        copy (
            select feature, item, value, 1::float as weight from rows
                where feature not in (select feature from capped)
            union all
            select feature, item, value, weight from rows join kept using (feature, context)
            order by feature, value desc, item
        ) to {quoted(file_of(folder, "activations"))}
        (format parquet, parquet_version v2, compression zstd, row_group_size {ACTIVATION_ROW_GROUP})
        """
    )


def _histogram(connection: duckdb.DuckDBPyConnection, d_sae: int) -> Array:
    found = connection.execute(
        f"""
        select feature, least({N_BINS - 1}, floor(value::double / m::double * {N_BINS}))::int as bin, count(*) as c
        from rows join scanned using (feature) group by feature, bin
        """
    ).fetchnumpy()
    histogram = np.zeros((d_sae, N_BINS), np.int64)
    histogram[found["feature"], found["bin"]] = found["c"]
    return histogram


def _positions(connection: duckdb.DuckDBPyConnection, scan: ScanWriter) -> tuple[Array, Array]:
    found = connection.execute(
        """
        select feature, arg_max(position, c * 1000000 - position) as position, max(c) as c
        from (select feature, position, count(*) as c from rows join items using (item) group by feature, position)
        group by feature
        """
    ).fetchnumpy()
    position = np.full(len(scan.counts), -1, np.int32)
    share = np.zeros(len(scan.counts), np.float64)
    position[found["feature"]] = found["position"]
    share[found["feature"]] = found["c"] / scan.counts[found["feature"]]
    return position, share


def _write_token_features(
    connection: duckdb.DuckDBPyConnection, folder: Path, d_sae: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Write which features meet which tokens (all activations, not the stored ones); gives the top of each."""
    connection.execute(
        f"""
        create temp table met as
            select token, feature, count(*) as count, max(value) as max,
                sum(round(value::double / m::double * {_STEPS})::bigint)::hugeint as steps
            from rows join scanned using (feature) join items using (item) group by token, feature;
        create temp table totals as select feature, sum(steps) as total from met group by feature;
        """
    )
    connection.execute(
        f"""
        copy (
            select token, feature, count, steps::double / greatest(total, 1)::double as share, max
            from met join totals using (feature) order by token, feature
        ) to {quoted(file_of(folder, "token_features"))}
        (format parquet, parquet_version v2, compression zstd, row_group_size {ACTIVATION_ROW_GROUP})
        """
    )
    tokens: list[list[int]] = [[] for _ in range(d_sae)]
    shares: list[list[float]] = [[] for _ in range(d_sae)]
    for feature, token, share in connection.execute(
        f"""
        select feature, token, steps::double / greatest(total, 1)::double
        from met join totals using (feature)
        qualify row_number() over (partition by feature order by steps desc, token) <= {N_TOP}
        order by feature, steps desc, token
        """
    ).fetchall():
        tokens[feature].append(token)
        shares[feature].append(share)
    return tokens, shares
