"""What each family of evidence, each column, camouflage and size do to what is found: precision, recall, campaigns.

    python bench/ablation.py families WORLD... --out runs/ablation
    python bench/ablation.py columns WORLD... --out runs/ablation
    python bench/ablation.py camouflage --seeds 1-3 --prompts P --traces T --out runs/ablation
    python bench/ablation.py sizes --seeds 1-3 --prompts P --traces T --out runs/ablation --only 10 30 100 --markdown

A WORLD is a folder with exchanges/, accounts.parquet, models.csv and the truth: `stillwatch simulate` and the generators
beside this file write such. ``families`` judges each again with one family of evidence taken out (evaluation/families.py
says how), ``columns`` scans it again with columns taken out (worlds.py). ``camouflage`` and ``sizes`` weave worlds of our
own simulator in which every campaign has that share of ordinary traffic, or so many accounts. Rows are pooled over
worlds; intervals (Wilson, 95 %) take accounts as independent, which those of one campaign are not. OUT/ablation.jsonl
keeps a line a world and case; what is there for the same world, options and code is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from scan import apart, files_of, run_scan, simulate
from stillwatch.evaluation.families import WHOLE, judged_without
from stillwatch.evaluation.measures import Rate
from stillwatch.types import FAMILIES
from worlds import DROPPED, code, read_rows, seeds_of, without

CAMOUFLAGE = (0.0, 0.3, 0.6, 0.8, 0.9)
SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
SHAPES = ("balanced_reasoning", "tagged_traces", "many_pathways", "trace_cleaning", "agentic_pivot", "hydra_proxy",
          "four_requests")  # fmt: skip
"""Campaigns of woven worlds; where not all fit beside the honest accounts, each seed begins at another."""
USUAL_SIZE, USUAL_CAMOUFLAGE = 300, 0.3
"""Where a table turns the other."""
CASES: dict[str, Sequence[Any]] = {
    "families": (WHOLE, *FAMILIES), "columns": (WHOLE, *DROPPED), "camouflage": CAMOUFLAGE, "sizes": SIZES,
}  # fmt: skip
KEY = "the key of an ablation, the same for every case"
"""Results move a little with the key of the hashes, which must not be taken for what was taken out."""
RATES = ("precision", "recall", "found", "wrong")
Row = dict[str, Any]


def measures(world: Path, result: Path) -> dict[str, Any]:
    """What is kept of an evaluation: hits and totals, and recall by campaign."""
    from stillwatch.evaluation import evaluate  # noqa: PLC0415

    found = evaluate(world, result)
    wrong, honest = (sum(getattr(p.accused, n) for p in found.populations) for n in ("hits", "total"))
    rates = {"precision": found.precision, "recall": found.recall, "found": found.found, "wrong": Rate(wrong, honest)}
    return {name: [rate.hits, rate.total] for name, rate in rates.items()} | {
        "campaigns": [
            {"shape": c.shape, "recall": [c.recall.hits, c.recall.total], "found": bool(c.pieces)}
            for c in found.campaigns
        ],
        "populations": {p.name: [p.accused.hits, p.accused.total] for p in found.populations if p.accused.hits},
    }


def judge_families(world: Path, families: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Measures of a world without each of these families; it is read once."""
    from stillwatch.config import Config  # noqa: PLC0415
    from stillwatch.pipeline import Log  # noqa: PLC0415
    from stillwatch.privacy import Privacy  # noqa: PLC0415
    from stillwatch.results import campaign_json  # noqa: PLC0415

    exchanges, accounts, models = files_of(world)
    key, rows = Privacy(KEY.encode()), []
    for family, findings in judged_without(Log(exchanges, accounts, models), families, Config(), key):
        with tempfile.TemporaryDirectory(prefix="stillwatch-") as folder:
            result = Path(folder)
            pq.write_table(findings.accounts, result / "accounts.parquet")
            (result / "campaigns.json").write_text(json.dumps([campaign_json(c) for c in findings.campaigns]))
            rows.append((family, measures(world, result)))
    return rows


