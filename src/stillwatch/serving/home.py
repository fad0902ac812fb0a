"""The home folder: what lies where in it, and that one server at a time has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stillwatch.errors import Transient, UsageError
from stillwatch.store.state import take_lock


@dataclass(frozen=True, slots=True)
class Home:
    """Paths in a home folder; docs/decisions/0007-beside-the-gateway.md says what each holds."""

    folder: Path

    @property
    def spool(self) -> Path:
        return self.folder / "spool.db"

    @property
    def state(self) -> Path:
        return self.folder / "state.db"

    @property
    def audit(self) -> Path:
        return self.folder / "audit"

    @property
    def watch(self) -> Path:
        return self.folder / "watch"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def rebuilt(self) -> Path:
        """What is to be known of a state of judging that was begun anew; a person removes it."""
        return self.folder / "rebuilt.json"

    @property
    def quarantine(self) -> Path:
        """Batches of the spool that could not be read."""
        return self.folder / "quarantine"

    @property
    def in_force(self) -> Path:
        return self.folder / "in_force.json"

    @property
    def settings(self) -> Path:
        return self.folder / "serve.toml"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.toml"

    @property
    def privacy_key(self) -> Path:
        return self.folder / "keys" / "privacy.key"

    @property
    def audit_key(self) -> Path:
        return self.folder / "keys" / "audit.key"

    @property
    def watermarks(self) -> Path:
        """The ledger of watermark keys, an audit of its own; no secret is in it."""
        return self.folder / "watermarks"

    @property
    def watermark_key(self) -> Path:
        """The master secret that watermark keys are derived from."""
        return self.folder / "keys" / "watermark.key"

    @property
    def watermark_ledger_key(self) -> Path:
        """What the ledger of watermark keys is signed with."""
        return self.folder / "keys" / "watermark-ledger.key"

    @property
    def appeals(self) -> Path:
        """Texts of appeals, named by their SHA-256."""
        return self.folder / "appeals"

    @property
    def lock(self) -> Path:
        return self.folder / ".serve.lock"

    def made(self) -> Home:
        """The folder, made for its owner alone if it was not there. UsageError where that cannot be."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise UsageError(f"{self.folder}: cannot be made: {e.strerror}", hint="give a folder of your own") from e
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"{self.folder}: no permission to read and write there", hint="run as its owner")
        return self

    def is_held(self) -> bool:
        """Whether a server has this home now."""
        try:
            with self.held():
                return False
        except (Transient, FileNotFoundError):
            return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other servers off. Transient where one runs already."""
        lock = take_lock(self.lock)
        if lock is None:
            raise Transient(
                f"{self.folder}: another server has this home (process {self.lock.read_text().strip() or 'unknown'})",
                hint="stop it first: systemctl stop stillwatch",
            )
        with lock:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield
