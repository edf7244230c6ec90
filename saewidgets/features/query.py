"""An index's tables in DuckDB, opened so that a query can only read, and read nothing but them.

An index may come from anywhere, and so may a query. External access is off but for the index's own files; extensions
never load; Python variables are not seen; the configuration is locked. DuckDB 2 runs `with x as (copy ..) select ..`
as one SELECT, so a query of the user's is besides put into a subquery, where nothing may write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from saewidgets.features.schema import META, TABLES, file_of
from saewidgets.features.sort import quoted

Columns = dict[str, npt.NDArray[Any]]


class Tables:
    """The tables of one index folder. Safe to use from several threads: every call has a cursor of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._stamp = self._read_stamp()
        self._connection = duckdb.connect()
        for setting in (
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "python_enable_replacements = false",
            "enable_progress_bar = false",
            f"threads = {min(os.cpu_count() or 1, 4)}",
        ):
            self._connection.execute(f"set {setting}")
        try:
            for table, schema in TABLES.items():
                path = quoted(file_of(self._folder, table))
                columns = ", ".join(schema.names)
                self._connection.execute(f"create view {table} as select {columns} from read_parquet({path})")
        except duckdb.Error as error:
            self._connection.close()
            raise ValueError(
                f"the index in {str(folder)!r} is damaged: {table}.parquet cannot be read ({_first_line(error)}); "
                "build it again"
            ) from None
        allowed = ", ".join(quoted(file_of(self._folder, table)) for table in TABLES)
        self._connection.execute(f"set allowed_paths = [{allowed}]")
        self._connection.execute("set enable_external_access = false")
        self._connection.execute("set lock_configuration = true")

    def fetch(self, query: str, parameters: list[Any] | None = None) -> Columns:
        """The columns of one of our own queries, as arrays.

        Raises RuntimeError where the folder was built anew since it was opened.
        """
        columns: Columns = self._run(query, parameters).fetchnumpy()
        # A column with nulls comes as a masked array; ours have NaN or lists there.
        return {name: np.ma.getdata(column) for name, column in columns.items()}

    def rows(self, query: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of one of our own queries."""
        return self._run(query, parameters).fetchall()

    def frame(self, query: str, parameters: list[Any] | None = None) -> Any:
        """The DataFrame of one of our own queries."""
        return self._run(query, parameters).df()

    def read_only(self, query: str) -> Any:
        """The DataFrame of one query from outside.

        Raises ValueError unless it is a single statement that reads.
        """
        cursor = self._cursor()
        try:
            statements = cursor.extract_statements(query)
        except duckdb.Error as error:
            raise ValueError(f"the query is not SQL that DuckDB understands: {error}") from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ValueError(
                "an index is read-only: give one SELECT (or FROM, WITH, DESCRIBE, SUMMARIZE) statement over "
                f"{', '.join(TABLES)}"
            )
        try:
            return cursor.execute(f"select * from (\n{statements[0].query.strip().rstrip(';')}\n)").df()
        except duckdb.Error as error:
            if "must be at the top level" in str(error):
                raise ValueError("an index is read-only: a WITH clause of the query writes") from None
            if isinstance(error, duckdb.PermissionException):
                raise ValueError(f"a query reads only the index's own tables: {', '.join(TABLES)}") from None
            raise ValueError(f"the query failed: {error}") from None

    def _read_stamp(self) -> tuple[int, int, int]:
        found = (self._folder / META).stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        try:
            same = self._read_stamp() == self._stamp
        except OSError:
            same = False
        if not same:
            raise RuntimeError(
                f"the index in {str(self._folder)!r} was removed or built anew since it was opened; "
                "open it again with FeatureIndex.open"
            )
        return self._connection.cursor()

    def _run(self, query: str, parameters: list[Any] | None) -> Any:
        try:
            return self._cursor().execute(query, parameters or [])
        except duckdb.Error as error:
            raise RuntimeError(
                f"the index in {str(self._folder)!r} could not be read ({_first_line(error)}); if its files were "
                "changed or copied in part, build it again"
            ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
