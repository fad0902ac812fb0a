"""One TOML file to one frozen ``Config``; an unknown key is an error, with the known ones as a hint."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillwatch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a run.

    ``engine`` is the store's name, ``memory`` the engine's limit (the whole process takes about 1 GB more), ``threads`` 0 for
    all cores, ``detectors`` overrides a detector's numbers by name: ``{"shared_payment": {"max_holders": 100}}``.
    """

    engine: str = "duckdb"
    memory: str = "2GB"
    threads: int = 0
    detectors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The settings as a dict, for ``run.json``."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


def load(path: Path | None) -> Config:
    """The settings in ``path``, or the defaults. UsageError names an unknown key or a wrong type and its file."""
    if path is None:
        return Config()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be read as TOML: {e}") from e
    known = {f.name: type(getattr(Config(), f.name)) for f in dataclasses.fields(Config)}
    for key, value in raw.items():
        if key not in known:
            raise UsageError(f"{path}: unknown setting {key!r}", hint=f"known: {', '.join(known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise UsageError(f"{path}: {key} must be {known[key].__name__}, not {type(value).__name__}")
    if raw.get("threads", 0) < 0:
        raise UsageError(f"{path}: threads must be at least 0, where 0 is all cores")
    for fault in _numbers(raw.get("detectors", {})):
        raise UsageError(f"{path}: {fault}")
    return Config(**raw)


def _numbers(detectors: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the numbers given to detectors."""
    for detector, numbers in detectors.items():
        if not isinstance(numbers, dict):
            yield f"detectors.{detector} must be a table of numbers, such as [detectors.shared_payment]"
            continue
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                yield f"detectors.{detector}.{name} must be a number, not {type(value).__name__}"
