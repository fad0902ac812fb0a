"""The verbs of trust: the audit, whole or not, and the tokens by which people and machines are let in."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import getpass
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from stillwatch.cli_options import JsonFlag, on_a_line
from stillwatch.errors import UsageError

if TYPE_CHECKING:
    from stillwatch.audit import Entry, Verified, Verifier
    from stillwatch.serving.access import Issued, Token
    from stillwatch.serving.office import Office

audit = App(name="audit", help="Check what was done, by whom, and that nobody has changed it since.")
token = App(name="token", help="Let people and machines in, each with a role of its own, and shut them out again.")


UNSOUND = 1
"""Exit code of ``audit verify`` where the log is not what was signed."""
SHOWN = 20
"""Faults and remarks shown to a person; with --json all are."""


@audit.command
def verify(home: Path, *, key: Path | None = None, since: Path | None = None, json_: JsonFlag = False) -> int:
    """Check the audit: every entry, their chain, the signed checkpoint, and an older checkpoint you kept.

    Examples:

        stillwatch audit verify home
        stillwatch audit verify home --key audit.pub --since checkpoint-of-june
        stillwatch audit verify copy-of/audit --json

    Reads the whole log and changes nothing; may be run beside the server. To catch
    somebody who could replace all of it, keep key.pub and a checkpoint elsewhere.

    Exit codes: 0 the log is what was signed; 1 it is not, and where it first differs.

    Parameters
    ----------
    home
        The folder that serve was given, or its audit folder, or a copy of that.
    key
        File with the public key you kept; else key.pub beside the log is believed.
    since
        A checkpoint you kept: the log must still begin with the entries it covers.
    json_
        Print what was found as JSON.
    """
    from stillwatch import audit as log

    folder = _audit_folder(home)
    trusted = log.Verifier.parse(_text_of(key)) if key else log.public_key(folder)
    found = log.verify(folder, trusted, _text_of(since) if since else None)
    if key is None:
        print(f"the key was taken from {folder / 'key.pub'}; give one you kept with --key", file=sys.stderr)
    if json_:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _tell_verified(found, trusted)
    return 0 if found.is_sound else UNSOUND


@audit.command(name="rotate")
def rotate_key(home: Path, *, config: Path | None = None, json_: JsonFlag = False) -> int:
    """Have the audit signed with a new key from now on; the old one vouches for it, and is no more.

    Examples:

        stillwatch audit rotate home
        stillwatch audit verify home --key audit.pub-of-last-year

    Stop the server first. The old key signs one last checkpoint, over the entry that
    names the new key; verify follows from any key you kept to the newest. Keep the new
    audit/key.pub elsewhere too. A key given in STILLWATCH_AUDIT_KEY is replaced by one in
    keys/audit.key: unset the variable then. A state in a database is bound to the new
    key too; copies of the home that stand by need the new key and audit.

    Exit codes: 0 done; 2 there is no audit or no key; 5 a server has the home or its
    state, or the database that holds the state cannot be reached.

    Parameters
    ----------
    home
        The folder that serve was given.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    json_
        Print both public keys as JSON.
    """
    from stillwatch.notes import KEY_VARIABLE
    from stillwatch.serving.audit_key import change
    from stillwatch.serving.home import Home

    done = change(Home(home), me(), config)
    if json_:
        print(json.dumps({"old": str(done.old), "new": str(done.new), "entries": done.entries}, indent=2))
    else:
        print(f"old {done.old}, which vouches for the new one and {done.entries:,} entries\nnew {done.new}")
    if done.untold:
        print(f"the state learns of the new key at the server's next start: {done.untold}", file=sys.stderr)
    if os.environ.get(KEY_VARIABLE):
        print(f"unset {KEY_VARIABLE}: the new key is in {Home(home).audit_key}", file=sys.stderr)
    return 0


@audit.command
def show(
    home: Path,
    *,
    event: str | None = None,
    subject: str | None = None,
    who: str | None = None,
    last: int = 50,
    json_: JsonFlag = False,
) -> int:
    """Show entries of the audit, oldest first.

    Examples:

        stillwatch audit show home
        stillwatch audit show home --event action --subject acct-41
        stillwatch audit show home --who ann --last 1000 --json

    Shows entries as they stand; stillwatch audit verify says whether to believe them.

    Parameters
    ----------
    home
        The folder that serve was given, or its audit folder.
    event
        Only entries of this event, such as action.signed, or of all that begin with it and a dot.
    subject
        Only entries on this account, action or token.
    who
        Only what this person or token did.
    last
        At most so many of the latest ones; 0 is all.
    json_
        Print each entry as a line of JSON, as it stands in the log.
    """
    from stillwatch import audit as log

    found = log.select(log.entries(_audit_folder(home)), event or "", subject or "", who or "")
    for entry in deque(found, last) if last > 0 else found:
        print(json.dumps(entry.plain(), ensure_ascii=False, sort_keys=True) if json_ else _line(entry))
    return 0


@token.command
def new(
    home: Path, name: str, *, role: str, expires: str = "90d", config: Path | None = None, json_: JsonFlag = False
) -> int:
    """Make a token and print it, this once; what is kept of it cannot be turned back into it.

    Examples:

        stillwatch token new home desk --role analyst
        stillwatch token new home litellm-1 --role gateway --expires 365d

    Roles of people, each with the rights of those before it: viewer, analyst,
    approver, admin. Of machines: ingest, gateway, partner, metrics.
    A running server makes the token, and writes it to its audit first: it takes a
    few seconds. Without one the command does both.

    Parameters
    ----------
    home
        The folder that serve was given.
    name
        Who holds it, as the audit and signatures will say. One person, one name.
    role
        What it is for.
    expires
        How long it lives: a number and s, m, h or d.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    json_
        Print the token and what is known of it as JSON.
    """
    from stillwatch.serving.access import Role
    from stillwatch.windows import parse_length

    if role not in list(Role):
        raise UsageError(f"no role is called {role!r}", hint=f"known: {', '.join(Role)}")
    lifetime = parse_length(expires)
    with _office(home, config) as office:
        _print_issued(office.issue(name, Role(role), lifetime), json_)
    return 0


@token.command
def rotate(home: Path, token_id: str, *, grace: str = "1d", config: Path | None = None, json_: JsonFlag = False) -> int:
    """Replace a token by a new one of the same name and role; the old one lives on for a while.

    Examples:

        stillwatch token rotate home 3f9c01ab77de --grace 12h

    Parameters
    ----------
    home
        The folder that serve was given.
    token_id
        The old token's id, its third part: stillwatch token list shows them.
    grace
        How long the old one lives on: a number and s, m, h or d.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    json_
        Print the new token and what is known of it as JSON.
    """
    from stillwatch.windows import parse_length

    kept = parse_length(grace)
    with _office(home, config) as office:
        _print_issued(office.rotate(token_id, kept), json_)
    return 0


@token.command
def revoke(home: Path, token_id: str, *, config: Path | None = None) -> int:
    """End a token now; a running server lets nobody in with it within five seconds.

    Examples:

        stillwatch token revoke home 3f9c01ab77de

    Parameters
    ----------
    home
        The folder that serve was given.
    token_id
        Its id, the third part of the token: stillwatch token list shows them.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    """
    with _office(home, config) as office:
        ended = office.revoke(token_id)
    print(f"{ended.token_id}: revoked {ended.revoked_at:%Y-%m-%d %H:%M:%S} UTC by {ended.revoked_by}")
    return 0


@token.command(name="list")
def list_(home: Path, *, config: Path | None = None, json_: JsonFlag = False) -> int:
    """List all tokens there ever were: whose, what for, until when, last used. Never the tokens themselves.

    Examples:

        stillwatch token list home
        stillwatch token list home --json

    Parameters
    ----------
    home
        The folder that serve was given.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    json_
        Print them as JSON.
    """
    from stillwatch.serving.access import Access
    from stillwatch.serving.custody import place_told
    from stillwatch.serving.home import Home
    from stillwatch.store.state import State

    _check_home(home)
    with State(place_told(Home(home), config)) as state:
        found = Access(state).tokens()
    if json_:
        print(json.dumps([t.to_dict() for t in found], indent=2))
        return 0
    now = datetime.now(UTC)
    for known in found:
        print(f"{known.token_id}  {known.role:<9} {_standing(known, now):<19} {_last_use(known):<21} {known.name}")
    return 0


@contextmanager
def _office(home: Path, config: Path | None) -> Iterator[Office]:
    """Where tokens are made for a home. UsageError where there is no such folder."""
    from stillwatch.serving.home import Home
    from stillwatch.serving.office import open_office

    _check_home(home)
    with open_office(Home(home), config, me()) as office:
        yield office


def _check_home(home: Path) -> None:
    if not home.is_dir():
        raise UsageError(f"{home}: there is no such folder", hint="give the folder that serve was given")


def me() -> str:
    """Whoever gives this command, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def _print_issued(issued: Issued, json_: bool) -> None:
    secret, known = issued.secret.reveal(), issued.token
    print(json.dumps({"token": secret, **known.to_dict()}, indent=2) if json_ else secret)
    print(
        f"for {known.name}, {known.role}, until {known.expires_at:%Y-%m-%d %H:%M} UTC; not shown again", file=sys.stderr
    )


