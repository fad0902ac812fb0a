"""A new key for the audit of a home: the old one vouches for it, and then is no more.

The new key is on disk under another name before anything of it is in the log, and takes the old one's place once the old one's
last checkpoint, which covers the entry that names it, is on disk. Done again after a crash it goes on with that same key.

A state in a database is bound to the key. It is held meanwhile, so that no server elsewhere goes on beside the old key, and
follows at once; after a crash, or where it is out of reach by then, at the server's next start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stillwatch.audit import Audit
from stillwatch.entries import LOG
from stillwatch.errors import Transient, UsageError
from stillwatch.notes import KEY_VARIABLE, Signer, Verifier, load_signer
from stillwatch.secret import secret_from, write_new
from stillwatch.serving import custody
from stillwatch.serving.home import Home
from stillwatch.store.state import State


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of keys came to: both public keys, and the entries that the old one has vouched for.

    ``untold`` is why a state in a database does not know of the new key yet, empty where it does or is in the home.
    """

    old: Verifier
    new: Verifier
    entries: int
    untold: str = ""


def change(home: Home, who: str, config: Path | None = None) -> Changed:
    """Have the audit signed with a new key. UsageError where there is no audit, or no key of it; Transient while a server has
    the home, or the state in a database, or where that cannot be reached; Terminal where the state is another audit's."""
    if not (home.audit / LOG).exists():
        raise UsageError(f"{home.folder}: there is no audit in it", hint="give the folder that serve was given")
    if not home.audit_key.exists() and not os.environ.get(KEY_VARIABLE):
        raise UsageError(f"{home.audit_key}: the key that signs the audit is not there", hint="put it back")
    with home.held():
        old, place = load_signer(home.audit_key), custody.place_told(home, config)
        with Audit(home.audit, old) as audit, custody.claimed(home, place, audit) as state:
            new, file = _drawn(home, old)
            vouched = audit.change_key(new, who, "admin", lambda: _put_in_place(file, home.audit_key))
            untold = _tell(home, state, audit) if state else ""
    return Changed(old.verifier, new.verifier, vouched.size, untold)


def _drawn(home: Home, old: Signer) -> tuple[Signer, Path]:
    """The next key and its file: the one that a change which broke off has left, else a new one."""
    file = _next(home)
    if not file.exists():
        write_new(file, Signer.make(old.name).text().reveal(), KEY_VARIABLE)
    return Signer.parse(secret_from(file), str(file)), file


def _tell(home: Home, state: State, audit: Audit) -> str:
    """Bind the state to the audit's new key; why that could not be done, else nothing. The key has changed by now either way."""
    try:
        custody.claim(home, state, audit)
    except Transient as e:
        return e.message
    return ""


def _next(home: Home) -> Path:
    return home.audit_key.with_name(f"{home.audit_key.name}.next")


def _put_in_place(new: Path, key: Path) -> None:
    os.replace(new, key)
    folder = os.open(key.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
