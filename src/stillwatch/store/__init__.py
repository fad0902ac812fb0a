"""The engine: where tables by the million live, and the four verbs anybody may say to it.

    append   rows of Arrow into a table          rows    a table or a SELECT out as Arrow
    step     a named SELECT becomes a table      close   give back memory, threads and files

The SELECTs are one text in the embedded engine's dialect; another engine translates it in its own file and nowhere
else. Parameters are bound, never formatted in. Each engine is one file here, opened by its name; nothing outside this
folder asks which one it is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from stillwatch.errors import UsageError
from stillwatch.store.engine import Engine, Params, Value

__all__ = ["ENGINES", "Engine", "Params", "Value", "open_engine"]

ENGINES = ("duckdb", "spark")


def open_engine(
    name: str = "duckdb", memory: str = "3GB", threads: int | None = None, spill: Path | None = None
) -> AbstractContextManager[Engine]:
    """A fresh, empty engine, closed at the end of its ``with``.

    ``name`` is ``duckdb``, ``spark`` (two local threads) or ``spark:MASTER``, such as ``spark:yarn``. ``memory`` caps
    the engine, not the process, which takes about 1 GB more. ``threads`` None or 0 is all cores. ``spill`` is the
    folder for tables and sorts that outgrow memory (the system's temporary one where None), left as it was found.
    UsageError where the engine is unknown or its packages are missing.
    """
    if name == "duckdb":
        from stillwatch.store.duckdb import DuckDB  # noqa: PLC0415  # engines load on first use

        return DuckDB(memory, threads, spill)
    if name == "spark" or name.startswith("spark:"):
        from stillwatch.store.spark import Spark, session  # noqa: PLC0415

        return Spark(session(memory, threads, name.partition(":")[2]), spill)
    raise UsageError(f"no engine is called {name!r}", hint=f"known: {', '.join(ENGINES)}")
