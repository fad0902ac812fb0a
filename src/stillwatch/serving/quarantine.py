"""Batches of the spool that can no longer be read: set aside where a person sees them, so that all others are judged.

A batch is written to the folder ``quarantine`` of the home before it is taken out of the spool: whenever that breaks off, it
is found again. Its exchanges are no longer known by their ids, so senders may repeat them; those that the state of the
judging holds already are not counted again. The alarm stands as long as there is anything in the folder: whoever has dealt
with it removes the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stillwatch.serving.home import Home
from stillwatch.spool import DamagedBatch, Spool
from stillwatch.store.state import atomic, write_json


def readable(spool: Spool, after: int, home: Home) -> Iterator[tuple[int, pa.Table]]:
    """As ``Spool.read``, over damaged batches: those are set aside."""
    while True:
        try:
            for number, rows in spool.read(after):
                after = number
                yield number, rows
            return
        except DamagedBatch as e:
            set_aside(spool, e, home, is_judged=False)


def set_aside(spool: Spool, damage: DamagedBatch, home: Home, *, is_judged: bool) -> None:
    """Keep what there is of a damaged batch in the folder, then take it out of the spool. ``is_judged`` where the state of the
    judging holds its rows already, so that nothing is lost."""
    found, name = spool.damaged(damage.number), f"batch-{damage.number}"
    if found.bytes is not None:
        with atomic(home.quarantine / f"{name}.bin") as place:
            place.write_bytes(found.bytes)
    told = {
        "batch": found.number, "why": damage.why, "rows": found.rows, "first": found.first.isoformat(),
        "last": found.last.isoformat(), "came": found.at.isoformat(), "judged": is_judged,
        "what_to_do": "nothing is lost" if is_judged else "have senders repeat what they sent at that time, then remove this",
    }  # fmt: skip
    write_json(home.quarantine / f"{name}.json", told)
    freed = spool.take_out(damage.number)
    write_json(home.quarantine / f"{name}.json", told | {"ids_freed": freed})


def files(home: Home) -> list[Path]:
    """What lies in the folder, by name; empty where there is none."""
    return sorted(home.quarantine.glob("batch-*.json"))
