"""What was in force, on disk: the file a restart answers from before anything else runs.

``in_force.json`` is whole or absent. Each entry carries a MAC of its own and the file one over all of them, under a key that is
not in it (without a key, plain digests: these find damage, not forgery). What a MAC does not fit is not believed: nobody who can
only write the file can have an account suspended. From a damaged file every entry that can still be proven is kept, so that known
bad accounts keep their last answer; the loss is told, and what is left counts as stale.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillwatch.errors import Terminal
from stillwatch.serving.decisions import Table
from stillwatch.store.state import write_json
from stillwatch.types import InForce, Part, Rung

FORMAT = "stillwatch in force 1"
PARTS = ("accounts", "keys", "end_users", "shadows")
OF_PART = {"keys": Part.KEY, "end_users": Part.END_USER}
"""What the answers of a part of the table are on, where not on accounts."""
MAC_BYTES = 16
ENTRY = re.compile(r"^ {4}\{$", re.MULTILINE)
"""How an entry begins in the file, as ``write_json`` lays it out."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table as it was read. ``faults`` says what was wrong with the file; with any, the table is stale.

    ``written_at`` is None where even that could not be read or proven.
    """

    table: Table
    written_at: datetime | None
    faults: tuple[str, ...] = ()


def save(path: Path, table: Table, now: datetime, key: bytes = b"") -> None:
    """Write the table, whole or not at all; a full disk is a Terminal error and the old file stands."""
    written_at = now.astimezone(UTC).isoformat()
    try:
        entries = [_entry(part, who, held, key) for part in PARTS for who, held in getattr(table, part).items()]
        seal = _seal(written_at, entries, key)
        write_json(path, {"format": FORMAT, "written_at": written_at, "mac": seal, "entries": entries})
    except (OSError, TypeError, ValueError) as e:
        raise Terminal(f"{path}: what is in force could not be written: {e}") from e


def load(path: Path, key: bytes = b"") -> Snapshot:
    """What the file proves. No file is an empty table without a fault; a file that cannot be read is a fault."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return Snapshot(Table(), None)
    except OSError as e:
        return Snapshot(Table(), None, (f"{path}: cannot be read: {e.strerror}",))
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return _salvage(path, text, key)
    if not isinstance(whole, dict) or whole.get("format") != FORMAT or not isinstance(whole.get("entries"), list):
        return Snapshot(Table(), None, (f"{path}: is no file of ours ({FORMAT!r} expected)",))
    return _checked(path, whole, key)


def _checked(path: Path, whole: dict[str, Any], key: bytes) -> Snapshot:
    entries, written_at = whole["entries"], whole.get("written_at")
    table, proven = _table(entries, key)
    if proven == len(entries) and _same(whole.get("mac"), _seal(written_at, entries, key)):
        return Snapshot(table, datetime.fromisoformat(str(written_at)))
    return Snapshot(table, None, (_loss(path, proven, len(entries)),))


def _salvage(path: Path, text: str, key: bytes) -> Snapshot:
    """A file cut off or overwritten in places: each entry that can be read and proven."""
    entries = list(_legible(text))
    table, proven = _table(entries, key)
    return Snapshot(table, None, (_loss(path, proven, len(ENTRY.findall(text))),))


def _legible(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    for match in ENTRY.finditer(text):
        try:
            yield decoder.raw_decode(text, match.end() - 1)[0]
        except (ValueError, RecursionError):
            continue


def _loss(path: Path, proven: int, seen: int) -> str:
    why = "damaged" if proven else "damaged, or was written under another key"
    return f"{path}: is {why}: {proven} of {seen} entries seen could be proven and go on holding, the rest are left out"


def _table(entries: list[Any], key: bytes) -> tuple[Table, int]:
    """The entries that are proven, as a table, and how many they are."""
    parts: dict[str, dict[str, InForce]] = {part: {} for part in PARTS}
    proven = 0
    for entry in entries:
        try:
            part, who, held = _proven(entry, key)
            parts[part][who] = held
        except (KeyError, TypeError, ValueError):
            continue
        proven += 1
    return Table(**parts), proven


def _entry(part: str, who: str, held: InForce, key: bytes) -> dict[str, Any]:
    bare = {
        "part": part,
        "who": who,
        "account": held.account_id,
        "rung": held.rung.value,
        "action": held.action_id,
        "campaign": held.campaign_id,
        "until": held.expires_at.astimezone(UTC).isoformat(),
        "settings": dict(held.settings),
    }
    return {**bare, "mac": _mac(bare, key)}


def _proven(entry: Any, key: bytes) -> tuple[str, str, InForce]:
    """What an entry says; ValueError, KeyError or TypeError if its MAC does not fit it or it says nothing of ours."""
    bare = {name: value for name, value in entry.items() if name != "mac"} if isinstance(entry, dict) else {}
    if not bare or not _same(entry["mac"], _mac(bare, key)):
        raise ValueError("its MAC does not fit it")
    until = datetime.fromisoformat(bare["until"])
    if until.tzinfo is None or not isinstance(bare["settings"], dict):
        raise ValueError("it has no end with a zone, or no settings")
    part = OF_PART.get(bare["part"], Part.ACCOUNT)
    mark = "" if part is Part.ACCOUNT else bare["who"]
    held = InForce(
        bare["account"], Rung(bare["rung"]), bare["action"], bare["campaign"], until, bare["settings"], part, mark
    )
    return bare["part"], bare["who"], held


def _seal(written_at: object, entries: list[Any], key: bytes) -> str:
    """Over the time and every entry's MAC, so that an entry taken away or put twice is found."""
    macs = [entry.get("mac") if isinstance(entry, dict) else None for entry in entries]
    return _mac([FORMAT, written_at, macs], key)


def _mac(value: Any, key: bytes) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    whole = hmac.digest(key, text, "sha256") if key else hashlib.sha256(text).digest()
    return whole[:MAC_BYTES].hex()


def _same(given: object, right: str) -> bool:
    return isinstance(given, str) and given.isascii() and hmac.compare_digest(given, right)
