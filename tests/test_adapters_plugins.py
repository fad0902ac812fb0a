"""How plug-ins are found, and what is said of broken ones."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import stillwatch.adapters
from stillwatch import plugins
from stillwatch.errors import UsageError


def declare(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    declared = EntryPoints(EntryPoint(f"e{n}", v, "stillwatch.adapters") for n, v in enumerate(values))
    monkeypatch.setattr(plugins, "entry_points", lambda group: declared.select(group=group))


def module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)


def test_our_own_in_the_order_of_names() -> None:
    found = plugins.discover("adapters")
    assert (
        list(found) == sorted(found) == ["anthropic", "csv", "envoy", "litellm", "ndjson", "openai", "otlp", "parquet"]
    )
    assert all(found[name].name == name for name in found)


def test_a_kind_without_a_folder_and_a_wrong_kind() -> None:
    assert isinstance(plugins.discover("responders"), dict)
    with pytest.raises(UsageError, match="no such kind of plug-in: adaptors"):
        plugins.discover("adaptors")


def test_others_by_module_and_by_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from types import SimpleNamespace\nADAPTER = SimpleNamespace(name='{}')"
    module(tmp_path, "other_a", text.format("aardvark"), monkeypatch)
    module(tmp_path, "other_b", text.format("zebra"), monkeypatch)
    declare(monkeypatch, "other_a", "other_b:ADAPTER")
    found = list(plugins.discover("adapters"))
    assert (found[0], found[-1]) == ("aardvark", "zebra")


@pytest.mark.parametrize("text, message", [
    ("ADAPTER = 5", "broken: ADAPTER has no name"),
    ("x = 1", "broken: this plug-in has no ADAPTER"),
    ("1 / 0", "broken: this plug-in cannot be imported: division by zero"),
    ("from types import SimpleNamespace\nADAPTER = SimpleNamespace(name='csv')",
     "broken: adapters already has a 'csv', from stillwatch.adapters.canonical_csv"),
])  # fmt: skip
def test_broken_ones_are_named(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "broken", raising=False)
    module(tmp_path, "broken", text, monkeypatch)
    declare(monkeypatch, "broken")
    with pytest.raises(UsageError, match=message):
        plugins.discover("adapters")


def test_a_broken_module_of_our_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cracked.py").write_text("import no_such_thing")
    monkeypatch.setattr(stillwatch.adapters, "__path__", [*stillwatch.adapters.__path__, str(tmp_path)])
    with pytest.raises(UsageError, match=r"stillwatch\.adapters\.cracked: this plug-in cannot be imported"):
        plugins.discover("adapters")


def test_the_same_object_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "stillwatch.adapters.envoy")
    assert "envoy" in plugins.discover("adapters")
