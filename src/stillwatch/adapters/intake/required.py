"""A file whose columns are not ours is refused as a whole, with what was found and what that might be meant as."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from stillwatch.adapters.intake.files import fault
from stillwatch.tables import Table

USUAL_NAMES = {
    "exchange_id": ("id", "request_id", "response_id", "call_id", "event_id", "uuid"),
    "time": ("timestamp", "@timestamp", "ts", "created_at", "created", "start_time", "startTime", "datetime", "date"),
    "account_id": (
        "account",
        "user_id",
        "user",
        "api_key",
        "api_key_id",
        "key_id",
        "customer_id",
        "tenant_id",
        "org_id",
    ),
    "model": ("model_name", "model_id", "engine", "deployment"),
    "released_at": ("release_date", "released", "date"),
}
SHOWN = 12


def require(found: Iterable[str], table: Table, path: Path) -> None:
    """InputRejected if a required column of the table is not among the names found."""
    names = sorted(found)
    missing = [c for c in table.required if c not in names]
    if not missing:
        return
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    plural = "s" if len(missing) > 1 else ""
    raise fault(path, f"no column{plural} {', '.join(missing)} (found: {shown or 'none'})", _advice(missing, names))


def _advice(missing: list[str], names: list[str]) -> str:
    pairs = [(column, near) for column in missing if (near := _nearest(column, names))]
    if not pairs:
        return "is this the right file? another gateway's log needs a field map: --map FILE"
    lines = "; ".join(f'{column} = "{near}"' for column, near in pairs)
    return f"if they are there under other names, say so in a field map under [columns]: {lines}, and pass --map FILE"


def _nearest(column: str, names: list[str]) -> str:
    low = {n.lower(): n for n in names}
    for usual in USUAL_NAMES.get(column, ()):
        if usual.lower() in low:
            return low[usual.lower()]
    close = get_close_matches(column, list(low), n=1, cutoff=0.7)
    return low[close[0]] if close else ""
