"""The verbs of a state in a database: bring it there and back, and take one over that was written beside another audit."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from stillwatch.cli_options import Flag
from stillwatch.cli_trust import me
from stillwatch.errors import UsageError

if TYPE_CHECKING:
    from stillwatch.audit import Audit
    from stillwatch.serving.home import Home
    from stillwatch.store.places import Address

state = App(name="state", help="Where a server's state is: in its home, or in PostgreSQL.")


@state.command
def move(home: Path, *, back: Flag = False, config: Path | None = None) -> int:
    """Bring a home's state from its file into the database that its settings name, or back.

    Examples:

        stillwatch state move home
        stillwatch state move home --back

    The server must be stopped and the place it goes to be empty. The file is kept under
    another name; coming back, the database stays as it is. Written to the audit first.

    Parameters
    ----------
    home
        The folder that serve was given.
    back
        From the database into a file again.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    """
    from stillwatch.serving import custody

    with _stopped(home, config) as (found, address, audit):
        rows = (custody.move_back if back else custody.move)(found, address, audit, me())
    if back:
        print(f"{found.state}: {rows:,} rows from {address}")
        print("take the address out of the settings and the environment before the next start", file=sys.stderr)
    else:
        print(f"{address}: {rows:,} rows from {found.state.name}, which is kept under another name")
    return 0


@state.command
def adopt(home: Path, *, reason: str, config: Path | None = None) -> int:
    """Take over a state in a database whose audit is lost.

    Examples:

        stillwatch state adopt home --reason "the disk is gone"

    From here on this home's audit goes with the state; what is in force stays. Where the
    other audit still exists, bring its folder and its key here instead.

    Parameters
    ----------
    home
        The folder that serve was given.
    reason
        Why, for the audit.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    """
    from stillwatch.serving import custody
    from stillwatch.store.state import State

    if not reason.strip():
        raise UsageError("no reason is given", hint="it is written to the audit")
    with _stopped(home, config) as (found, address, audit), State(address, holds=True) as held:
        before = custody.adopt(found, held, audit, me(), reason)
    print(f"{address}: goes with the audit in {found.audit} from here on, no more with {before or 'none'}")
    return 0


@contextmanager
def _stopped(home: Path, config: Path | None) -> Iterator[tuple[Home, Address, Audit]]:
    """A home that no server has, the database of its settings, and its audit. UsageError where they name none."""
    from stillwatch.audit import Audit, load_signer
    from stillwatch.serving.custody import place_told
    from stillwatch.serving.home import Home
    from stillwatch.store.places import VARIABLE, Address

    if not home.is_dir():
        raise UsageError(f"{home}: there is no such folder", hint="give the folder that serve was given")
    found = Home(home)
    address = place_told(found, config)
    if not isinstance(address, Address):
        raise UsageError(
            f"{home}: its settings name no database", hint=f'state = "postgresql://..." in serve.toml, or {VARIABLE}'
        )
    with found.held(), Audit(found.audit, load_signer(found.audit_key)) as audit:
        yield found, address, audit
