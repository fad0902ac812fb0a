"""The terminal summary against stored copies; STILLWATCH_GOLDEN=write renews them."""

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import fixtures_findings as made
from stillwatch.findings import Findings, Run
from stillwatch.summary import show

GOLDEN = Path(__file__).parent / "golden"


def shown(findings: Findings, run: Run, width: int, **console: object) -> str:
    text = io.StringIO()
    show(findings, run, Path("result"), Console(file=text, width=width, **console))  # type: ignore[arg-type]
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize(
    ("name", "width"), [("summary_wide", 120), ("summary", 88), ("summary_narrow", 56), ("summary_none", 88)]
)
def test_summary_reads_like_the_stored_copy(name: str, width: int) -> None:
    found = made.none() if name == "summary_none" else made.few()
    text = shown(found, made.run(), width)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("STILLWATCH_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= width


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    colourful = {"force_terminal": True, "color_system": "standard"}
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in shown(made.few(), made.run(), 100, **colourful)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in shown(made.few(), made.run(), 100, **colourful)


def test_untrusted_ids_cannot_drive_the_terminal() -> None:
    evil = "\x1b]0;owned\x07[bold]x[/bold]\u202e"
    c = replace(made.campaign(made.SHAPES[2]), campaign_id=evil)
    run = made.run(unknown_columns=(evil,), blind={evil: evil}, rejects=(replace(made.REJECTS[0], reason=evil),))
    for width in (60, 160):
        text = shown(made.findings([c]), run, width)
        assert not set("\x1b\x07\u202e") & set(text)
    assert "[bold]x[/bold]" in text


def test_many_campaigns_are_counted_not_listed() -> None:
    text = shown(made.many(30, 60), made.run(), 100)
    assert "30 campaigns found, 60 accounts" in text
    assert "and 10 smaller campaigns in campaigns.json" in text
    assert len(text.splitlines()) < 40


def test_the_state_of_a_replay_is_told_by_its_size() -> None:
    state = {"state_bytes": 134_000_000, "taken_up_rows": 1_200_000, "late_rows": 7}
    text = shown(made.few(), made.run(state=state), 100)
    assert "state     134 MB, 1,200,000 exchanges taken up from it, 7 exchanges came late" in text
    assert "came late" not in shown(made.few(), made.run(state=state | {"late_rows": 0}), 100)


def test_a_summary_without_anything_to_add_is_short() -> None:
    counts = replace(made.run().counts, exchanges_kept=0, exchanges_read=0, first_time=None, last_time=None)
    text = shown(
        made.findings([]),
        made.run(counts=counts, blind={}, rejects=(), unknown_columns=(), timings={}, peak_memory_bytes=0),
        88,
    )
    assert (
        text == "No campaign found\n0 exchanges of 12,431 accounts judged\n\ntook    47 s\nreport  result/report.html\n"
    )
