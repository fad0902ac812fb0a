"""What a judge does about a state that an older version wrote in another format: begin anew, and lose nothing silently.

The old state is moved to a folder beside the new one, in which nothing is ever read again. What it had concluded is carried
over from the results; the exchanges are those that the spool still holds. All of it is said in ``rebuilt.json`` in the home,
and an alarm stands until a person has removed that.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.carrying import Carried
from stillwatch.checkpoint import FORMAT, MANIFEST, Checkpoint, OtherFormat, Saved
from stillwatch.errors import Terminal
from stillwatch.findings import ACCOUNTS_SCHEMA, CLEARED_AT
from stillwatch.serving.home import Home
from stillwatch.spool import Spool
from stillwatch.store.state import write_json, write_parquet
from stillwatch.telling import moment

CARRIED = ("carried.json", "carried.parquet")


def take_up(
    home: Home, checkpoint: Checkpoint, spool: Spool, horizon: timedelta, at: int
) -> tuple[Saved | None, Carried | None]:
    """The state to go on from; where there is none, what is carried over from one that could not be taken up. ``at`` is the
    time by the clock (us). UsageError and Terminal as ``Checkpoint.load``, but for a state of another format."""
    try:
        saved = checkpoint.load()
    except OtherFormat as e:
        begin_anew(home, e, spool, horizon, at)
        saved = None
    if saved is None:
        return None, read_carried(home)
    for name in CARRIED:
        (home.watch / name).unlink(missing_ok=True)
    return saved, None


def begin_anew(home: Home, old: OtherFormat, spool: Spool, horizon: timedelta, at: int) -> None:
    """Keep what the results say, say what is done, and move the old state away; done again, from any point on, after a crash."""
    history, accounts = _results(home)
    write_parquet(home.watch / CARRIED[1], accounts)
    until = old.end + horizon // timedelta(microseconds=1)
    write_json(home.watch / CARRIED[0], {"until": until, "history": history})
    aside = home.watch / f"format-{old.format}-{moment(at):%Y%m%dT%H%M%S}"
    held = spool.figures()
    told = {
        "at": moment(at).isoformat(), "from_format": old.format, "from_version": old.version, "to_format": FORMAT,
        "exchanges_of_the_old_state": old.rows, "exchanges_in_the_spool": held.rows,
        "spool_since": held.oldest.isoformat() if held.oldest else None, "old_state": str(aside),
        "campaigns_carried": len(history), "accounts_carried": accounts.num_rows - accounts["campaign_id"].null_count,
        "what_to_know": "what is judged now is what the spool still holds; who was counted to a campaign stays so until "
        f"{moment(until).isoformat()} or a person says otherwise; remove this file when you have read it",
    }  # fmt: skip
    write_json(home.rebuilt, [*read_rebuilt(home), told])
    aside.mkdir(exist_ok=True)
    kept = (".lock", MANIFEST, *CARRIED)
    for path in sorted(p for p in home.watch.iterdir() if p.is_file() and p.name not in kept):
        os.replace(path, aside / path.name)
    # Last: as long as it is there, all of this is done again.
    os.replace(home.watch / MANIFEST, aside / MANIFEST)


def _results(home: Home) -> tuple[list[object], pa.Table]:
    """History and accounts of the last results, empty where there are none. Terminal where they cannot be read."""
    columns = pa.schema([*ACCOUNTS_SCHEMA, CLEARED_AT])
    if not (home.results / "run.json").exists():
        return [], columns.empty_table()
    try:
        history = json.loads((home.results / "history.json").read_text(encoding="utf-8"))
        return history, pq.read_table(home.results / "accounts.parquet")
    except (OSError, ValueError, pa.ArrowException) as e:
        hint = "restore results/ from a backup; or remove it, and what was known of campaigns is not carried over"
        raise Terminal(f"{home.results}: the results that are to be carried over cannot be read: {e}", hint=hint) from e


def read_carried(home: Home) -> Carried | None:
    """What was carried over, None where nothing was. Terminal where it cannot be read."""
    try:
        told = json.loads((home.watch / CARRIED[0]).read_text(encoding="utf-8"))
        return Carried.of(told["history"], pq.read_table(home.watch / CARRIED[1]), int(told["until"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as e:
        hint = "remove it to begin without what was known of campaigns"
        raise Terminal(f"{home.watch / CARRIED[0]}: what was carried over cannot be read: {e}", hint=hint) from e


def read_rebuilt(home: Home) -> list[object]:
    """What was said of states that were begun anew and that nobody has removed; empty where that cannot be read."""
    try:
        told = json.loads(home.rebuilt.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return told if isinstance(told, list) else []
