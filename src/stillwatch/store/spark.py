"""The engine for logs that outgrow one machine: Apache Spark, on the same SELECTs.

Every table is a folder of Parquet files under the engine's own, which on a cluster must be one that all its machines
see; a step is worked out once and written there.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.errors import EngineError, UsageError
from stillwatch.store.engine import NONE, Params, plain, step_failed
from stillwatch.store.sql import quoted

try:
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
    from sqlglot.errors import SqlglotError

    from stillwatch.store.spark_sql import translate
except ImportError as e:
    raise UsageError(f"the engine 'spark' needs {e.name}", hint="pip install 'stillwatch[spark]'") from e

_FAILURES = (PySparkException, Py4JError, SqlglotError, pa.ArrowException, KeyError)
_MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",  # an overflow is an error, as it is in the embedded engine
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
"""Settings that results depend on; each engine sets them, whoever started the session."""


def session(
    memory: str, threads: int | None, master: str = "", settings: Mapping[str, str] = MappingProxyType({})
) -> SparkSession:
    """The process's Spark session, started where there is none: two local threads unless told otherwise.

    ``settings`` are Spark's own, by name, for tuning; what a session was started with stays until the process ends.
    """
    local = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    ours = {
        "spark.driver.memory": memory.upper().removesuffix("B"),
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "OFF",  # what fails is raised, once, with its step
        "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "stillwatch-warehouse"),
        **({} if master else {"spark.sql.shuffle.partitions": str(threads or 2), **local}),
        **settings,
    }
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    builder = SparkSession.builder.appName("stillwatch").master(master or f"local[{threads or 2}]")
    try:
        return builder.config(map=ours).getOrCreate()
    except (PySparkException, OSError) as e:
        raise EngineError(f"Spark does not start: {e}", hint="it needs Java 17 or later, by PATH or JAVA_HOME") from e


class Spark:
    """An ``Engine``. Its tables are views of a session of its own, so engines do not see each other's."""

    def __init__(self, shared: SparkSession, spill: Path | None = None) -> None:
        if spill is not None:
            spill.mkdir(parents=True, exist_ok=True)
        self._spark = shared.newSession()
        for name, value in _MEANING.items():
            self._spark.conf.set(name, value)
        self._folder = Path(tempfile.mkdtemp(prefix="stillwatch-", dir=spill))
        self._tables: dict[str, Path] = {}
        self._written = 0

    def append(self, table: str, batch: pa.Table | pa.RecordBatch) -> None:
        source = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        folder = self._tables.get(table) or self._fresh()
        try:
            if table in self._tables:
                source = _as(source, pq.read_schema(next(folder.glob("*.parquet"))))
            folder.mkdir(exist_ok=True)
            source = pa.Table.from_arrays(source.columns, names=source.column_names)  # any column may hold a null
            pq.write_table(source, folder / f"appended-{self._fresh().name}.parquet")
            self._show(table, folder, None)
        except _FAILURES as e:
            raise step_failed(table, "append", e) from e

    def step(self, name: str, sql: str, params: Params = NONE) -> None:
        # Written out, not checkpointed: a checkpoint keeps constraints of the plan it came from, and Spark then
        # fails in a UNION or drops a filter in silence (its issue SPARK-52353 is one of those).
        folder = self._fresh()
        try:
            result = self._spark.sql(translate(sql, params))
            result.write.parquet(str(folder))
            self._show(name, folder, result.schema)
        except _FAILURES as e:
            raise step_failed(name, sql, e) from e

    def _fresh(self) -> Path:
        self._written += 1
        return self._folder / str(self._written)

    def _show(self, name: str, folder: Path, schema: Any) -> None:
        """Make ``name`` a view of what ``folder`` holds, and drop the folder it was a view of before."""
        reader = self._spark.read if schema is None else self._spark.read.schema(schema)
        reader.parquet(str(folder)).createOrReplaceTempView(name)
        before = self._tables.get(name, folder)
        if before != folder:
            shutil.rmtree(before)
        self._tables[name] = folder

    def rows(self, sql: str, params: Params = NONE) -> pa.Table:
        text = f"SELECT * FROM {quoted(sql)}" if sql.isidentifier() else sql
        try:
            return plain(self._spark.sql(translate(text, params)).toArrow())
        except _FAILURES as e:
            raise step_failed("rows", sql, e) from e

    def close(self) -> None:
        """Forget the tables. The process's Spark keeps running for the next engine and ends with the process."""
        for table in self._tables:
            self._spark.catalog.dropTempView(table)
        self._tables.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Spark:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as(source: pa.Table, schema: pa.Schema) -> pa.Table:
    """``source`` with the columns of ``schema``, by name, what is missing null. ArrowInvalid where it has others."""
    unknown = set(source.column_names) - set(schema.names)
    if unknown:
        raise pa.ArrowInvalid(f"no such column: {', '.join(sorted(unknown))}")
    known = set(source.column_names)
    columns = [source[f.name].cast(f.type) if f.name in known else pa.nulls(len(source), f.type) for f in schema]
    return pa.Table.from_arrays(columns, names=schema.names)
