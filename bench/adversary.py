"""The cheapest way past the detectors: a search over what an operator can turn, at a harvest that is fixed.

    python bench/adversary.py --budget 60 --out runs/adversary
    python bench/adversary.py --budget 200 --without accounts_per_card=30 --out runs/adversary --svg docs/adversary.svg
    python bench/adversary.py --budget 60 --prompts P --traces T --out runs/real

An evaluation simulates a plan among honest accounts, scans the log and sees what share of its distillation exchanges
stands with accused accounts: about 4 processor seconds at the usual size, three plans sharing a world. OUT/trials.jsonl
keeps every one; a run that was stopped, or is given a larger budget, goes on from there, as long as the code is the
same. OUT/frontier.json has the frontier, all plans tried, and the prices. Costs are multiples of the naive plan's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table

from stillwatch.config import Config
from stillwatch.evaluation.adversary import Archive, Grounds, Search, Tried, code, frontier, search, try_out
from stillwatch.evaluation.costs import Prices, cost
from stillwatch.evaluation.knobs import Space, changes
from stillwatch.report.charts import text, trim
from stillwatch.simulate import CampaignPlan

STYLE = """
.paper { fill: #fff } text { font: 13px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1a1e22 }
.head { font-size: 16px; font-weight: 600 } .soft { fill: #5a636b } .end { text-anchor: end }
.mid, .number { text-anchor: middle } .grid { stroke: #cfd5d8 } .point { fill: #97a1a8; fill-opacity: .45 }
.line { fill: none; stroke: #a8322a; stroke-width: 2 } .mark { fill: #a8322a }
.number { fill: #fff; font-size: 11px; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #191d21 } text { fill: #e4e8ea } .soft { fill: #9aa5ad } .grid { stroke: #343b41 }
  .point { fill: #9aa5ad } .line { stroke: #e5766b } .mark { fill: #e5766b } .number { fill: #191d21 }
}"""
WIDTH, LEFT, RIGHT, HEAD, FOOT = 760, 64, 736, 72, 372


def told(changed: dict[str, Any]) -> str:
    """Turned knobs in words: ``35 accounts, camouflage 50 %, wording several``."""
    shares = ("camouflage", "customers", "pivot")
    words = []
    for name, value in changed.items():
        said = "whole log" if name == "days" and not value else f"{value:.0%}" if name in shares else str(value)
        words.append(f"{name.replace('_', ' ')} {said}")
    return ", ".join(words) or "naive"


def across(multiple: float, most: float) -> float:
    """Where a cost stands on the page; the scale is logarithmic, from 1 to ``most``."""
    return LEFT + (RIGHT - LEFT) * math.log(max(multiple, 1.0)) / math.log(most)


def up(lost: float) -> float:
    """Where a share lost stands on the page."""
    return FOOT - (FOOT - HEAD) * lost


def axes(most: float) -> Iterator[str]:
    """Lines and numbers of both scales."""
    for percent in range(0, 101, 25):
        y = up(percent / 100)
        yield f'<path class="grid" d="M{LEFT} {trim(y)}H{RIGHT}"/>' + text(LEFT - 8, y + 4, f"{percent} %", "soft end")
    for multiple in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        if multiple <= most:
            x = across(multiple, most)
            yield f'<path class="grid" d="M{trim(x)} {HEAD}V{FOOT}"/>'
            yield text(x, FOOT + 18, f"{multiple}×", "soft mid")
    yield text(
        (LEFT + RIGHT) / 2, FOOT + 38, "what the plan costs the operator, as a multiple of the naive plan", "soft mid"
    )


def stairs(points: Sequence[tuple[float, float]]) -> str:
    """The frontier: who spends less than the next plan loses what the last one lost."""
    (x, y), *rest = points
    path = f"M{trim(x)} {trim(y)}" + "".join(f"H{trim(x)}V{trim(y)}" for x, y in rest) + f"H{RIGHT}"
    return f'<path class="line" d="{path}"/>'


def picture(front: Sequence[Tried], tried: Sequence[Tried], naive: Tried, harvest: int) -> str:
    """All plans as faint dots, the frontier as a numbered line, and beneath it what each of its plans has turned."""
    most = 1.15 * max(2.0, *(t.usd / naive.usd for t in tried))
    spot = lambda t: (across(t.usd / naive.usd, most), up(t.lost))
    body = list(axes(most))
    body += [f'<circle class="point" cx="{trim(x)}" cy="{trim(y)}" r="4"/>' for x, y in map(spot, tried)]
    body.append(stairs([spot(t) for t in front]))
    y = FOOT + 66.0
    for number, t in enumerate(front, 1):
        x, mark = spot(t)
        for cx, cy in ((x, mark), (LEFT - 40, y - 4)):
            body.append(f'<circle class="mark" cx="{trim(cx)}" cy="{trim(cy)}" r="9"/>')
            body.append(text(cx, cy + 4, str(number), "number"))
        body.append(text(LEFT - 22, y, f"{t.usd / naive.usd:.1f}× loses {t.lost:.0%}", ""))
        for line in wrap(told(changes(t.plan, naive.plan)), 84):
            body.append(text(LEFT + 116, y, line, "soft"))
            y += 18
        y += 4
    title = f"What it costs to get past the detectors with {harvest:,} distillation exchanges"
    said = "; ".join(f"{t.usd / naive.usd:.1f} times the cost loses {t.lost:.0%}" for t in front)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {trim(y)}" width="{WIDTH}" height="{trim(y)}" '
        f'role="img" aria-labelledby="t d"><title id="t">{title}</title><desc id="d">Frontier of {len(tried)} plans of '
        f"an operator: {said}.</desc><style>{STYLE}</style>"
        f'<rect class="paper" width="{WIDTH}" height="{trim(y)}" rx="6"/>{text(LEFT - 40, 28, title, "head")}'
        f"{text(LEFT - 40, 50, 'share of the harvest that stands with accused accounts; each dot a plan', 'soft')}"
        f"{''.join(body)}</svg>\n"
    )


def show(front: Sequence[Tried], naive: Tried, harvest: int) -> None:
    """The frontier as a table, cheapest first."""
    table = Table(title=f"Cheapest ways past the detectors, harvest {harvest:,}", title_justify="left")
    for name in ("US$", "cost", "lost", "in review", "let go", "US$ per 1,000 kept", "honest accused", "worlds"):
        table.add_column(name, justify="right")
    table.add_column("turned, against the naive plan", overflow="fold")
    for t in front:
        kept = harvest * (1 - t.lost) / 1000
        table.add_row(
            f"{t.usd:,.0f}", f"{t.usd / naive.usd:.2f}×", *(f"{t.mean(share):.0%}" for share in ("lost", "reviewed", "let_go")),
            f"{t.usd / kept:,.0f}" if kept else "–", str(max(trial.wrongly_accused for trial in t.trials)),
            str(len(t.trials)), told(changes(t.plan, naive.plan)),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def report(front: Sequence[Tried], tried: Sequence[Tried], naive: Tried, options: argparse.Namespace) -> dict[str, Any]:
    """For frontier.json: the frontier with its bills, then every plan tried."""

    def row(t: Tried) -> dict[str, Any]:
        turned = changes(t.plan, naive.plan)
        shares = {share: t.mean(share) for share in ("lost", "reviewed", "let_go", "recall")}
        return {"multiple": t.usd / naive.usd, "usd": t.usd, **shares, "turned": turned,
                "plan": asdict(t.plan), "trials": [asdict(trial) for trial in t.trials]}  # fmt: skip

    world = grounds_of(options).world([])
    return {
        "harvest": options.harvest, "most_requests": options.most_requests, "held": options.hold,
        "without": options.without,
        "accounts": options.accounts, "exchanges": options.exchanges, "real_prompts": bool(options.prompts),
        "real_traces": bool(options.traces), "code": code(), "seed": options.seed, "prices": asdict(Prices()),
        "evaluations": sum(len(t.trials) for t in tried), "naive_usd": naive.usd,
        "frontier": [row(t) | {"bill": dict(cost(t.plan, world).items)} for t in front],
        "tried": [row(t) for t in tried],
    }  # fmt: skip


def grounds_of(options: argparse.Namespace) -> Grounds:
    return Grounds(options.accounts, options.exchanges, prompts=options.prompts, traces=options.traces)


def explore(options: argparse.Namespace) -> list[Tried]:
    """Search until the budget is spent or the user has seen enough; all plans tried."""
    grounds = grounds_of(options)
    space = Space(options.harvest, options.most_requests)
    for spec in options.hold:
        space = space.hold(spec)
    for spec in options.without:
        space = space.without(spec)
    setting = {name: str(value) for name, value in asdict(grounds).items()} | {"code": code()}
    archive = Archive(options.out / "trials.jsonl", setting)
    config = Config(threads=options.threads)
    world = grounds.world([])
    usd: Callable[[CampaignPlan], float] = lambda plan: cost(plan, world).usd
    how = Search(options.budget, options.seed, options.together, options.repeats)
    tried: list[Tried] = []
    try:
        for tried in search(lambda plans, seed: try_out(plans, seed, grounds, config), space, how, archive, usd):
            spent, best = sum(len(t.trials) for t in tried), frontier(tried)
            print(f"{spent} of {how.budget}: {len(tried)} plans, {len(best)} on the frontier", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; what is there is kept", file=sys.stderr)
    return tried


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=60, help="evaluations in all, those of earlier runs included")
    parser.add_argument("--out", type=Path, required=True, help="folder of trials.jsonl and frontier.json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--harvest", type=int, default=5000, help="distillation exchanges every plan is to get")
    parser.add_argument(
        "--most-requests", type=int, default=125, help="exchanges of an account at most, on average: why they spread"
    )
    parser.add_argument("--hold", action="append", default=[], help="KNOB=VALUE that stays, may be repeated")
    parser.add_argument("--without", action="append", default=[], help="KNOB=VALUE that is ruled out, may be repeated")
    parser.add_argument("--accounts", type=int, default=6000, help="honest accounts of a world")
    parser.add_argument("--exchanges", type=int, default=150_000, help="honest exchanges of a world")
    parser.add_argument("--together", type=int, default=3, help="plans side by side in a world")
    parser.add_argument("--repeats", type=int, default=3, help="worlds in which a plan must hold the frontier")
    parser.add_argument("--threads", type=int, default=1, help="of the engine; 0: all cores")
    parser.add_argument("--prompts", type=Path, help="folder of real prompts for the simulator")
    parser.add_argument("--traces", type=Path, help="folder of real timings for the simulator")
    parser.add_argument("--svg", type=Path, help="draw the frontier to this file")
    return parser.parse_args()


def main() -> None:
    """Search, then show and write the frontier."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    tried = explore(options)
    if not tried:
        sys.exit("nothing was tried")
    # The first plan tried is the naive one.
    front, naive = frontier(tried), tried[0]
    found = report(front, tried, naive, options)
    (options.out / "frontier.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.svg:
        options.svg.write_text(picture(front, tried, naive, options.harvest), encoding="utf-8")
    show(front, naive, options.harvest)


if __name__ == "__main__":
    main()
