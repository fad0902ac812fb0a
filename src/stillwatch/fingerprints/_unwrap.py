"""Texts that wrap another: base64, hexadecimal and rot13 read in the clear, for the reader alone.

Only rows whose bytes look wrapped are looked into (the kernel counts the longest run of such bytes, and how many tokens it
knows), so ordinary traffic pays nothing. What is found inside is read like a prompt and dropped.
"""

from __future__ import annotations

import base64
import binascii
import re
import string

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.fingerprints._tokens import BYTES, HEAD_BYTES, RUN

SHORTEST = 40
"""Bytes of the shortest run that is taken for a wrapped text: thirty letters of it in base64, a sentence."""
MOST = 64
"""Runs of one prompt that are tried."""
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{%d,}={0,2}" % SHORTEST)
_LEAST_KNOWN, _PRINTABLE = 0.3, 0.9
_LETTERS, _TURNED = 24, 2048
_COMMON = r"\b(gur|naq|lbh|lbhe|sbe|jvgu|vagb|guvf|gung)\b"
_ROT13 = str.maketrans(
    string.ascii_letters,
    string.ascii_lowercase[13:]
    + string.ascii_lowercase[:13]
    + string.ascii_uppercase[13:]
    + string.ascii_uppercase[:13],
)

Ints = npt.NDArray[np.int64]


def unwrapped(prompts: pa.Array, counts: npt.NDArray[np.int32], known: npt.NDArray[np.int32]) -> tuple[Ints, list[str]]:
    """Rows that wrap a text, each as often as it does, and what is inside. ``known`` counts known tokens and all."""
    coded = counts[:, RUN] >= SHORTEST
    strange = _turned(prompts, (known[:, 0] < _LEAST_KNOWN * known[:, 1]) & (counts[:, BYTES] >= _LETTERS))
    rows: list[int] = []
    texts: list[str] = []
    for row in np.flatnonzero(coded | strange).tolist():
        text = prompts[row].as_py()[:HEAD_BYTES]
        inside = [*decoded(text)] if coded[row] else []
        if strange[row]:
            inside.append(text[:_TURNED].translate(_ROT13))
        rows += [row] * len(inside)
        texts += inside
    return np.array(rows, np.int64), texts


def _turned(prompts: pa.Array, strange: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of the rows with few known tokens, those that hold commonest English words as rot13 spells them."""
    rows = np.flatnonzero(strange)
    found = pc.match_substring_regex(prompts.take(pa.array(rows)), _COMMON, ignore_case=True)
    strange = np.zeros(len(strange), bool)
    strange[rows[found.fill_null(False).to_numpy(zero_copy_only=False)]] = True
    return strange


def decoded(text: str) -> list[str]:
    """What the base64 and hexadecimal runs of a text say, where that is text."""
    found = []
    for run in _RUN.findall(text.encode("utf-8", "replace"))[:MOST]:
        for plain in (_hexadecimal(run), _base64(run)):
            if plain is not None:
                found.append(plain)
                break
    return found


def _hexadecimal(run: bytes) -> str | None:
    try:
        return _readable(bytes.fromhex(run.decode())) if len(run) % 2 == 0 else None
    except ValueError:
        return None


def _base64(run: bytes) -> str | None:
    plain = run.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        return _readable(base64.b64decode(plain + b"=" * (-len(plain) % 4)))
    except (ValueError, binascii.Error):
        return None


def _readable(data: bytes) -> str | None:
    """The bytes as text, if they are UTF-8 and mostly printable."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    printable = sum(c.isprintable() or c.isspace() for c in text)
    return text if printable >= _PRINTABLE * len(text) > 0 else None
