"""Reports as plain dicts, lists, texts and finite numbers: what ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from stillwatch.evaluation.measures import Rate


def plain(value: Any) -> Any:
    """Dataclasses become dicts of their fields; a rate becomes hits, total, value, low, high; NaN becomes null."""
    if isinstance(value, Rate):
        return {"hits": value.hits, "total": value.total, "value": value.value, "low": value.low, "high": value.high}
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
