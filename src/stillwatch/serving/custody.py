"""Which state a home has, and that it is this home's.

A state in a database is written beside one audit, which is a file of one home: the database says which, and a server with
another audit, or an older copy of it, is refused. It goes by the key that signs the audit, and follows where an old key has
vouched for a new one; a copy that only knows the old one is then another audit. The home says that its state is in a database
(``state.at``), so that a server which has lost its setting does not begin anew with nothing in force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillwatch.audit import Audit
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.serving.home import Home
from stillwatch.serving.settings import Settings, load
from stillwatch.store.moves import copy_state
from stillwatch.store.places import VARIABLE, Address, Place, place_of
from stillwatch.store.state import State, write_text


def marker_of(home: Home) -> Path:
    """The file that says where a home's state is, where that is not in the home."""
    return home.folder / "state.at"


def place_in(home: Home, settings: Settings) -> Place:
    """Where the home's state is by its settings and the environment. UsageError where the home says that it was elsewhere."""
    place = place_of(home.state, settings.state, home.folder / "keys" / "state.password")
    marker = marker_of(home)
    if isinstance(place, Path) and marker.exists():
        raise UsageError(
            f"{home.folder}: its state is in PostgreSQL, at {_read(marker)}, and neither {VARIABLE} nor its serve.toml says so",
            hint=f'set state = "postgresql://..." there, or {VARIABLE}; stillwatch state move HOME --back brings it back',
        )
    return place


def place_told(home: Home, config: Path | None = None) -> Place:
    """As ``place_in``, by the settings file of the home, or another one."""
    return place_in(home, load(config or (home.settings if home.settings.exists() else None)))


def claim(home: Home, state: State, audit: Audit) -> None:
    """Have the state written beside this audit from now on, under the key that signs it now.

    Terminal where it was written beside another audit, or a longer one; UsageError where it is empty and should not be. For a
    state in a file there is nothing to claim.
    """
    if not isinstance(state.place, Address):
        return
    with state.transaction():
        held = state.execute("SELECT * FROM holders ORDER BY number DESC LIMIT 1")
        _check_alone(home, state, is_empty=not held)
        if not held:
            _hold(state, audit)
        elif held[0]["audit"] not in (str(audit.verifier), *audit.former):
            raise Terminal(
                f"{state.place}: this state is written beside another audit, signed by {held[0]['audit']}",
                hint="bring that home's audit/ and keys/ here, or begin a new audit: stillwatch state adopt HOME",
            )
        elif (told := _last_told(state, held[0])) >= audit.size:
            raise Terminal(
                f"{state.place}: speaks of entry {told:,} of the audit, but the audit here has {audit.size:,}",
                hint="this is an old copy of the audit: bring the newest here; stillwatch audit verify shows what it has",
            )
        elif held[0]["audit"] != str(audit.verifier):
            _follow(state, held[0], audit)
    write_text(marker_of(home), f"{state.place}\n")


@contextmanager
def claimed(home: Home, place: Place, audit: Audit) -> Iterator[State | None]:
    """The home's state, claimed and held against servers meanwhile; None where it is in a file, which the home's lock holds.
    Transient where another server has it; else as ``claim``."""
    if not isinstance(place, Address):
        yield None
        return
    with State(place, holds=True) as state:
        claim(home, state, audit)
        yield state


def adopt(home: Home, state: State, audit: Audit, who: str, reason: str) -> str:
    """Have a state that was written beside another audit be this home's; whose it was. It is in this audit first."""
    with state.transaction():
        held = state.execute("SELECT audit FROM holders ORDER BY number DESC LIMIT 1")
        before = str(held[0]["audit"]) if held else ""
        audit.append("state.adopted", who, "admin", str(state.place), {"from": before, "reason": reason})
        _hold(state, audit)
    write_text(marker_of(home), f"{state.place}\n")
    return before


