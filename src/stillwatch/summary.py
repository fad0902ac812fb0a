"""What a run found, on the terminal, in about a screenful.

Colour only repeats what the words say; rich leaves it out under NO_COLOR and where the output is no terminal. Below 76
columns the table becomes a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stillwatch.findings import Findings, Run
from stillwatch.report.words import bits_text, capability, count, counted, duration, q_text, share, size, span, visible
from stillwatch.types import Campaign

SHOWN = 20
"""Campaigns listed; the rest is counted."""

NARROW = 76


def show(findings: Findings, run: Run, out: Path, console: Console) -> None:
    """Print the summary of a run whose files are in ``out``."""
    console.print(_headline(findings, run))
    largest = sorted(findings.campaigns, key=lambda c: (-len(c.members), c.campaign_id))
    if largest:
        console.print()
        if console.width >= NARROW:
            console.print(_table(largest[:SHOWN], families=2 if console.width >= 110 else 1))
        else:
            for campaign in largest[:SHOWN]:
                console.print(_entry(campaign))
        if len(largest) > SHOWN:
            console.print(Text(f"and {counted(len(largest) - SHOWN, 'smaller campaign')} in campaigns.json"))
    console.print()
    console.print(_notes(findings, run, out))


def _headline(findings: Findings, run: Run) -> Text:
    counts = run.counts
    accused = sum(len(c.members) for c in findings.campaigns)
    if findings.campaigns:
        found = f"{counted(len(findings.campaigns), 'campaign')} found, {counted(accused, 'account')}"
    else:
        found = "No campaign found"
    text = Text(found, style="bold red" if findings.campaigns else "bold")
    judged = f"{counted(counts.exchanges_kept, 'exchange')} of {counted(counts.accounts, 'account')} judged"
    when = f", {span(counts.first_time, counts.last_time)}" if counts.first_time and counts.last_time else ""
    return text.append(f"\n{judged}{when}", style="not bold default")


def _table(campaigns: list[Campaign], families: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("campaign", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("accounts", justify="right", no_wrap=True)
    table.add_column("exchanges", justify="right", no_wrap=True)
    table.add_column("after", overflow="fold")
    table.add_column("evidence, bits", overflow="fold")
    table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("q", justify="right", no_wrap=True)
    for c in campaigns:
        table.add_row(
            Text(visible(c.campaign_id, 60), style="bold"),
            count(len(c.members)), count(c.exchanges), after_text(c), evidence_text(c, families),
            share(c.confidence), q_text(c.q_value),
        )  # fmt: skip
    return table


def _entry(campaign: Campaign) -> Text:
    text = Text(visible(campaign.campaign_id, 60), style="bold")
    text.append(
        f"  {counted(len(campaign.members), 'account')}, {counted(campaign.exchanges, 'exchange')}", style="not bold"
    )
    after = f"\n  after {after_text(campaign)}\n  evidence in bits: {evidence_text(campaign, 2)}"
    text.append(f"{after}\n  confidence {share(campaign.confidence)}, q {q_text(campaign.q_value)}", style="not bold")
    return text


def after_text(campaign: Campaign) -> str:
    """The capability most asked for, with its share."""
    name, part = max(campaign.capabilities.items(), key=lambda item: item[1], default=("", 0.0))
    return f"{capability(name)} {share(part)}" if name else "unknown"


def evidence_text(campaign: Campaign, families: int) -> str:
    """The strongest families of evidence, in bits."""
    ranked = sorted(campaign.evidence.items(), key=lambda item: -item[1])[:families]
    return ", ".join(f"{visible(family, 40)} {bits_text(bits)}" for family, bits in ranked) or "none"


def _notes(findings: Findings, run: Run, out: Path) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, words in _lines(findings, run, out):
        grid.add_row(label, Text(words))
    return grid


def _lines(findings: Findings, run: Run, out: Path) -> Iterator[tuple[str, str]]:
    if findings.review:
        held = sum(len(c.members) for c in findings.review)
        yield (
            "review",
            f"{counted(len(findings.review), 'cluster')} worth a look, {counted(held, 'account')}: review.json",
        )
    if findings.let_go:
        yield "let go", f"{counted(len(findings.let_go), 'look-alike')}: {_explanations(findings.let_go)}"
    for i, (name, why) in enumerate(run.blind.items()):
        yield "blind" if i == 0 else "", f"{visible(name, 60)}: {visible(why, 200)}"
    if run.rejects:
        yield "left out", _left_out(run)
    if run.unknown_columns:
        names = ", ".join(visible(c, 40) for c in run.unknown_columns[:6])
        yield "unknown", f"{counted(len(run.unknown_columns), 'column')} not understood: {names}"
    yield "took", _cost(run)
    if run.state:
        yield "state", _state(run)
    yield "report", visible(str(out / "report.html"), 400)


def _explanations(let_go: tuple[Campaign, ...]) -> str:
    """How many look-alikes each honest explanation stands for, most first."""
    tally: dict[str, int] = {}
    for cluster in let_go:
        name = next((a.name for a in cluster.alternatives if a.explains), "evidence too weak")
        tally[name] = tally.get(name, 0) + 1
    ranked = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
    words = [visible(name, 60) + (f" ({n})" if n > 1 else "") for name, n in ranked[:6]]
    return ", ".join(words) + (f" and {counted(len(ranked) - 6, 'more reason')}" if len(ranked) > 6 else "")


def _left_out(run: Run) -> str:
    rejected = run.rejected
    words = [f"{visible(reason, 80)} ({count(rows)})" for reason, rows in list(rejected.items())[:3]]
    more = f", and {counted(len(rejected) - 3, 'more reason')}" if len(rejected) > 3 else ""
    return f"{counted(sum(rejected.values()), 'row')}: {'; '.join(words)}{more}"


def _state(run: Run) -> str:
    words = [size(run.state["state_bytes"]), f"{counted(run.state['taken_up_rows'], 'exchange')} taken up from it"]
    if late := run.state["late_rows"]:
        words.append(f"{counted(late, 'exchange')} came late")
    return ", ".join(words)


def _cost(run: Run) -> str:
    wall = (run.finished - run.started).total_seconds()
    words = [duration(wall)]
    if run.spent.cpu_s > 0:
        words.append(f"{duration(run.spent.cpu_s)} of processor time")
    if wall > 0 and run.counts.exchanges_kept:
        words.append(f"{count(run.counts.exchanges_kept / wall)} exchanges/s")
    if run.peak_memory_bytes:
        words.append(f"{size(run.peak_memory_bytes)} of memory")
    return ", ".join(words)
