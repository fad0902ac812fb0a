"""Folders of working memory that are gone when their process is, however it ended.

The rule that keeps it right: a folder is taken away by others only while they hold its lock, and the process it belongs to holds
that from before it can be seen until its end. What a killed process left is found by the next one that makes a folder there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX, LOCK = "stillwatch-", "lock"


class Scratch:
    """A new folder within ``within``, the system's place for temporary files if that is None; ``close`` takes it away."""

    def __init__(self, within: Path | None = None) -> None:
        if within is not None:
            within.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=within))
        self._lock = os.open(self.folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Named only once it is held: nobody else can have it.
        os.rename(self.folder / f"{LOCK}.new", self.folder / LOCK)
        for other in self.folder.parent.glob(f"{PREFIX}*/{LOCK}"):
            _take_away_if_left(other)

    def close(self) -> None:
        """Take the folder away; a second time does nothing."""
        if self._lock < 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def _take_away_if_left(lock: Path) -> None:
    """Take away the folder of a lock that nobody holds, if it is ours to take."""
    try:
        handle = os.open(lock, os.O_RDWR)
    except OSError:  # gone meanwhile, or somebody else's
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.parent, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)
