"""The exam: worlds of a generator whose writer has not seen the detectors, scanned or replayed, one row a world, kept.

    python bench/exam.py --generator drawn --seeds 11-30 --prompts P --traces T --out runs/drawn
    python bench/exam.py --generator heldout --seeds 11-30 --look-alikes-only --prompts P --traces T --out runs/quiet
    python bench/exam.py --generator drawn --seeds 11-14 --replay 1h --prompts P --traces T --out runs/replay

Generators are the packages beside this file (``drawn``, ``heldout``, ``strangers``). ``--weights FILE`` judges by
other weights than the package's, such as those learnt without this generator. Figures are pooled over worlds:
precision with its interval, the share accused in every look-alike class, recall by class of campaign, pieces and
purity. OUT/exam.jsonl keeps a line for each world; worlds and results go unless --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from stillwatch.evaluation.leaks import probe
from stillwatch.evaluation.measures import Rate
from worlds import seeds_of

HERE = Path(__file__).resolve().parent
LEAST = 50
"""Accounts from which on a campaign that shares something must be found."""


def make(options: argparse.Namespace, seed: int, world: Path) -> None:
    """Have the generator write the world of this seed."""
    command = [sys.executable, "-m", options.generator, "--seed", str(seed), "--prompts", str(options.prompts.resolve()),
               "--traces", str(options.traces.resolve()), "--out", str(world.resolve())]  # fmt: skip
    command += ["--look-alikes-only"] if options.look_alikes_only else []
    subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.DEVNULL)


def judge(options: argparse.Namespace, world: Path, result: Path) -> float:
    """Scan or replay the world in a process of its own; its processor seconds."""
    verb = ["replay", "--every", options.replay] if options.replay else ["scan"]
    log = [
        str(world / "exchanges"),
        "--accounts",
        str(world / "accounts.parquet"),
        "--models",
        str(world / "models.csv"),
    ]
    command = [sys.executable, "-m", "stillwatch", *verb, *log, "--out", str(result), "--quiet"]
    environment = dict(os.environ)
    if options.weights:
        environment["STILLWATCH_WEIGHTS"] = str(options.weights.resolve())
    before = os.times()
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure(world: Path, result: Path) -> dict[str, Any]:
    """The evaluation of a result, and what the world says of its campaigns."""
    from stillwatch.evaluation import evaluate  # noqa: PLC0415

    found = evaluate(world, result).to_dict()
    made = json.loads((world / "world.json").read_text(encoding="utf-8"))
    return {"evaluation": found, "planted": {c["campaign_id"]: c for c in made["campaigns"]}}


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One world, from its making to its row."""
    world, result = options.out / f"world-{seed}", options.out / f"result-{seed}"
    make(options, seed, world)
    cpu_s = judge(options, world, result)
    row = {"seed": seed, "cpu_s": cpu_s, **measure(world, result)}
    if options.leaks:
        row["leaks"] = probe(world).to_dict()
    if not options.keep:
        shutil.rmtree(world)
        shutil.rmtree(result)
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """Tables over all worlds."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    accused = [r["evaluation"]["precision"] for r in rows]
    right, all_ = sum(a["hits"] for a in accused), sum(a["total"] for a in accused)
    worst = min((a["value"] for a in accused if a["value"] is not None), default=None)
    pooled = Rate(right, all_)
    console.print(
        f"{len(rows)} worlds, {all_:,} accused, precision {right / max(1, all_):.4f} ({pooled.low:.4f}-{pooled.high:.4f}), "
        f"worst world {worst}"
    )
    reported = [c for r in rows for c in r["evaluation"]["reported"]]
    console.print(f"campaigns reported {len(reported)}, false {sum(c['is_false'] for c in reported)}")
    for row in (r for r in rows if "leaks" in r):
        console.print(leak_line(row))
    console.print(recalls(rows))
    console.print(look_alikes(rows))


def leak_line(row: dict[str, Any]) -> str:
    """What the leak probe says of a world: the strongest single column, those above the limit, and all columns together."""
    leaks = row["leaks"]
    strongest = max(leaks["leaks"], key=lambda leak: leak["auc"])
    line = f"seed {row['seed']}: strongest column {strongest['column']}, AUC {strongest['auc']:.3f}; "
    line += f"giveaways: {', '.join(leaks['giveaways']) or 'none'}"
    if leaks["trees"]:
        best = leaks["trees"]["best_f1"]
        line += f"; trees over all columns, precision {best['precision']['value']:.2f} at recall {best['recall']['value']:.2f}"
    return line


def recalls(rows: list[dict[str, Any]]) -> Table:
    """Recall, pieces and purity by class of campaign."""
    table = Table(title="Campaigns by class", title_justify="left")
    for name in (
        "class",
        "campaigns",
        "accounts",
        "recall pooled",
        "mean",
        "median",
        "lowest",
        "found",
        "pieces, most",
        "purity, lowest",
    ):
        table.add_column(name)
    by: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for row in rows:
        for c in row["evaluation"]["campaigns"]:
            planted = row["planted"][c["campaign_id"]]
            by[planted.get("class", planted["shape"])].append((c, planted))
            if planted["accounts"] >= LEAST and set(planted.get("shares", ())) & {"wording", "cards", "addresses"}:
                by["(50 or more that share)"].append((c, planted))
    for name, found in sorted(by.items()):
        each = np.array([c["recall"]["value"] for c, _ in found])
        hits, total = sum(c["recall"]["hits"] for c, _ in found), sum(c["recall"]["total"] for c, _ in found)
        purity = [c["purity"]["value"] for c, _ in found if c["purity"]["value"] is not None]
        pieces = [len(c["pieces"]) for c, _ in found]
        table.add_row(
            name, str(len(found)), f"{total:,}", f"{hits / max(1, total):.3f}", f"{each.mean():.3f}", f"{np.median(each):.3f}",
            f"{each.min():.3f}", str(sum(p > 0 for p in pieces)), str(max(pieces)), f"{min(purity, default=float('nan')):.3f}",
        )  # fmt: skip
    return table


def look_alikes(rows: list[dict[str, Any]]) -> Table:
    """Accounts accused in each honest class, over all worlds."""
    table = Table(title="Honest classes", title_justify="left")
    for name in ("class", "accounts", "accused", "share", "95 %", "highest risk"):
        table.add_column(name)
    hits: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    risk: dict[str, float] = defaultdict(float)
    for row in rows:
        for p in row["evaluation"]["populations"]:
            hits[p["name"]] += p["accused"]["hits"]
            total[p["name"]] += p["accused"]["total"]
            risk[p["name"]] = max(risk[p["name"]], p["highest_risk"] or 0.0)
    for name in sorted(total, key=lambda n: -hits[n] / max(1, total[n])):
        rate = Rate(hits[name], total[name])
        table.add_row(
            name,
            f"{total[name]:,}",
            str(hits[name]),
            f"{hits[name] / max(1, total[name]):.4f}",
            f"{rate.low:.4f}-{rate.high:.4f}",
            f"{risk[name]:.3f}",
        )
    return table


def times(rows: list[dict[str, Any]]) -> None:
    """How early a replay told, pooled over worlds."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    each = [
        (c, row["planted"][c["campaign_id"]])
        for row in rows
        if row["evaluation"].get("timeliness")
        for c in row["evaluation"]["timeliness"]["campaigns"]
    ]
    sharing = [
        c for c, p in each if p["accounts"] >= LEAST and set(p.get("shares", ())) & {"wording", "cards", "addresses"}
    ]
    for name, some in (("all", [c for c, _ in each]), ("50 or more that share", sharing)):
        served, harvest = sum(c["served"] for c in some), sum(c["harvest"] for c in some)
        before = [1.0 if c["before_named_share"] is None else c["before_named_share"] for c in some]
        heads = [
            c["heads"]["exchanges_median"] for c in some if c["heads"] and c["heads"]["exchanges_median"] is not None
        ]
        known = [c["heads"]["known_median"] for c in some if c["heads"] and c["heads"]["known"]]
        console.print(
            f"{name}: {len(some)} campaigns, served before flagged {served / max(1, harvest):.3f} of {harvest:,}, "
            f"named before (median) {middle(before):.3f} of the harvest; "
            f"new heads: {len(heads)} campaigns, median exchanges {middle(heads):.1f}; once named: {len(known)} campaigns, "
            f"median {middle(known):.1f}"
        )


def middle(values: list[float]) -> float:
    """The median; nan of none."""
    return float(np.median(values)) if values else float("nan")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", choices=("drawn", "heldout", "strangers"), required=True)
    parser.add_argument("--seeds", type=seeds_of, nargs="+", required=True, help="such as 11-30, or 3 8")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--look-alikes-only", action="store_true")
    parser.add_argument("--replay", metavar="EVERY", help="replay in such steps instead of a scan")
    parser.add_argument("--weights", type=Path, help="weights to judge by")
    parser.add_argument("--leaks", action="store_true", help="the leak probe of every world; takes as long as the scan")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then show all."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "exam.jsonl"
    done = {r["seed"]: r for r in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
    for seed in [s for group in options.seeds for s in group]:
        if seed not in done:
            done[seed] = run(options, seed)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(done[seed]) + "\n")
            print(f"seed {seed}: done, {done[seed]['cpu_s']:.0f} CPU s", file=sys.stderr, flush=True)
    rows = [done[s] for s in sorted(done)]
    show(rows)
    if options.replay:
        times(rows)


if __name__ == "__main__":
    main()
