"""How plug-ins are found: by walking our own folder, and by entry point for other people's packages.

A plug-in is a module with one constant, named after its kind: ``ADAPTER``, ``FINGERPRINT``, ``DETECTOR``, ``RESPONDER`` or
``REWRITER``, with a ``name`` that is unique within the kind. Modules of our folders without that constant are their support,
no plug-ins. Others declare ``[project.entry-points."stillwatch.detectors"]``, pointing at such a module or at the constant
itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from stillwatch.errors import UsageError

CONSTANTS = {
    "adapters": "ADAPTER",
    "fingerprints": "FINGERPRINT",
    "detectors": "DETECTOR",
    "responders": "RESPONDER",
    "rewriters": "REWRITER",
}


def discover(kind: str) -> dict[str, Any]:
    """All plug-ins of a kind by name, in the order of names; a broken or doubled one is a UsageError naming it."""
    if kind not in CONSTANTS:
        raise UsageError(f"no such kind of plug-in: {kind}", hint=f"kinds are {', '.join(sorted(CONSTANTS))}")
    found: dict[str, tuple[str, Any]] = {}
    for place, plugin in [*_own(kind), *_declared(kind)]:
        name = getattr(plugin, "name", None)
        if not isinstance(name, str) or not name:
            raise UsageError(f"{place}: {CONSTANTS[kind]} has no name", hint="give it a `name` that no other one has")
        if name in found and found[name][1] is not plugin:
            raise UsageError(
                f"{place}: {kind} already has a {name!r}, from {found[name][0]}", hint="rename one of them"
            )
        found.setdefault(name, (place, plugin))
    return {name: found[name][1] for name in sorted(found)}


def _own(kind: str) -> Iterator[tuple[str, Any]]:
    """(module, constant) for each module of our folder of this kind that has the constant."""
    try:
        package = importlib.import_module(f"stillwatch.{kind}")
    except ModuleNotFoundError as e:
        if e.name == f"stillwatch.{kind}":
            return
        raise UsageError(f"stillwatch.{kind}: cannot be imported: {e}") from e
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = None if info.ispkg else _imported(info.name)
        if hasattr(module, CONSTANTS[kind]):
            yield info.name, getattr(module, CONSTANTS[kind])


def _declared(kind: str) -> Iterator[tuple[str, Any]]:
    for entry in entry_points(group=f"stillwatch.{kind}"):
        yield entry.value, _loaded(entry, CONSTANTS[kind])


def _loaded(entry: EntryPoint, constant: str) -> Any:
    try:
        thing = entry.load()
    except Exception as e:
        raise UsageError(f"{entry.value}: this plug-in cannot be imported: {e}", hint="fix or uninstall it") from e
    if not isinstance(thing, ModuleType):
        return thing
    if not hasattr(thing, constant):
        raise UsageError(f"{entry.value}: this plug-in has no {constant}", hint=f"define {constant} in that module")
    return getattr(thing, constant)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as e:
        raise UsageError(f"{name}: this plug-in cannot be imported: {e}", hint="fix or remove the module") from e
