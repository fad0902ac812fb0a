"""The verbs of trust: the audit, whole or not, and the tokens by which people and machines are let in."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from stillwatch.errors import UsageError

if TYPE_CHECKING:
    from stillwatch.audit import Entry, Verified, Verifier

audit = App(name="audit", help="Check what was done, by whom, and that nobody has changed it since.")

JsonFlag = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]

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


@audit.command
def show(
    home: Path,
    *,
    event: str = "",
    subject: str = "",
    who: str = "",
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

    found = log.select(log.entries(_audit_folder(home)), event, subject, who)
    for entry in deque(found, last) if last > 0 else found:
        print(json.dumps(entry.plain(), ensure_ascii=False, sort_keys=True) if json_ else _line(entry))
    return 0


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
    # As JSON, so that no control character of a name or a reason reaches the terminal.
    parts = [json.dumps(p)[1:-1] for p in (deed.event, deed.subject, f"{deed.who} ({deed.role})")]
    facts = f"  {json.dumps(deed.facts, sort_keys=True)}" if deed.facts else ""
    return f"{entry.number:>7}  {entry.at:%Y-%m-%d %H:%M:%S}  {parts[0]:<22} {parts[1]}  by {parts[2]}{facts}"
