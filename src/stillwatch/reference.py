"""``docs/reference.md``, written from the code: verbs, settings, plug-ins, kinds and tables, each with its line.

python -m stillwatch.reference > docs/reference.md
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from cyclopts import App

from stillwatch import tables
from stillwatch.cli import app
from stillwatch.config import Config
from stillwatch.findings import ACCOUNTS_SCHEMA
from stillwatch.kinds import KINDS
from stillwatch.plugins import discover
from stillwatch.responders import ladder
from stillwatch.simulate import PRESETS
from stillwatch.types import CAPABILITIES, ELICITATIONS, FAMILIES

HEAD = """# Reference

Written by `python -m stillwatch.reference > docs/reference.md`; a test fails where the two differ.
"""

EXIT_CODES = {
    0: "no campaign; done",
    1: "campaigns found; of `prove`, that a key fires; of `bench`, that something asked does not hold; of `doctor`, that "
    "something must be mended; of `audit verify`, that the log is not what was signed",
    2: "the command, a setting or a plug-in is wrong",
    3: "nothing in the input could be judged",
    4: "no campaign, but a file of the log could not be read, or not to its end",
    5: "a dependency is down: the disk is full, an engine failed, a package is missing",
    70: "a fault of stillwatch itself, with its traceback",
    130: "interrupted; no half-written result is left",
}

SETTINGS = {
    "engine": "where tables live: `duckdb` (in this process), `spark` (two local threads) or `spark:MASTER`",
    "memory": "limit of the engine; the process takes about 1 GB more",
    "threads": "threads of the engine; 0 is all cores",
    "detectors": "numbers of detectors by name, such as `[detectors.shared_payment]` with `max_holders = 100`",
}

RESULT = {
    "account_id": "the account; one row for every account seen",
    "campaign_id": "the campaign it belongs to; null outside campaigns",
    "risk": "0–1, more is worse",
    "first_flagged_at": "when a replay first flagged it; null in a scan",
    "reasons": "what speaks against it: family, bits, a sentence",
}

TABLES = (
    tables.EXCHANGES, tables.ACCOUNTS, tables.MODELS, tables.FACTS, tables.OBSERVATIONS, tables.PROFILES, tables.TRUTH,
)  # fmt: skip

Row = Sequence[Any]


def reference() -> str:
    """The whole page, Markdown."""
    sections = (
        ("Commands", commands()),
        ("Exit codes", grid("code|meaning", EXIT_CODES.items())),
        ("Settings", settings()),
        ("Detectors", detectors()),
        ("Fingerprints", plugins("fingerprints")),
        ("Adapters", plugins("adapters")),
        ("Responders", responders()),
        ("Kinds", kinds()),
        ("Words of the results", words()),
        ("Shapes of simulated campaigns", grid("shape|meaning", ((f"`{n}`", p.meaning) for n, p in PRESETS.items()))),
        ("Tables", every_table()),
    )
    return "\n".join([HEAD, *(f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections)])


def commands() -> Iterator[str]:
    """Each verb with its options, as its ``--help`` has them."""
    for name in verbs():
        yield f"### stillwatch {name}\n\n{_summary(verb_app(name).help)}\n"
        yield from grid("option|meaning|default", ((f"`{o}`", text, default) for o, text, default in options(name)))
        yield ""


def verbs() -> list[str]:
    """The verbs of the command line, in the order they are written; those of a group with its name before them."""
    names = [name for name in app if not name.startswith("-")]
    return [verb for name in names for verb in ([name] if app[name].default_command else []) + _verbs_of(name)]


def verb_app(verb: str) -> App:
    """What runs a verb, or a group's."""
    found = app
    for name in verb.split():
        found = found[name]
    return found


def _verbs_of(group: str) -> list[str]:
    return [f"{group} {name}" for name in app[group] if not name.startswith("-")]


def options(verb: str) -> Iterator[tuple[str, str, str]]:
    """What a verb takes: name, meaning, default."""
    for argument in verb_app(verb).assemble_argument_collection(parse_docstring=True):
        parameter = argument.parameter
        default = argument.field_info.default
        shown = "required" if argument.required else f"`{default}`" if default not in (None, (), False) else ""
        positional = argument.field_info.kind is argument.field_info.POSITIONAL_OR_KEYWORD
        name = argument.names[0].removeprefix("--").upper() if positional else argument.names[0]
        yield name, parameter.help or "", shown


