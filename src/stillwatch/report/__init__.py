"""The report: one self-contained page a person can read and send on.

No script, no network, nothing loaded: text, inline SVG and one style sheet. Whatever came from the log is escaped, with
control and direction characters written out. With many campaigns each gets less detail, so that the page stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from stillwatch.findings import Findings, Run
from stillwatch.pages import environment_of, tightened
from stillwatch.report import charts, picture, timeline, words
from stillwatch.types import FAMILIES, Axis, Campaign, Exhibit

LIMIT = 4_500_000
"""Bytes the page may have before it is made again in less detail."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of each campaign the page shows, so that hundreds of them stay under five megabytes."""

    sections: int = 400
    members: int = 50
    reasons: int = 6
    exhibits: int = 8
    nodes: int = 180
    edges: int = 500
    bars: int = 92
    opened: bool = True


ROOMY = 12
"""Up to so many sections all stand open, with everything there is to show."""

CROWDED = Detail(members=10, reasons=3, exhibits=3, nodes=40, edges=60, bars=32, opened=False)


def details(sections: int) -> Iterator[Detail]:
    """Ways to show so many sections, the fullest first and the tersest last."""
    if sections <= ROOMY:
        yield Detail()
    if sections <= 60:
        yield Detail(opened=False)
    if sections <= 150:
        yield CROWDED
    yield replace(CROWDED, members=6, reasons=2, exhibits=2, nodes=28)
    yield replace(CROWDED, members=3, reasons=1, exhibits=1, nodes=16, edges=24, bars=16)
    yield replace(CROWDED, sections=100, members=3, reasons=1, exhibits=1, nodes=16, edges=24, bars=16)


AXES = {
    Axis.COORDINATION: "one operator runs these accounts",
    Axis.EXTRACTION: "what they ask for is training data",
    Axis.CONCEALMENT: "they pretend otherwise",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A bar of the waterfall: a family, its bits, where the bar starts, and the exhibits behind it."""

    family: str
    start: float
    bits: float
    exhibits: tuple[Exhibit, ...]


def waterfall(campaign: Campaign) -> list[Step]:
    """Families that add up, strongest first, each with its exhibits of coordination and extraction."""
    steps, total = [], 0.0
    for family, bits in sorted(campaign.evidence.items(), key=lambda item: -item[1]):
        if bits < 0.05:
            continue
        shown = [e for e in campaign.exhibits if e.family == family and e.axis != Axis.CONCEALMENT]
        steps.append(Step(family, total, bits, tuple(sorted(shown, key=lambda e: -e.bits))))
        total += bits
    return steps


def loose_exhibits(campaign: Campaign, axis: Axis) -> list[Exhibit]:
    """Exhibits of one axis that no step of the waterfall shows, strongest first."""
    in_steps = {id(e) for step in waterfall(campaign) for e in step.exhibits}
    loose = [e for e in campaign.exhibits if e.axis == axis and id(e) not in in_steps]
    return sorted(loose, key=lambda e: -e.bits)


def after(campaign: Campaign) -> list[tuple[str, float]]:
    """Capabilities the campaign is after, largest share first."""
    return sorted(((n, s) for n, s in campaign.capabilities.items() if s > 0), key=lambda item: (-item[1], item[0]))


def by_size(campaigns: Iterable[Campaign]) -> list[Campaign]:
    """Most accounts first."""
    return sorted(campaigns, key=lambda c: (-len(c.members), c.campaign_id))


def by_risk(campaign: Campaign, limit: int) -> Sequence[Any]:
    """The members to show: highest risk first, busiest first among equals."""
    return sorted(campaign.members, key=lambda m: (-m.risk, -m.exchanges, m.account_id))[:limit]


def distilled(campaign: Campaign) -> int:
    """Exchanges judged to be distillation queries."""
    return sum(d.distillation for d in campaign.days)


def coverage_groups(coverage: Mapping[str, float]) -> dict[str, list[tuple[str, float]]]:
    """Columns in every row, in some, in none."""
    groups: dict[str, list[tuple[str, float]]] = {"every row": [], "some rows": [], "no row": []}
    for name, part in coverage.items():
        groups["every row" if part >= 1 else "some rows" if part > 0 else "no row"].append((name, part))
    return {name: columns for name, columns in groups.items() if columns}


def page(findings: Findings, run: Run) -> str:
    """The whole report as HTML text, in the fullest detail that keeps it within ``LIMIT`` bytes."""
    for detail in details(len(findings.campaigns) + len(findings.review)):
        text = render(findings, run, detail)
        if len(text.encode()) <= LIMIT:
            break
    return text


def render(findings: Findings, run: Run, detail: Detail) -> str:
    """The report in the given detail."""
    text = _environment().get_template("page.html").render(
        run=run,
        campaigns=by_size(findings.campaigns),
        review=by_size(findings.review),
        let_go=by_size(findings.let_go),
        accused=sum(len(c.members) for c in findings.campaigns),
        detail=detail,
        style=files(__package__).joinpath("style.css").read_text(encoding="utf-8"),
    )  # fmt: skip
    return tightened(text)


@cache
def _environment() -> Environment:
    environment = environment_of("stillwatch.report")
    names = ("count", "counted", "share", "q_text", "bits_text", "expected_text", "odds", "day", "minute", "span",
             "duration", "size", "capability", "visible")  # fmt: skip
    environment.filters.update({name: getattr(words, name) for name in names})
    environment.globals.update(
        charts=charts, picture=picture, timeline=timeline, AXES=AXES, FAMILIES=FAMILIES, waterfall=waterfall,
        loose_exhibits=loose_exhibits, after=after, by_risk=by_risk, distilled=distilled,
        coverage_groups=coverage_groups,
    )  # fmt: skip
    return environment