def move(home: Home, address: Address, audit: Audit, who: str) -> int:
    """Bring the home's state from its file into an empty database; how many rows. The file is kept under another name."""
    if not home.state.exists():
        raise UsageError(f"{home.state}: is not there: nothing to move", hint="start the server; it makes the tables")
    with State(home.state) as source, State(address, holds=True) as target:
        audit.append("state.moved", who, "admin", str(address), {"from": home.state.name})
        rows = copy_state(source, target)
        with target.transaction():
            _hold(target, audit)
    write_text(marker_of(home), f"{address}\n")
    _set_aside(home.state)
    return rows


def move_back(home: Home, address: Address, audit: Audit, who: str) -> int:
    """Bring the home's state from the database back into a file; how many rows. The database stays as it is."""
    if home.state.exists():
        raise UsageError(f"{home.state}: is there already", hint="move it away first")
    fresh = home.folder / ".state.db.new"
    _remove(fresh)
    with State(address, holds=True) as source, State(fresh) as target:
        claim(home, source, audit)
        audit.append("state.moved", who, "admin", home.state.name, {"from": str(address)})
        rows = copy_state(source, target)
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    fresh.rename(home.state)
    _remove(fresh)
    marker_of(home).unlink(missing_ok=True)
    return rows


def copy_to_file(address: Address, file: Path) -> int:
    """Write a copy, as a file of SQLite's, of what a database holds at one moment; how many rows."""
    with State(address) as source, State(file) as target:
        rows = copy_state(source, target)
        target.execute("PRAGMA journal_mode = DELETE")
    return rows


def _check_alone(home: Home, state: State, *, is_empty: bool) -> None:
    """UsageError where the home has another state than this one."""
    if home.state.exists():
        hint = (
            "stillwatch state move HOME brings it over" if is_empty else "empty the database first, or remove the file"
        )
        raise UsageError(f"{home.state}: is there beside the state at {state.place}: which is meant?", hint=hint)
    if is_empty and marker_of(home).exists():
        raise UsageError(
            f"{state.place}: is empty, but this home's state was at {_read(marker_of(home))}",
            hint=f"is it the right database? restore it; to begin with nothing in force, remove {marker_of(home)}",
        )


def _hold(state: State, audit: Audit) -> None:
    """A new audit: what was in the state before speaks of another one's entries."""
    _note(state, audit, _newest(state, "action_events"), _newest(state, "appeals"))


def _follow(state: State, held: Mapping[str, Any], audit: Audit) -> None:
    """The same audit under a new key: all that spoke of its entries still does."""
    _note(state, audit, held["after_event"], held["after_appeal"])


def _note(state: State, audit: Audit, after_event: int, after_appeal: int) -> None:
    state.execute(
        "INSERT INTO holders (audit, since, after_event, after_appeal) VALUES (?, ?, ?, ?)",
        str(audit.verifier), datetime.now(UTC).isoformat(), after_event, after_appeal,
    )  # fmt: skip


def _newest(state: State, table: str) -> int:
    return int(state.execute(f"SELECT coalesce(max(number), 0) AS n FROM {table}")[0]["n"])


def _last_told(state: State, held: Mapping[str, Any]) -> int:
    """The highest number of an entry of this audit that the state speaks of; -1 where of none."""
    found = [
        state.execute(f"SELECT coalesce(max(audit), -1) AS n FROM {table} WHERE number > ?", held[after])[0]["n"]
        for table, after in (("action_events", "after_event"), ("appeals", "after_appeal"))
    ]
    return int(max(found))


def _read(marker: Path) -> str:
    try:
        return marker.read_text(encoding="utf-8").strip()[:300]
    except (OSError, UnicodeDecodeError) as e:
        raise Transient(f"{marker}: cannot be read", hint="check its owner") from e


def _set_aside(file: Path) -> None:
    file.rename(file.with_name(f"{file.name}.moved-{datetime.now(UTC):%Y%m%dT%H%M%S}"))
    for rest in ("-wal", "-shm"):
        file.with_name(file.name + rest).unlink(missing_ok=True)


def _remove(file: Path) -> None:
    for rest in ("", "-wal", "-shm"):
        file.with_name(file.name + rest).unlink(missing_ok=True)
