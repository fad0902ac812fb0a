"""The verbs around a policy: is the file right, what does it say in plain words, whom would it hit now."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from stillwatch.cli_options import JsonFlag
from stillwatch.errors import UsageError

if TYPE_CHECKING:
    from stillwatch.policy import Preview
    from stillwatch.store.state import Judgement
    from stillwatch.types import Action

app = App(name="policy", help="Check a policy, say in plain words what it does, or whom it would hit now.")


@app.command
def check(file: Path) -> int:
    """Read a policy whole and tell every fault at once, with its line and what to do.

    For example:

        stillwatch policy check policy.toml

    Exit codes: 0 it can be used; 2 it cannot.

    Parameters
    ----------
    file
        The policy, TOML.
    """
    from stillwatch import policy

    found = policy.load(file)
    print(f"{file}: no faults in {len(found.rules)} rule{'s' if len(found.rules) != 1 else ''}")
    for note in found.notes:
        print(f"  note: {note}")
    return 0


@app.command
def explain(file: Path | None = None) -> int:
    """Say in plain words what a policy does, a sentence for each rule and each bound.

    For example:

        stillwatch policy explain
        stillwatch policy explain policy.toml

    Parameters
    ----------
    file
        The policy, TOML; the one that is built in if none is given.
    """
    from stillwatch import policy

    for sentence in policy.explain(policy.load(file)):
        print(sentence)
    return 0


@app.command
def preview(
    result: Path,
    *,
    policy: Path | None = None,
    accounts: Path | None = None,
    home: Path | None = None,
    key: Path | None = None,
    at: str | None = None,
    json_: JsonFlag = False,
) -> int:
    """Tell for each rule whom it would hit now and who else shares something with them; nothing is done.

    Examples:

        stillwatch policy preview result
        stillwatch policy preview result --policy policy.toml --accounts acc.parquet
        stillwatch policy preview home/results --home home --json

    Parameters
    ----------
    result
        Folder that stillwatch scan or replay wrote.
    policy
        The policy, TOML; the one that is built in if none is given.
    accounts
        One row per account, to see who else has their card, organisation or phone, and who declares an organisation.
    home
        Folder of a server: what is in force there and what people have judged count too.
    key
        File with the secret that delays and held-out accounts are drawn by; else STILLWATCH_KEY, else one made for this run.
    at
        The moment to decide at (ISO 8601, UTC): now with a home, else the end of the log.
    json_
        Print the rows as JSON.
    """
    from datetime import UTC, datetime

    from rich.console import Console

    from stillwatch import policy as policies
    from stillwatch.privacy import Privacy
    from stillwatch.windows import parse_moment

    now = parse_moment(at) if at else datetime.now(UTC) if home else policies.end_of(result)
    known, judged = _of_home(home, now)
    table = policies.accounts_of(accounts) if accounts else None
    newest = policies.findings_of(result, {a.account_id for a in known})
    traffic = policies.Traffic() if table is None else policies.traffic_of(table)
    seed = Privacy.load(key).seed("policy").to_bytes(8, "little")
    ties = None if table is None else policies.ties_of(table)
    rows = policies.preview(policies.load(policy), newest, known, judged, traffic, now, seed, ties)
    if json_:
        print(json.dumps([_plain(row) for row in rows], indent=2))
    else:
        policies.show(rows, Console())
    return 0


def _of_home(home: Path | None, now: Any) -> tuple[tuple[Action, ...], dict[str, Judgement]]:
    """What is known in a server's home: actions that have not run out, and judgements."""
    from stillwatch.actions import Actions
    from stillwatch.serving.custody import place_told
    from stillwatch.serving.home import Home
    from stillwatch.store.state import State

    if home is None:
        return (), {}
    place = place_told(Home(home))
    if isinstance(place, Path) and not place.is_file():
        raise UsageError(f"{home}: no server's home", hint="the folder that stillwatch serve was given")
    with State(place) as state:
        return Actions(state, None).known(now), state.judgements()


def _plain(row: Preview) -> dict[str, Any]:
    begins = [at.isoformat() for at in row.begins] if row.begins else None
    return dataclasses.asdict(row) | {"rung": row.rung.value, "begins": begins}
