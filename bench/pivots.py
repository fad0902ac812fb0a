"""Which campaigns are told to have moved to a new model, with intervals, beside what truly moved.

    python bench/pivots.py --seeds 1-5
    python bench/pivots.py --seeds 1-5 --accounts 20000 --prompts P --traces T

A month of every seed is simulated (the usual campaigns, one of which moves half of its traffic) and scanned. A row for
each campaign, case in review and honest group let go of which a move is told, and for the planted campaign that moves
where none is; *true* is the share of the planted campaign's own distillation queries of that day that went to the new model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from stillwatch.config import Config
from stillwatch.pipeline import Log, scan
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.simulate import default_world, simulate
from stillwatch.types import Campaign
from worlds import seeds_of

TRUE = """
    SELECT t.campaign_id AS campaign, m.model AS model, avg((x.model = m.model)::INT) AS share, count(*) AS exchanges
    FROM read_csv($models, header = true) m
    JOIN read_parquet($exchanges) x ON x.time >= m.released_at AND x.time < m.released_at + INTERVAL 24 HOUR
    JOIN read_parquet($marks) k ON k.exchange_id = x.exchange_id AND k.distillation
    JOIN read_parquet($truth) t ON t.account_id = x.account_id AND t.campaign_id IS NOT NULL
    GROUP BY t.campaign_id, m.model"""
MOVER = "agentic_pivot"


def true_shares(world: Path) -> dict[tuple[str, str], float]:
    """By planted campaign and model, the share of its distillation queries that moved on the first day."""
    paths = {
        "models": str(world / "models.csv"), "exchanges": str(world / "exchanges" / "*.parquet"),
        "marks": str(world / "truth_exchanges.parquet"), "truth": str(world / "truth.parquet"),
    }  # fmt: skip
    with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as engine:
        return {(c, m): share for c, m, share, _ in engine.execute(TRUE, paths).fetchall()}


def measure(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one seed."""
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as folder, Progress(quiet=True) as progress:
        world = Path(folder)
        settings = {"prompts": options.prompts, "traces": options.traces}
        simulate(default_world(seed, options.accounts, options.exchanges, **settings), world)
        log = Log(world / "exchanges", world / "accounts.parquet", world / "models.csv")
        findings, _ = scan(log, Config(), Privacy(f"the key of a world, seed {seed}".encode()), progress)
        truth = pq.read_table(world / "truth.parquet", columns=["account_id", "campaign_id", "population"])
        who = {a: (c or "honest", p) for a, c, p in zip(*(truth[n].to_pylist() for n in truth.column_names))}
        true = true_shares(world)
    groups = (*findings.campaigns, *findings.review, *findings.let_go)
    return [{"seed": seed, **row} for row in told(groups, who, true)]


def told(
    groups: tuple[Campaign, ...], who: dict[str, tuple[str, str]], true: dict[tuple[str, str], float]
) -> Iterator[dict[str, Any]]:
    """A row for each group of which a move is told, and for the mover's where none is."""
    for group in groups:
        (planted, population), many = Counter(who[m.account_id] for m in group.members).most_common(1)[0]
        pivot = group.pivot
        if pivot is None and population != MOVER:
            continue
        row = {"of": population, "outcome": str(group.outcome), "accounts": len(group.members),
               "purity": many / len(group.members),
               "true": max((share for (c, _), share in true.items() if c == planted), default=None)}  # fmt: skip
        if pivot is not None:
            row |= {
                "share": pivot.share_24h,
                "interval": (pivot.share_low, pivot.share_high), "benign": pivot.benign_share_24h,
                "more": (pivot.more_low, pivot.more_high),
            }  # fmt: skip
        yield row


def show(rows: list[dict[str, Any]]) -> None:
    """One table."""
    table = Table(title="Moves to a new model", title_justify="left")
    names = ("seed", "of", "outcome", "accounts", "purity", "true", "share", "interval", "benign", "more")
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3f}-{value[1]:.3f}"
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds_of, nargs="+", default=[[1]], help="such as 1-5, or 3 8")
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--exchanges", type=int, default=400_000)
    parser.add_argument("--prompts", type=Path, help="folder of real prompts for the simulator")
    parser.add_argument("--traces", type=Path, help="folder of real timings for the simulator")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in [s for group in options.seeds for s in group]:
        rows += measure(seed, options)
        print(f"seed {seed}: done", file=sys.stderr, flush=True)
    show(rows)


if __name__ == "__main__":
    main()
