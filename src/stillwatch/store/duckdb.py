"""The embedded engine, and the default: DuckDB in this process, held to a memory limit.

Tables live in a temporary database file, compressed, so that a log larger than memory fits; what a join or a sort
spills goes beside it, up to half of the free disk. The file dies with the engine: it is working memory, not storage. What a
killed process left is taken away by the next engine that opens in the same place.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pyarrow as pa

from stillwatch.errors import EngineError
from stillwatch.store.engine import NONE, Params, plain, step_failed
from stillwatch.store.scratch import Scratch
from stillwatch.store.sql import parameters, quoted

SPILL_SHARE = 0.5
"""Share of the free disk that spilling may take, so that a runaway join fails and does not fill the machine."""

_MEANING = """
    SET TimeZone = 'UTC';
    SET ieee_floating_point_ops = false;  -- x / 0 is an error, not an infinity that looks like evidence
    SET preserve_insertion_order = false;  -- rows are sets here, and grouping then takes much less memory
    SET enable_progress_bar = false"""


class DuckDB:
    """An ``Engine``. One connection: call it from one thread at a time; it runs each step on ``threads`` threads."""

    def __init__(self, memory: str = "3GB", threads: int | None = None, spill: Path | None = None) -> None:
        self._scratch = Scratch(spill)
        folder = self._scratch.folder
        settings = {
            "memory_limit": memory,
            "temp_directory": str(folder / "spill"),
            "max_temp_directory_size": f"{int(shutil.disk_usage(folder).free * SPILL_SHARE)}B",
            "autoinstall_known_extensions": False,  # nothing is fetched from a network
            "autoload_known_extensions": False,
            **({"threads": threads} if threads else {}),
        }
        try:
            self._db = duckdb.connect(str(folder / "tables.duckdb"), config=settings)
        except duckdb.Error as e:
            self._scratch.close()
            raise EngineError(f"the embedded engine does not open: {e}", hint="check memory, threads and spill") from e
        self._db.execute(_MEANING)

    def append(self, table: str, batch: pa.Table | pa.RecordBatch) -> None:
        source = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        target = quoted(table)
        try:
            self._db.register("_appended", source)
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {target} AS SELECT * FROM _appended LIMIT 0")
            self._db.execute(f"INSERT INTO {target} BY NAME SELECT * FROM _appended")
        except duckdb.Error as e:
            raise step_failed(table, "append", e) from e
        finally:
            self._db.unregister("_appended")

    def step(self, name: str, sql: str, params: Params = NONE) -> None:
        try:
            self._db.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS {sql}", _bound(sql, params))
        except duckdb.Error as e:
            raise step_failed(name, sql, e) from e

    def rows(self, sql: str, params: Params = NONE) -> pa.Table:
        text = f"SELECT * FROM {quoted(sql)}" if sql.isidentifier() else sql
        try:
            return plain(self._db.sql(text, params=_bound(text, params)).to_arrow_table())
        except duckdb.Error as e:
            raise step_failed("rows", sql, e) from e

    def close(self) -> None:
        self._db.close()
        self._scratch.close()

    def __enter__(self) -> DuckDB:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bound(sql: str, params: Params) -> dict[str, object]:
    """Of ``params``, those that ``sql`` reads: DuckDB refuses one too many."""
    return {name: params[name] for name in parameters(sql) if name in params}
