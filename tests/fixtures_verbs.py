"""Verbs run as a person runs them, with what they print; secrets of the environment do not count."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stillwatch import cli
from stillwatch.protection.book import LEDGER_VARIABLE, MASTER_VARIABLE

Run = Callable[..., tuple[int, str, str]]


def runner(group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """What runs a verb of this group: its exit code, standard output and standard error."""
    monkeypatch.delenv(MASTER_VARIABLE, raising=False)
    monkeypatch.delenv(LEDGER_VARIABLE, raising=False)

    def ran(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([group, *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return ran
