"""The engine for logs that outgrow one machine: Apache Spark, on the same SELECTs.

This file is the only one that knows Spark's SQL. The text is parsed as the embedded engine's dialect, the few things
that mean something else on Spark are rewritten in the tree, and parameters enter it as typed literals.

Appended rows go to Parquet in the engine's folder, which on a cluster must be one that all its machines see; steps are
held by the executors (a local checkpoint), so that no step is worked out twice.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.errors import EngineError, UsageError
from stillwatch.store import Params, Value, plain, step_failed
from stillwatch.store.sql import quoted

try:
    import sqlglot
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
    from sqlglot import exp
except ImportError as e:
    raise UsageError(f"the engine 'spark' needs {e.name}", hint="pip install 'stillwatch[spark]'") from e

_FAILURES = (PySparkException, sqlglot.errors.SqlglotError, pa.ArrowException, KeyError)
_UNITS = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR")


def session(memory: str, threads: int | None, master: str = "") -> SparkSession:
    """The process's Spark session, started where there is none: two local threads unless told otherwise."""
    local = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    settings = {
        "spark.driver.memory": memory.upper().removesuffix("B"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",  # an overflow is an error, as it is in the embedded engine
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "OFF",  # what fails is raised, once, with its step
        "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "stillwatch-warehouse"),
        **({} if master else {"spark.sql.shuffle.partitions": str(threads or 2), **local}),
    }
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    builder = SparkSession.builder.appName("stillwatch").master(master or f"local[{threads or 2}]")
    try:
        return builder.config(map=settings).getOrCreate()
    except (PySparkException, OSError) as e:
        raise EngineError(f"Spark does not start: {e}", hint="it needs Java 17 or later, by PATH or JAVA_HOME") from e


class Spark:
    """An ``Engine``. Its tables are views of a session of its own, so engines do not see each other's."""

    def __init__(self, shared: SparkSession, spill: Path | None = None) -> None:
        if spill is not None:
            spill.mkdir(parents=True, exist_ok=True)
        self._spark = shared.newSession()
        self._spark.conf.set("spark.sql.session.timeZone", "UTC")
        self._spark.conf.set("spark.sql.ansi.enabled", "true")
        self._folder = Path(tempfile.mkdtemp(prefix="stillwatch-", dir=spill))
        self._parts: dict[str, int] = {}

    def append(self, table: str, batch: pa.Table | pa.RecordBatch) -> None:
        source = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        folder = self._folder / table
        part = self._parts.get(table, 0)
        try:
            if part:
                source = _as(source, pq.read_schema(folder / "part-0.parquet"))
            elif self._spark.catalog.tableExists(quoted_for_spark(table)):
                self._keep(self._spark.table(quoted_for_spark(table)).toArrow(), folder, table)
                return self.append(table, batch)
            self._keep(source, folder, table)
        except _FAILURES as e:
            raise step_failed(table, "append", e) from e

    def _keep(self, source: pa.Table, folder: Path, table: str) -> None:
        folder.mkdir(exist_ok=True)
        pq.write_table(source, folder / f"part-{self._parts.get(table, 0)}.parquet")
        self._parts[table] = self._parts.get(table, 0) + 1
        self._spark.read.parquet(str(folder)).createOrReplaceTempView(table)

    def step(self, name: str, sql: str, params: Params = {}) -> None:  # noqa: B006  # read only
        try:
            result = self._spark.sql(translate(sql, params)).localCheckpoint()
            result.createOrReplaceTempView(name)
            # The checkpoint is taken: a table of this name that was appended to is gone.
            if self._parts.pop(name, 0):
                shutil.rmtree(self._folder / name)
        except _FAILURES as e:
            raise step_failed(name, sql, e) from e

    def rows(self, sql: str, params: Params = {}) -> pa.Table:  # noqa: B006  # read only
        text = f"SELECT * FROM {quoted(sql)}" if sql.isidentifier() else sql
        try:
            return plain(self._spark.sql(translate(text, params)).toArrow())
        except _FAILURES as e:
            raise step_failed("rows", sql, e) from e

    def close(self) -> None:
        """Forget the tables. The process's Spark keeps running for the next engine and ends with the process."""
        for view in self._spark.catalog.listTables():
            self._spark.catalog.dropTempView(view.name)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Spark:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def translate(sql: str, params: Params) -> str:
    """The step's text as Spark reads it. KeyError where a ``$name`` has no value."""
    tree = sqlglot.parse_one(sql, read="duckdb").transform(lambda node: _rewritten(node, params))
    return tree.sql(dialect="spark", identify=True)
