"""Secrets: read from a file or an environment variable, never shown.

A ``Secret`` says nothing of itself in a repr, a message, a format string or a pickle; who needs the value asks for it by name.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from pathlib import Path
from typing import NoReturn

from stillwatch.errors import Terminal, UsageError

FOR_OTHERS = 0o027
"""Permissions that a file with a secret may not have: written by its group, or anything by everybody."""


class Secret:
    """A text that is not to be seen. Equal to another one of the same value, compared in constant time."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The value itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __bool__(self) -> bool:
        return bool(self._text)

    __hash__ = None  # type: ignore[assignment]  # a hash of it would be kept about

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither copied nor pickled")


def secret_from(path: Path | None = None, variable: str | None = None) -> Secret:
    """The secret in the file ``path`` where one is given, else in the environment ``variable``; space around it is cut off.

    UsageError where there is none, it is empty, or its file cannot be read or may be read by everybody.
    """
    if path is not None:
        return _of_file(path)
    text = os.environ.get(variable or "", "").strip()
    if not text:
        raise UsageError(f"no secret given: the variable {variable} is not set", hint="set it, or give a file")
    return Secret(text)


def write_new(path: Path, text: str, variable: str) -> None:
    """A new secret in ``path``, whole or not at all, for its owner alone; one that another process puts there meanwhile stands.

    Terminal where it cannot be written; the environment ``variable`` is where it may be given instead.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(name, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    except OSError as e:
        raise Terminal(f"{path}: the key cannot be written: {e.strerror}", hint=f"or give one in {variable}") from e


def _of_file(path: Path) -> Secret:
    try:
        with path.open("rb") as file:
            loose = os.fstat(file.fileno()).st_mode & FOR_OTHERS
            text = file.read().decode().strip()
    except OSError as e:
        raise UsageError(f"{path}: the secret cannot be read: {e.strerror}", hint="check the path and its owner") from e
    except UnicodeDecodeError:
        raise UsageError(f"{path}: the secret is not UTF-8 text", hint="write it as text, such as base64") from None
    if loose:
        raise UsageError(f"{path}: others may read or change this secret", hint=f"chmod 600 {path}")
    if not text:
        raise UsageError(f"{path}: there is no secret in it", hint="write one into it, and nothing else")
    return Secret(text)
