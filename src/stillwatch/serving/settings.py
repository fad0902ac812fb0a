"""How the server is set up: one TOML file to one frozen ``Settings``; all faults of the file are told at once.

No secret is a setting: keys and tokens come from files of their own or from the environment.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillwatch.errors import UsageError

FILE = "serve.toml"
"""The file in the home folder that is read where no other is named."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of ``stillwatch serve``; ``MEANINGS`` has a line on each. Times are seconds, sizes bytes, by their names."""

    host: str = "127.0.0.1"
    port: int = 8620
    public_url: str = ""
    body_bytes: int = 32 << 20
    intake_threads: int = 2
    intake_waiting: int = 32
    retry_after_s: int = 5
    loop_every_s: float = 2.0
    stale_after_s: float = 7200.0
    disk_free_bytes: int = 1 << 30
    stop_within_s: float = 20.0
    log_level: str = "info"

    def plain(self) -> dict[str, Any]:
        """The settings as a dict, for a person or a log; there is no secret among them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


MEANINGS: Mapping[str, str] = {
    "host": "address to listen on; anything but this machine's own needs TLS or a proxy that has it",
    "port": "TCP port to listen on; 0 takes a free one and logs it",
    "public_url": "where customers reach the server; appeals and statements link there, and nothing is linked where it is empty",
    "body_bytes": "largest request body as sent, in bytes; a larger one is answered 413",
    "intake_threads": "threads that read, fingerprint and store what comes in",
    "intake_waiting": "bodies that may wait for such a thread; one more is answered 503",
    "retry_after_s": "seconds a sender is asked to wait after a 503",
    "loop_every_s": "seconds between two looks for new results and for actions that begin or end",
    "stale_after_s": "seconds without a new judgement, or beginning of an action that is due, after which an alarm is raised",
    "disk_free_bytes": "free bytes on the home's disk below which an alarm is raised",
    "stop_within_s": "seconds that requests under way may take to end when the server stops",
    "log_level": "least severe line that is logged: debug, info, warning or error",
}

LEAST: Mapping[str, float] = {
    "port": 0, "body_bytes": 1024, "intake_threads": 1, "intake_waiting": 0, "retry_after_s": 1,
    "loop_every_s": 0.05, "stale_after_s": 1, "disk_free_bytes": 0, "stop_within_s": 0,
}  # fmt: skip
MOST: Mapping[str, float] = {"port": 65535, "intake_threads": 64, "retry_after_s": 3600, "loop_every_s": 3600}
LEVELS = ("debug", "info", "warning", "error")


def load(path: Path | None, **given: Any) -> Settings:
    """The settings in ``path`` (defaults where it is None), ``given`` ones that are not None over them.

    UsageError with every unknown key, wrong type and number out of range of the file.
    """
    read = {} if path is None else _read(path)
    raw = read | {name: value for name, value in given.items() if value is not None}
    faults = list(_faults(raw))
    if faults:
        where = "the command line" if path is None else str(path)
        raise UsageError(f"{where}: " + "; ".join(faults), hint=f"settings: {', '.join(MEANINGS)}")
    return Settings(**raw)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be read as TOML: {e}") from e


def _faults(raw: Mapping[str, Any]) -> Iterator[str]:
    usual = Settings().plain()
    for name, value in raw.items():
        if name not in usual:
            yield f"unknown setting {name!r}"
        elif not _fits(value, usual[name]):
            yield f"{name} must be {type(usual[name]).__name__}, not {type(value).__name__}"
        elif name in LEAST and value < LEAST[name]:
            yield f"{name} must be at least {LEAST[name]:g}, not {value}"
        elif name in MOST and value > MOST[name]:
            yield f"{name} must be at most {MOST[name]:g}, not {value}"
        elif name == "log_level" and value not in LEVELS:
            yield f"log_level must be one of {', '.join(LEVELS)}, not {value!r}"


def _fits(value: object, usual: object) -> bool:
    """Whether a value has the type of the default; whole numbers do for seconds."""
    if isinstance(value, bool):
        return isinstance(usual, bool)
    return isinstance(value, int | float) if isinstance(usual, float) else isinstance(value, type(usual))