def _standing(known: Token, now: datetime) -> str:
    if known.revoked_at:
        return f"revoked {known.revoked_at:%Y-%m-%d}"
    return f"{'until' if known.holds(now) else 'expired'} {known.expires_at:%Y-%m-%d}"


def _last_use(known: Token) -> str:
    return f"used {known.last_used_at:%Y-%m-%d %H:%M}" if known.last_used_at else "never used"


def _audit_folder(home: Path) -> Path:
    """The audit's folder of a home, or the folder itself; UsageError where there is no log in either."""
    for folder in (home / "audit", home):
        if (folder / "log.jsonl").exists() or (folder / "checkpoint").exists():
            return folder
    raise UsageError(
        f"{home}: there is no audit in it", hint="give the folder that serve was given, or its audit folder"
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: cannot be read: {getattr(e, 'strerror', e)}", hint="give a file of text") from e


def _tell_verified(found: Verified, key: Verifier) -> None:
    span = f", {found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC" if found.first and found.last else ""
    print(f"{'sound' if found.is_sound else 'NOT SOUND'}: {found.entries:,} entries, {found.signed:,} signed{span}")
    print(f"root {found.root}\nkey  {key}")
    _tell_some("fault", [str(f) for f in found.faults])
    _tell_some("remark", list(found.remarks))


def _tell_some(kind: str, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"{kind}: {line}")
    if len(lines) > SHOWN:
        print(f"and {len(lines) - SHOWN} more {kind}s: --json has them")


def _line(entry: Entry) -> str:
    deed = entry.deed
    parts = [on_a_line(p) for p in (deed.event, deed.subject, f"{deed.who} ({deed.role})")]
    facts = f"  {json.dumps(deed.facts, sort_keys=True)}" if deed.facts else ""
    return f"{entry.number:>7}  {entry.at:%Y-%m-%d %H:%M:%S}  {parts[0]:<22} {parts[1]}  by {parts[2]}{facts}"
