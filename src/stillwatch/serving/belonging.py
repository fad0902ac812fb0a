"""To which account a key or an end user belongs, as far as the log has said: for gateways that know nothing else of a caller.

End users are learnt from the exchanges that come in, keys from what is said of accounts. Who was seen with two accounts belongs
to none: nobody is taken for somebody else. It is memory: bounded, the oldest forgotten first, and kept in a file of marks that is
only added to, so that a restart knows it; what a crash loses, a few seconds' worth, traffic tells again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from stillwatch.errors import Transient
from stillwatch.serving.marks import Marks
from stillwatch.store.state import write_text

MOST = 200_000
"""Marks that are remembered; about 200 bytes of memory each."""
SHARED = ""
"""What stands for several accounts."""
LONGEST = 256
"""Characters of a name that is remembered; longer ones name nobody."""


class Belongings:
    """What the log has said, in memory and in the file ``path``. Learnt by any thread, asked by any."""

    def __init__(self, path: Path, marks: Marks, most: int = MOST) -> None:
        self._path, self._marks, self._most = path, marks, most
        self._guard = threading.Lock()
        self._owners: dict[str, str] = {}
        self._new: dict[str, str] = {}
        self.shared, self.forgotten = 0, 0
        """How many belong to several accounts, and so to none; how many were forgotten since the start."""
        self._load()

    def __len__(self) -> int:
        return len(self._owners)

    def owner(self, key: str, end_user: str) -> str:
        """The account of a key (the SHA-256 of its secret, in hex), or where none is given that of an end user; empty where it
        is not known, or not one alone."""
        if not self._owners:
            return ""
        name = self._marks.key(key) if key else self._marks.anyone(end_user) if end_user else ""
        return self._owners.get(name, "")

    def learn(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Take up whose the end users of exchanges are; batches have the canonical columns."""
        for batch in batches:
            names = batch.column("end_user")
            if names.null_count < len(names):
                pairs = set(zip(batch.column("account_id").to_pylist(), names.to_pylist()))
                self._take((self._marks.anyone(name), account) for account, name in pairs if _is_name(name))

    def learn_keys(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take up whose keys are: accounts, each with the SHA-256 of a key's secret."""
        self._take((self._marks.key(key), account) for account, key in pairs)

    def write(self) -> None:
        """Add what is new to the file. Transient where it cannot be written: it is tried again the next time."""
        with self._guard:
            new, self._new = self._new, {}
        if not new:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.writelines(_lines(new))
        except OSError as e:
            with self._guard:
                self._new = new | self._new
            raise Transient(f"{self._path}: cannot be written: {e.strerror}", hint="is the disk full?") from e

    def _take(self, found: Iterable[tuple[str, str]]) -> None:
        with self._guard:
            for mark, account in found:
                before = self._owners.get(mark)
                if before in (account, SHARED):
                    continue
                self._owners[mark] = self._new[mark] = account if before is None else SHARED
                self.shared += before is not None
            self._forget()

    def _forget(self) -> None:
        """Let the oldest go where there are too many."""
        while len(self._owners) > self._most:
            self.shared -= self._owners.pop(next(iter(self._owners))) == SHARED
            self.forgotten += 1

    def _load(self) -> None:
        """What the file says, the last word on each mark; written anew where much of it is outdated."""
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as e:
            raise Transient(f"{self._path}: cannot be read: {e.strerror}", hint="check its owner") from e
        lines = 0
        for mark, account in _read(text):
            lines += 1
            self._owners[mark] = account
        self.shared = sum(owner == SHARED for owner in self._owners.values())
        self._forget()
        if lines > 2 * len(self._owners) or not text.endswith("\n"):
            write_text(self._path, "".join(_lines(self._owners)))
            self._path.chmod(0o600)


def _is_name(name: str | None) -> bool:
    return name is not None and 0 < len(name) <= LONGEST


def _lines(owners: dict[str, str]) -> Iterator[str]:
    for mark, account in owners.items():
        yield json.dumps([mark, account]) + "\n"


def _read(text: str) -> Iterator[tuple[str, str]]:
    """What each line says; one that a crash cut off says nothing."""
    for line in text.splitlines():
        try:
            mark, account = json.loads(line)
        except (ValueError, TypeError):
            continue
        if isinstance(mark, str) and isinstance(account, str):
            yield mark, account
