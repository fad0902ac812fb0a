"""What the docs say is so: the reference is the code's, commands in them parse, links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwatch import cli, errors, reference, tables
from stillwatch.cli import app
from stillwatch.config import Config
from stillwatch.findings import ACCOUNTS_SCHEMA
from stillwatch.kinds import KINDS
from stillwatch.plugins import discover
from stillwatch.simulate import PRESETS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REFERENCE = ROOT / "docs" / "reference.md"
VERBS = reference.verbs()

NAMED = [
    *(c.name for t in reference.TABLES for c in t.columns),
    *ACCOUNTS_SCHEMA.names,
    *KINDS,
    *(f.name for f in dataclasses.fields(Config)),
    *(name for kind in ("detectors", "fingerprints", "adapters") for name in discover(kind)),
    *PRESETS,
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced and indented code, continued ones joined."""
    fenced = False
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def commands(text: str) -> list[list[str]]:
    """Arguments of each ``stillwatch ...`` in the code of a page."""
    found = []
    for line in code_lines(text):
        plain = line.removeprefix("$ ").removeprefix(".venv/bin/").removeprefix("python -m ")
        if plain.startswith("stillwatch "):
            tokens = shlex.split(plain, comments=True)[1:]
            end = next((i for i, t in enumerate(tokens) if t in ("|", "&&", ";", ">", "||")), len(tokens))
            found.append(tokens[:end])
    return found


def parses(tokens: list[str]) -> None:
    if tokens and tokens[0] not in ("--help", "--version", "VERB"):
        assert tokens[0] in VERBS or " ".join(tokens[:2]) in VERBS, tokens
        app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is laid out for the terminal it meets; here for the usual one."""
    monkeypatch.setenv("COLUMNS", "80")


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main([*verb.split(), "--help"]) == 0
    return capsys.readouterr().out


def test_the_reference_is_what_the_code_says() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference.reference(), (
        "run: python -m stillwatch.reference > docs/reference.md"
    )


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_everything_with_a_name_has_its_line(name: str) -> None:
    lines = [cells for line in REFERENCE.read_text(encoding="utf-8").splitlines() if (cells := line.split(" | "))[1:]]
    meanings = [cells[1:] for cells in lines if cells[0].strip("| `") == name]
    assert meanings, f"docs/reference.md has no line for {name}"
    assert all(any(len(cell.strip(" |")) > 2 for cell in cells) for cells in meanings)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_in_the_reference(verb: str) -> None:
    part = REFERENCE.read_text(encoding="utf-8").partition(f"### stillwatch {verb}\n")[2].partition("\n#")[0]
    for option, meaning, _ in reference.options(verb):
        assert f"| `{option}` | {meaning[:20]}" in part
        assert meaning, f"{verb} {option} has no line of meaning"


def test_settings_and_columns_of_the_result_have_a_meaning() -> None:
    assert set(reference.SETTINGS) == {f.name for f in dataclasses.fields(Config)}
    assert set(reference.RESULT) == set(ACCOUNTS_SCHEMA.names)
    own = {t.name for t in vars(tables).values() if isinstance(t, tables.Table)}
    assert {t.name for t in reference.TABLES} == own


def test_exit_codes_are_all_told() -> None:
    raised = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "exit_code")}
    own = {cli.FOUND, cli.USAGE, cli.PARTIAL, cli.DEPENDENCY, cli.OUR_FAULT, cli.INTERRUPTED}
    assert set(reference.EXIT_CODES) == raised | own | {0}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_on_a_page_parse(page: Path) -> None:
    for tokens in commands(page.read_text(encoding="utf-8")):
        parses(tokens)


def test_a_wrong_command_on_a_page_is_seen() -> None:
    text = "Try\n\n    $ stillwatch scan log --oot x\n\n```\nstillwatch sacn log \\\n    --out x  # soon\n```\n`stillwatch no`"
    wrong, unknown = commands(text)
    assert unknown == ["sacn", "log", "--out", "x"]
    with pytest.raises(Exception, match="--oot"):
        parses(wrong)
    with pytest.raises(AssertionError):
        parses(unknown)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_a_page_compiles_and_imports_what_exists(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stillwatch"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_on_a_page_exist(page: Path) -> None:
    wanted = set(
        re.findall(r"^\s+(?:\$ )?make ([\w-]+)|`make ([\w-]+)`", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    names = {a or b for a, b in wanted}
    if not names:
        return
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert names <= made


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_examples_verbatim_and_before_all_else(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(verb, capsys)
    source = cli.HELP if not verb else reference.verb_app(verb).default_command.__doc__
    examples = [line.strip() for line in source.splitlines() if line.strip().startswith("stillwatch ")]
    assert examples
    shown = text.splitlines()
    panel = next(i for i, line in enumerate(shown) if line.startswith("╭"))
    for example in examples:
        assert f"    {example}" in shown[:panel], f"wrapped or missing: {example}"
        parses(shlex.split(example)[1:])


def test_help_of_simulate_lists_every_shape(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(help_of("simulate", capsys).split())
    for name, preset in PRESETS.items():
        assert f"{name} {preset.meaning}" in words
