"""A field map: its rules and tests, and how it is read from TOML (``adapters/fieldmap.py`` shows the format)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from stillwatch.adapters.intake.converters import CONVERTERS
from stillwatch.adapters.intake.dig import dig
from stillwatch.adapters.intake.records import Record
from stillwatch.adapters.intake.report import label
from stillwatch.adapters.intake.unfold import UNFOLDS
from stillwatch.errors import UsageError
from stillwatch.tables import EXCHANGES

MAPS = Path(__file__).parents[1] / "maps"
KEYS = {"extends", "meaning", "unfold", "path", "ignore", "match", "columns", "hints"}
Converter = Callable[[Any], Any]
TYPES = {c.name: c.type for c in EXCHANGES.columns}


@dataclass(frozen=True, slots=True)
class Rule:
    """How one column is filled: a constant, or the first of ``paths`` that converts to something, or all of them
    joined.
    """

    paths: tuple[str, ...] = ()
    converters: tuple[Converter, ...] = ()
    joins: bool = False
    value: Any = None

    def read(self, record: Record) -> Any:
        if self.value is not None:
            return self.value
        if self.joins:
            return ":".join(str(v) for v in self._found(record) if v != "") or None
        empty = None
        for value in self._found(record):
            if value != "":
                return value
            empty = value
        return empty

    def _found(self, record: Record) -> Iterator[Any]:
        """What each path gives, converted; nothing for a path that gives nothing."""
        for path, convert in zip(self.paths, self.converters):
            value = dig(record, path)
            if value is not None and (converted := convert(value)) is not None:
                yield converted


@dataclass(frozen=True, slots=True)
class Match:
    """Tests on a record: paths that must all, any, none hold; ``path=value`` and ``path~part`` look at the value."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()

    def __call__(self, record: Record) -> bool:
        if not all(_holds(record, t) for t in self.all) or any(_holds(record, t) for t in self.none):
            return False
        return not self.any or any(_holds(record, t) for t in self.any)


@cache
def _parts(test: str) -> tuple[str, str, str]:
    """Path, sign and value of a test; sign and value may be empty."""
    path, sign, wanted = re.split("([=~])", test, maxsplit=1) if re.search("[=~]", test) else (test, "", "")
    return path, sign, wanted


def _holds(record: Record, test: str) -> bool:
    path, sign, wanted = _parts(test)
    value = dig(record, path)
    if not sign:
        return value is not None
    return str(value) == wanted if sign == "=" else wanted in str(value)


@dataclass(frozen=True)
class FieldMap:
    """One TOML map, checked."""

    name: str
    meaning: str
    match: Match
    rules: dict[str, Rule]
    unfold: str = "one"
    path: str = ""
    ignore: tuple[str, ...] = ()
    hints: dict[str, str] = field(default_factory=dict)
    known: frozenset[str] = field(init=False)
    inner: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        used = {p for rule in self.rules.values() for p in rule.paths}
        used |= {re.split("[=~]", t)[0] for t in self.match.all + self.match.any + self.match.none}
        whole = used | {i for entry in self.ignore for i in _spelt_out(entry)}
        # A key is known if a path ends there, and looked into if a path goes on below it.
        object.__setattr__(self, "known", frozenset(whole))
        object.__setattr__(self, "inner", frozenset(p[:i] for p in whole for i, c in enumerate(p) if c == "."))

    def row(self, record: Record) -> Record:
        """The canonical columns that the record fills."""
        return {name: value for name, rule in self.rules.items() if (value := rule.read(record)) is not None}

    def unknown(self, record: Record, prefix: str = "") -> Iterator[str]:
        """Paths of fields that the map neither uses nor ignores."""
        for key, value in record.items():
            path = prefix + key
            if path in self.known or value is None:
                continue
            if path in self.inner:
                if isinstance(value, dict):
                    yield from self.unknown(value, path + ".")
            else:
                yield path


def _spelt_out(entry: str) -> list[str]:
    """The paths one entry of ``ignore`` stands for: ``a.*`` is a and all below it, ``a.{b,c}`` is a.b and a.c."""
    prefix, brace, names = entry.removesuffix(".*").partition("{")
    return [prefix + name.strip() for name in names.rstrip("}").split(",")] if brace else [prefix]


def load(source: str | Path) -> FieldMap:
    """A map by the name of a built-in one or by its file; UsageError, naming the place, where it is wrong."""
    path = MAPS / f"{source}.toml" if isinstance(source, str) else source
    text = _merged(path)
    rules = {column: _rule(column, spec, path) for column, spec in text.get("columns", {}).items()}
    match = text.get("match", {})
    unfold = text.get("unfold", "one")
    _check(unfold, UNFOLDS, "unfold", path)
    return FieldMap(
        name=path.stem,
        meaning=text.get("meaning", ""),
        match=Match(*(tuple(match.get(k, ())) for k in ("all", "any", "none"))),
        rules=rules,
        unfold=unfold,
        path=_pattern(text.get("path", ""), path),
        ignore=tuple(text.get("ignore", ())),
        hints=text.get("hints", {}),
    )


def _merged(path: Path) -> dict[str, Any]:
    """The file's text, over that of the map it extends."""
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{label(path)}: the field map cannot be read: {e}") from e
    for key in text:
        _check(key, KEYS, "key", path)
    if "extends" not in text:
        return text
    built_in = {p.stem for p in MAPS.glob("*.toml")}
    _check(text["extends"], built_in, "map to extend", path)
    base = _merged(MAPS / f"{text['extends']}.toml")
    nested = {k: base.get(k, {}) | text.get(k, {}) for k in ("match", "columns", "hints")}
    return base | text | nested | {"ignore": [*base.get("ignore", ()), *text.get("ignore", ())]}


def _check(name: Any, allowed: Any, what: str, path: Path) -> None:
    if not isinstance(name, str) or name not in allowed:
        near = get_close_matches(str(name), list(allowed), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(allowed))}"
        raise UsageError(f"{label(path)}: no {what} named {name!r}", hint=hint)


def _pattern(text: str, path: Path) -> str:
    try:
        return re.compile(text).pattern
    except re.error as e:
        raise UsageError(f"{label(path)}: path is no regular expression: {e}") from e


def _rule(column: str, spec: Any, path: Path) -> Rule:
    _check(column, TYPES, "column", path)
    spec = spec if isinstance(spec, dict) else {"from": spec}
    for key in spec:
        _check(key, ("from", "as", "join", "value"), f"setting of {column}", path)
    if "value" in spec:
        return Rule(value=spec["value"])
    paths = spec.get("join", spec.get("from"))
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) for p in paths):
        raise UsageError(f"{label(path)}: {column} needs a path, a list of paths, or a value")
    usual = spec.get("as", _usual_converter(column))
    pairs = [(p.partition("|")[0].strip(), p.partition("|")[2].strip() or usual) for p in paths]
    for _, convert in pairs:
        _check(convert, CONVERTERS, "converter", path)
    return Rule(tuple(p for p, _ in pairs), tuple(CONVERTERS[c] for _, c in pairs), joins="join" in spec)


def _usual_converter(column: str) -> str:
    if column == "time":
        return "epoch_auto"
    if column in ("system", "prompt", "response"):
        return "text"
    if column == "tools":
        return "tool_names"
    return "as_text" if pa.types.is_string(TYPES[column]) else "plain"