def settings() -> Iterator[str]:
    """Keys of the file given by ``--config``."""
    yield "Of the TOML file given as `--config`; an unknown one is an error.\n"
    rows = ((f"`{f.name}`", SETTINGS[f.name], f"`{getattr(Config(), f.name)}`") for f in dataclasses.fields(Config))
    yield from grid("setting|meaning|default", rows)


def detectors() -> Iterator[str]:
    """Reasons to tie or suspect accounts, with what they need and their numbers."""
    yield "A detector whose columns a log lacks is blind for it, which `inspect`, the report and run.json say.\n"
    rows = (
        (
            d.name,
            d.meaning,
            d.family,
            d.shape,
            d.technique,
            listed(d.needs),
            listed(f"{k} = {v}" for k, v in d.params.items()),
        )
        for d in discover("detectors").values()
    )
    yield from grid("detector|meaning|family|yields|ATLAS|needs|numbers", rows)


def plugins(kind: str) -> Iterator[str]:
    """Plug-ins that have a name and a line of meaning."""
    yield from grid(f"{kind.removesuffix('s')}|meaning", ((f"`{n}`", p.meaning) for n, p in discover(kind).items()))


def responders() -> Iterator[str]:
    """Rungs of the ladder with their settings, mildest first."""
    yield "The steps of the ladder, mildest first; `settings` of a policy's rules are theirs.\n"
    yield from grid("rung|meaning|what the account is told", ((f"`{r.name}`", r.meaning, r.told) for r in ladder()))
    yield ""
    rows = ((r.name, f"`{n}`", s.meaning, _default(s.default)) for r in ladder() for n, s in r.settings.items())
    yield from grid("rung|setting|meaning|default", rows)


def _default(value: Any) -> str:
    return f"`{value}`" if value not in (None, []) else ""


def kinds() -> Iterator[str]:
    """Kinds of value an account can be seen with."""
    yield "Values that more customers hold than *rare below* are infrastructure; kinds without it only describe.\n"
    rows = (
        (k.name, k.meaning, k.family, f"{k.cap:.1%}" if k.cap else "", f"{k.table}.{k.column}") for k in KINDS.values()
    )
    yield from grid("kind|meaning|family|rare below|folded from", rows)


def words() -> Iterator[str]:
    """The closed lists that results draw from."""
    yield f"Families of evidence: {listed(FAMILIES)}.\n"
    yield f"Capabilities: {listed(CAPABILITIES)}.\n"
    yield f"Marks of elicitation: {listed(ELICITATIONS)}."


def every_table() -> Iterator[str]:
    """Columns of every table, and of the result."""
    for table in TABLES:
        yield f"### {table.name}: {table.meaning.replace('``', '`')}\n"
        otel = any(c.otel for c in table.columns)
        rows = (
            (f"`{c.name}`", kind(c.type, c.required), c.meaning, f"`{c.otel}`" if c.otel else "") for c in table.columns
        )
        yield from grid(
            "column|type|meaning" + ("|OpenTelemetry" if otel else ""), (r if otel else r[:3] for r in rows)
        )
        yield ""
    yield "### accounts.parquet: what a scan says of each account\n"
    yield from grid(
        "column|type|meaning", ((f"`{f.name}`", kind(f.type, not f.nullable), RESULT[f.name]) for f in ACCOUNTS_SCHEMA)
    )


def kind(type_: pa.DataType, required: bool) -> str:
    """An Arrow type in a reader's words; ``?`` where it may be null."""
    if pa.types.is_timestamp(type_):
        name = "time, us, UTC"
    elif pa.types.is_list(type_):
        name = f"list of {kind(type_.value_type, True)}"
    else:
        name = (
            "struct"
            if pa.types.is_struct(type_)
            else {"float": "float32", "double": "float64"}.get(str(type_), str(type_))
        )
    return name if required else name + "?"


def grid(head: str, rows: Iterable[Row]) -> Iterator[str]:
    """A Markdown table; ``head`` names its columns, parted by ``|``."""
    yield f"| {head.replace('|', ' | ')} |"
    yield "|" + "---|" * (head.count("|") + 1)
    for row in rows:
        yield (
            "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|").replace("``", "`") for cell in row) + " |"
        )


def listed(names: Iterable[str] | Mapping[str, Any]) -> str:
    """Names as code, parted by commas."""
    return ", ".join(f"`{n}`" for n in names)


def _summary(text: str) -> str:
    return text.strip().partition("\n")[0]


if __name__ == "__main__":
    sys.stdout.write(reference())
