"""Imports go down only. Those inside functions and under TYPE_CHECKING count: they only hide a cycle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "stillwatch"

LAYERS = (
    ("types", "errors"),
    ("config", "tables", "privacy", "windows", "kinds", "numbering", "plugins", "progress", "intervals",
     "secret", "merkle", "notes", "pages"),
    ("store",),
    ("adapters", "fingerprints", "detectors", "responders"),
    ("profiles", "folds", "wordings", "evidence", "clusters", "membership", "parting", "refining", "pivots", "cases",
     "alternatives", "scoring", "judgements", "campaigns", "statements", "policy", "actions", "findings", "intake",
     "recognition", "arrivals", "ledger", "watch", "checkpoint", "hypotheses", "ground", "traits", "weighing", "grouping",
     "telling", "horizon", "carrying", "changes", "spool", "spool_rows", "entries", "verification", "audit"),
    ("pipeline", "replay", "rehearsal", "sharing", "report", "results", "summary", "testing"),
    ("card", "simulate", "evaluation", "protection"),
    ("serving",),
    ("gateway_demo",),
    ("cli", "cli_bench", "cli_canary", "cli_demo", "cli_options", "cli_policy", "cli_prove", "cli_serving", "cli_state",
     "cli_trust", "cli_watermark", "console"),
    ("reference", "__main__"),
)  # fmt: skip
"""From the bottom. A module may import from its own layer and those below; a new one is given its place here."""

PLUGINS = LAYERS[3]

HOMES = {
    "duckdb": ("store.duckdb", "evaluation"),
    "sqlite3": ("store", "spool"),
    "psycopg": ("store.postgres",),
    "pyspark": ("store.spark",),
    "py4j": ("store.spark",),
    "sqlglot": ("store.spark", "store.spark_sql"),
    "sklearn": ("evaluation",),
    "cryptography": ("notes", "protection.reasoning"),
    "torch": ("protection",),
    "transformers": ("protection",),
    "tokenizers": ("protection",),
    "scipy": ("protection",),
}
"""Engines and packages of an extra, and the parts that may import each: nothing else asks which engine it runs on."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

Import = tuple[str, int, str]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p for p in sorted(SOURCE.rglob("*.py"))}


def imports(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all a module imports, anywhere in it; relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - (MODULES[module].name == "__init__.py")
                base = ".".join(["stillwatch", *parts[: len(parts) - up], *filter(None, [base])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def ours(name: str) -> str | None:
    """The module of ours that a dotted name is, or lies in."""
    parts = name.split(".")
    if parts[0] != "stillwatch":
        return None
    for end in range(len(parts), 1, -1):
        if ".".join(parts[1:end]) in MODULES:
            return ".".join(parts[1:end])
    return ""


def all_imports() -> list[Import]:
    found = []
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [(module, line, name) for line, name in imports(module, tree)]
    return found


IMPORTS = all_imports()


def where(module: str, line: int) -> str:
    return f"{MODULES[module].relative_to(SOURCE.parent)}:{line}"


def top(module: str) -> str:
    return module.partition(".")[0]


def climbing(found: list[Import]) -> list[str]:
    """Imports that climb: from a layer to one above it, or from one kind of plug-in to another."""
    faults = []
    for module, line, name in found:
        target = ours(name)
        if not target or top(target) == top(module) or not {top(target), top(module)} <= set(LEVEL):
            continue
        if LEVEL[top(target)] > LEVEL[top(module)]:
            faults.append(f"{where(module, line)}: imports stillwatch.{target}, which lies above it")
        elif top(module) in PLUGINS and top(target) in PLUGINS:
            faults.append(f"{where(module, line)}: imports stillwatch.{target}: plug-ins do not know each other")
    return faults


def test_every_module_has_its_layer() -> None:
    homeless = sorted({top(m) for m in MODULES if m} - set(LEVEL))
    assert not homeless, f"give these a place in LAYERS of {__file__}: {homeless}"


def test_no_import_climbs() -> None:
    faults = climbing(IMPORTS)
    assert not faults, faults[0]


def test_the_test_sees_an_import_that_climbs() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stillwatch import pipeline\n"
    hidden = "def f():\n    from . import folds\n"
    found = [("clusters", *i) for i in imports("clusters", ast.parse(text))]
    found += [("tables", *i) for i in imports("tables", ast.parse(hidden))]
    found += [("detectors.relay", 1, "stillwatch.adapters.reading.read_exchanges")]
    faults = climbing(found)
    assert len(faults) == 3
    assert faults[0] == "stillwatch/clusters.py:3: imports stillwatch.pipeline, which lies above it"
    assert "stillwatch.folds, which lies above" in faults[1]
    assert "plug-ins do not know each other" in faults[2]


def test_no_module_is_in_a_cycle() -> None:
    needs: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, _, name in IMPORTS:
        target = ours(name)
        if target is not None and target != module:
            needs[module].add(target)
    while free := {module for module, targets in needs.items() if not targets & needs.keys()}:
        needs = {module: targets for module, targets in needs.items() if module not in free}
    assert not needs, f"these import each other, or hang on ones that do: {sorted(needs)}"


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_of_a_folder_do_not_import_each_other(folder: str) -> None:
    constant = folder.removesuffix("s").upper()
    plugins = {
        m for m, p in MODULES.items() if top(m) == folder and f"\n{constant} = " in p.read_text(encoding="utf-8")
    }
    faults = [
        f"{where(m, line)}: imports {name}" for m, line, name in IMPORTS if m in plugins and ours(name) in plugins
    ]
    assert not faults, faults[0]


def test_optional_packages_and_engines_stay_where_they_belong() -> None:
    faults = [
        f"{where(module, line)}: imports {name}, which belongs to {' and '.join(homes)}"
        for module, line, name in IMPORTS
        if (homes := HOMES.get(name.split(".")[0])) and not any(f"{module}.".startswith(f"{h}.") for h in homes)
    ]
    assert not faults, faults[0]


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"pyarrow", "duckdb", "numba", "numpy", "igraph", "sklearn", "pyspark", "jinja2"}
    code = "import sys, stillwatch; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(loaded)