def run_families(world: Path, cases: Sequence[str], _: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of one world by family, in a process of its own."""
    yield from apart(judge_families, world, list(cases))


def run_columns(world: Path, cases: Sequence[str], out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of one world by what was taken out of its files."""
    for case in cases:
        result, changed = out / f"result-{world.name}-{case}", out / f"changed-{world.name}-{case}"
        run_scan(*without(world, case, changed), result, keyed(out))
        yield case, apart(measures, world, result)
        for folder in (result, changed):
            shutil.rmtree(folder, ignore_errors=True)


def keyed(out: Path) -> list[str]:
    """Arguments of a scan that hashes by ``KEY``."""
    (out / "key").write_text(KEY, encoding="utf-8")
    return ["--key", str(out / "key")]


def plans(table: str, value: float, seed: int, honest: int) -> dict[str, Any]:
    """The campaigns of a woven world, as many shapes as keep to half of the honest accounts, and how many these are."""
    from stillwatch.simulate import presets  # noqa: PLC0415

    size, camouflage = (int(value), USUAL_CAMOUFLAGE) if table == "sizes" else (USUAL_SIZE, value)
    honest = max(honest, 2 * size)
    fit = min(len(SHAPES), max(1, honest // (2 * size)))
    shapes = [SHAPES[(seed * fit + k) % len(SHAPES)] for k in range(fit)]
    return {"accounts": honest + fit * size, "campaigns": tuple(presets(s, size, camouflage) for s in shapes)}


def run_woven(options: argparse.Namespace, seed: int, value: float) -> dict[str, Any]:
    """One world of our own simulator, made, scanned, measured."""
    world, result = (options.out / f"{name}-{options.table}-{value:g}-{seed}" for name in ("world", "result"))
    made = plans(options.table, value, seed, options.honest)
    settings = {"seed": seed, "exchanges": options.per_account * made["accounts"], "prompts": options.prompts,
                "traces": options.traces, **made}  # fmt: skip
    apart(simulate, world, settings)
    run_scan(*files_of(world), result, keyed(options.out))
    found = apart(measures, world, result)
    for folder in (world, result):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def cases_of(options: argparse.Namespace) -> list[Any]:
    """What is turned, in the order of the table's rows; those that ``--only`` names, if any."""
    cases = CASES[options.table]
    if unknown := set(options.only) - set(map(str, cases)):
        raise SystemExit(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(map(str, cases))}")
    return [case for case in cases if not options.only or str(case) in options.only]


def key_of(*what: Any) -> str:
    """Names a row by all that decides it, the code included."""
    return hashlib.sha256(json.dumps([*what, code()], default=str).encode()).hexdigest()[:16]


def mark_of(world: Path) -> str:
    """A hash of a world's truth: folders of one name may hold different worlds."""
    return hashlib.sha256((world / "truth.parquet").read_bytes()).hexdigest()[:16]


def wanted(options: argparse.Namespace) -> dict[str, tuple[str, Any, Any]]:
    """By key, every row of the table: (world's name or seed, the same to work with, case)."""
    if options.table in ("families", "columns"):
        marks = {w: mark_of(w) for w in options.worlds}
        return {
            key_of(options.table, w.name, marks[w], c): (w.name, w, c)
            for w in options.worlds
            for c in cases_of(options)
        }
    setting = (options.honest, options.per_account, options.prompts, options.traces)
    seeds = [s for group in options.seeds for s in group]
    return {key_of(options.table, s, c, *setting): (f"seed {s}", s, c) for c in cases_of(options) for s in seeds}


def measured(options: argparse.Namespace, missing: dict[str, tuple[str, Any, Any]]) -> Iterator[Row]:
    """A row for everything that is missing."""
    if options.table in ("camouflage", "sizes"):
        for key, (name, seed, case) in missing.items():
            yield {"key": key, "table": options.table, "world": name, "case": case, **run_woven(options, seed, case)}
        return
    run = run_families if options.table == "families" else run_columns
    for world in dict.fromkeys(w for _, w, _ in missing.values()):
        keys = {case: key for key, (_, w, case) in missing.items() if w == world}
        for case, found in run(world, list(keys), options.out):
            yield {"key": keys[case], "table": options.table, "world": world.name, "case": case, **found}


def pooled(rows: Sequence[Row], case: Any) -> dict[str, Rate]:
    """The rates of one case over all worlds."""
    mine = [row for row in rows if row["case"] == case]
    return {name: Rate(sum(row[name][0] for row in mine), sum(row[name][1] for row in mine)) for name in RATES}


def lines(rows: Sequence[Row], cases: Sequence[Any]) -> list[list[str]]:
    """The cells of the table."""
    return [[_case(case), *(_rate(name, rate) for name, rate in pooled(rows, case).items())] for case in cases]


def _case(case: Any) -> str:
    return (
        case.replace("_", " ") if isinstance(case, str) else f"{case:.0%}" if isinstance(case, float) else f"{case:,}"
    )


def _rate(name: str, rate: Rate) -> str:
    """A rate in words: counts where counts matter, the share and its interval elsewhere."""
    if name == "found":
        return f"{rate.hits} of {rate.total}"
    if name == "wrong":
        return f"{rate.hits:,} of {rate.total:,}"
    if rate.value is None:
        return "nobody accused" if name == "precision" else "–"
    counts = f", {rate.hits:,} of {rate.total:,}" if name == "precision" else ""
    return f"{rate.value:.3f} ({rate.low:.3f}-{rate.high:.3f}{counts})"


TITLES = {
    "families": "without the family", "columns": "without the columns", "camouflage": "ordinary traffic",
    "sizes": "accounts of a campaign",
}  # fmt: skip


def show(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """The table, on the terminal or as Markdown."""
    head = [TITLES[options.table], "precision", "recall", "campaigns found", "honest accused"]
    cells = lines(rows, cases_of(options))
    if options.markdown:
        print("\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)))
        return
    worlds = len({row["world"] for row in rows})
    table = Table(title=f"Ablation: {options.table}, {worlds} worlds", title_justify="left")
    for name in head:
        table.add_column(name)
    for line in cells:
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    for name, title in TITLES.items():
        table = tables.add_parser(name, help=f"by {title}")
        if name in ("families", "columns"):
            table.add_argument("worlds", nargs="+", type=Path, help="folders of labelled logs")
        else:
            table.add_argument("--seeds", type=seeds_of, nargs="+", default=[[1]], help="such as 1-5, or 3 8")
            table.add_argument("--honest", type=int, default=10_000, help="honest accounts of a world, at least")
            table.add_argument("--per-account", type=int, default=40, help="exchanges an account")
            table.add_argument("--prompts", type=Path, help="folder of real prompts for the simulator")
            table.add_argument("--traces", type=Path, help="folder of real timings for the simulator")
        table.add_argument("--only", nargs="+", default=[], help=f"of {', '.join(map(str, CASES[name]))}")
        table.add_argument("--out", type=Path, required=True, help="folder of ablation.jsonl")
        table.add_argument("--markdown", action="store_true", help="print Markdown, for documents")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, then show the table."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    file, needed = options.out / "ablation.jsonl", wanted(options)
    held = {row["key"]: row for row in read_rows(file)}
    for row in measured(options, {key: what for key, what in needed.items() if key not in held}):
        held[row["key"]] = row
        with file.open("a", encoding="utf-8") as kept:
            kept.write(json.dumps(row) + "\n")
        print(f"{row['table']}, {row['world']}, {row['case']}: done", file=sys.stderr, flush=True)
    show(options, [held[key] for key in needed])


if __name__ == "__main__":
    main()
