"""How the server is set up: one TOML file to one frozen ``Settings``; all faults of the file are told at once.

A table of the file sets up a part that has a noun of its own for it, such as ``[judge]``.

No secret is a setting: keys and tokens come from files of their own or from the environment.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from stillwatch.errors import UsageError
from stillwatch.serving.bodies import Limits as Bodies
from stillwatch.serving.gateways import Wiring
from stillwatch.serving.judging import Terms
from stillwatch.spool import Limits
from stillwatch.windows import length_text, parse_length

FILE = "serve.toml"
"""The file in the home folder that is read where no other is named."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of ``stillwatch serve``; ``MEANINGS`` has a line on each. Times are seconds, sizes bytes, by their names."""

    host: str = "127.0.0.1"
    port: int = 8620
    public_url: str = ""
    intake_threads: int = 2
    intake_waiting: int = 32
    retry_after_s: int = 5
    loop_every_s: float = 2.0
    stale_after_s: float = 7200.0
    disk_free_bytes: int = 1 << 30
    stop_within_s: float = 20.0
    log_level: str = "info"
    state: str = ""
    maps: tuple[str, ...] = ()
    bodies: Bodies = field(default_factory=Bodies)
    gateway: Wiring = field(default_factory=Wiring)
    spool: Limits = field(default_factory=Limits)
    judge: Terms = field(default_factory=Terms)

    def plain(self) -> dict[str, Any]:
        """The settings outside of tables as a dict, for a person or a log; there is no secret among them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in TABLES}


MEANINGS: Mapping[str, str] = {
    "host": "address to listen on; anything but this machine's own needs TLS or a proxy that has it",
    "port": "TCP port to listen on; 0 takes a free one and logs it",
    "public_url": "where customers reach the server; appeals and statements link there, and nothing is linked where it is empty",
    "intake_threads": "threads that read, fingerprint and store what comes in",
    "intake_waiting": "bodies that may wait for such a thread; one more is answered 503",
    "retry_after_s": "seconds a sender is asked to wait after a 503",
    "loop_every_s": "seconds between two looks for new results and for actions that begin or end",
    "stale_after_s": "seconds without a new judgement, or beginning of an action that is due, after which an alarm is raised",
    "disk_free_bytes": "free bytes on the home's disk below which an alarm is raised",
    "stop_within_s": "seconds that requests under way may take to end when the server stops",
    "log_level": "least severe line that is logged: debug, info, warning or error",
    "state": "URL of a PostgreSQL database that holds the state, without a password; empty: `state.db` in the home",
    "maps": "field maps (TOML) of your own, tried before ours on what comes in at /ingest/litellm and over OTLP",
}

TABLES: Mapping[str, Mapping[str, str]] = {
    "bodies": {
        "body_bytes": "largest body as sent, in bytes; a larger one is answered 413",
        "inflated_bytes": "largest body once inflated, in bytes; a larger one is answered 413",
        "records": "most records in one body; more are answered 413",
    },
    "gateway": {
        "account_header": "header in which the gateway names the account, set by it over whatever a client sent",
        "key_header": "header with the SHA-256, in hex, of the key that was used",
        "secret_headers": "headers whose secret is hashed here where `key_header` is not given, the first that is there",
        "end_user_header": "header that names the account's own end user",
        "model_header": "header that names the model asked for, for limits by model",
        "acr_header": "header with the `acr` of a token that the gateway has checked",
        "auth_time_header": "header with the time of that token's authentication, seconds since 1970",
        "credential": "`api_key`, or `bearer` where clients can fetch a fresh token when asked to verify",
        "appeals": "where customers appeal, a URL with `{case}` in it",
        "dialect": "how refusals are said on paths that several APIs share",
        "body_bytes": "largest body the ASGI layer rewrites, in bytes; a larger one passes as it is",
    },
    "spool": {
        "bytes": "most bytes of the spool on disk; beyond it senders are answered 503",
        "waiting_bytes": "most bytes that wait to be written; beyond it senders are answered 503",
        "waiting_puts": "most bodies that wait to be written",
        "joined_puts": "most bodies written in one commit",
        "join_s": "seconds between two commits while more is coming",
        "dead_letters": "refused records that are kept, the latest",
    },
    "judge": {
        "every": "length of a step of judging, such as `1h`",
        "interval": "how often it is judged anew",
        "grace": "how long a step waits for what comes late",
        "retention": "how long exchanges stay in the spool after they were judged",
        "horizon": "how far back the state of judging goes: older exchanges are forgotten, campaigns and their members are not",
        "final_scan": "`when_due`: all is judged anew when enough has come in; `always`: each time",
        "share": "part of one core's time that judging all anew may take, where it is done when due",
        "accounts": "a file of accounts beside what /ingest/accounts took in",
        "models": "a table of models and their release times, to notice moves to a new one",
        "config": "the judge's own settings (TOML), as `--config` of a scan",
    },
}
"""Keys of the tables, with a line on each. The judge's key is the server's, and no setting."""

LEAST: Mapping[str, float] = {
    "port": 0, "intake_threads": 1, "intake_waiting": 0, "retry_after_s": 1,
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
    faults: list[str] = []
    made = {name: _table(name, raw.pop(name, {}), faults) for name in TABLES}
    faults += _faults(raw)
    if faults:
        where = "the command line" if path is None else str(path)
        raise UsageError(f"{where}: " + "; ".join(faults), hint="docs/serving.md has a line on each setting")
    plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in raw.items()}
    return Settings(**plain, **made)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be read as TOML: {e}") from e


def _faults(raw: Mapping[str, Any]) -> Iterator[str]:
    usual = Settings().plain()
    for name, value in raw.items():
        if name not in usual:
            yield f"unknown setting {name!r} (known: {', '.join((*usual, *(f'[{t}]' for t in TABLES)))})"
        elif isinstance(usual[name], tuple):
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                yield f"{name} must be a list of texts"
        elif not _fits(value, usual[name]):
            yield f"{name} must be {type(usual[name]).__name__}, not {type(value).__name__}"
        elif name in LEAST and value < LEAST[name]:
            yield f"{name} must be at least {LEAST[name]:g}, not {value}"
        elif name in MOST and value > MOST[name]:
            yield f"{name} must be at most {MOST[name]:g}, not {value}"
        elif name == "log_level" and value not in LEVELS:
            yield f"log_level must be one of {', '.join(LEVELS)}, not {value!r}"


def _table(name: str, raw: Any, faults: list[str]) -> Any:
    """The noun that a table sets up; what is wrong goes to ``faults``, and the default stands in."""
    usual = {"bodies": Bodies, "gateway": Wiring, "spool": Limits, "judge": Terms}[name]()
    if not isinstance(raw, dict):
        faults.append(f"{name} must be a table, [{name}]")
        return usual
    changed: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in TABLES[name]:
            faults.append(f"unknown setting [{name}] {key!r} (known: {', '.join(TABLES[name])})")
            continue
        try:
            changed[key] = _cast(value, getattr(usual, key))
        except (TypeError, UsageError) as e:
            faults.append(f"[{name}] {key}: {e.message if isinstance(e, UsageError) else e}")
    try:
        return dataclasses.replace(usual, **changed)
    except UsageError as e:
        faults.append(f"[{name}]: {e.message}")
        return usual


def _cast(value: Any, usual: Any) -> Any:
    """A value of the file as the noun has it. TypeError where it is of another type."""
    if isinstance(usual, timedelta):
        return parse_length(_typed(value, str, "a length such as 1h"))
    if usual is None:
        return Path(_typed(value, str, "a path"))
    if isinstance(usual, tuple):
        return tuple(_typed(v, str, "a list of texts") for v in _typed(value, list, "a list of texts"))
    if not _fits(value, usual):
        raise TypeError(f"must be {type(usual).__name__}, not {type(value).__name__}")
    if not isinstance(usual, str) and value <= 0:
        raise TypeError(f"must be above 0, not {value}")
    return value


def _typed(value: Any, kind: type, said: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"must be {said}, not {type(value).__name__}")
    return value


def shown(value: object) -> str:
    """A setting's value as it stands in the file."""
    if isinstance(value, timedelta):
        return length_text(value)
    return ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)


def _fits(value: object, usual: object) -> bool:
    """Whether a value has the type of the default; whole numbers do for seconds."""
    if isinstance(value, bool):
        return isinstance(usual, bool)
    return isinstance(value, int | float) if isinstance(usual, float) else isinstance(value, type(usual))
