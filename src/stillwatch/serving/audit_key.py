"""A new key for the audit of a home: the old one vouches for it, and then is no more.

The new key is on disk under another name before anything of it is in the log, and takes the old one's place once the old one's
last checkpoint, which covers the entry that names it, is on disk. Done again after a crash it goes on with that same key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stillwatch.audit import Audit
from stillwatch.entries import LOG
from stillwatch.errors import UsageError
from stillwatch.notes import KEY_VARIABLE, Signer, Verifier, load_signer
from stillwatch.secret import secret_from, write_new
from stillwatch.serving.home import Home


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of keys came to: both public keys, and the entries that the old one has vouched for."""

    old: Verifier
    new: Verifier
    entries: int


def change(home: Home, who: str) -> Changed:
    """Have the audit signed with a new key. UsageError where there is no audit, or no key of it; Transient while a server has
    the home."""
    if not (home.audit / LOG).exists():
        raise UsageError(f"{home.folder}: there is no audit in it", hint="give the folder that serve was given")
    if not home.audit_key.exists() and not os.environ.get(KEY_VARIABLE):
        raise UsageError(f"{home.audit_key}: the key that signs the audit is not there", hint="put it back")
    with home.held():
        old, place = load_signer(home.audit_key), _next(home)
        with Audit(home.audit, old) as audit:
            if not place.exists():
                write_new(place, Signer.make(old.name).text().reveal(), KEY_VARIABLE)
            new = Signer.parse(secret_from(place), str(place))
            vouched = audit.change_key(new, who, "admin", lambda: _put_in_place(place, home.audit_key))
    return Changed(old.verifier, new.verifier, vouched.size)


def _next(home: Home) -> Path:
    return home.audit_key.with_name(f"{home.audit_key.name}.next")


def _put_in_place(new: Path, key: Path) -> None:
    os.replace(new, key)
    folder = os.open(key.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
