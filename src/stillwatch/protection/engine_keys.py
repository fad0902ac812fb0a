"""The file of keys that an engine is given: secrets and schemes by opaque id, and nothing of whom they were issued for.

JSON, for its owner alone: ``{"format": 1, "keys": {"<key id>": {"secret": "<hex>", "scheme": {...}}}}``. It is replaced whole,
so whoever reads it sees the keys of one moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from stillwatch.errors import Terminal, UsageError
from stillwatch.protection.keys import Key, Scheme, commitment_of
from stillwatch.secret import secret_from
from stillwatch.store.state import atomic

FORMAT = 1


def write_keys(path: Path, keys: Iterable[Key]) -> None:
    """Write the keys for an engine; Terminal where that cannot be."""
    told = {k.key_id: {"scheme": asdict(k.scheme), "secret": k.secret.hex()} for k in keys}
    try:
        with atomic(path) as temporary:
            os.chmod(temporary, 0o600)
            temporary.write_text(json.dumps({"format": FORMAT, "keys": told}, indent=1) + "\n", encoding="utf-8")
    except OSError as e:
        raise Terminal(f"{path}: the keys cannot be written: {e.strerror}", hint="give a folder of your own") from e


def read_keys(path: Path) -> dict[str, Key]:
    """The keys in the file, by id. UsageError where it is none, cannot be read, or may be read by others."""
    text = secret_from(path).reveal()
    try:
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']!r}, not {FORMAT}")
        return {key_id: _key(key_id, k["secret"], Scheme(**k["scheme"])) for key_id, k in told["keys"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        # Of what stands there nothing is told: it may be a secret.
        raise UsageError(f"{path}: no file of keys ({type(e).__name__})", hint="stillwatch watermark export") from None


def _key(key_id: str, secret: str, scheme: Scheme) -> Key:
    held = bytes.fromhex(secret)
    key = Key(key_id, "", "", scheme, 0, commitment_of(held), held)
    _ = key.words  # ValueError for a secret of another length
    return key
