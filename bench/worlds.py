"""How right scans are over many simulated logs: one row for each seed, kept, so that a run can be taken up again.

    python bench/worlds.py --seeds 1-5 --accounts 50000 --exchanges 2000000 --prompts P --traces T --out runs/real
    python bench/worlds.py --seeds 1-10 --accounts 30000 --look-alikes-only --out runs/quiet
    python bench/worlds.py --seeds 1 --without content accounts network --out runs/blind

Each seed's log is simulated, scanned, held against its truth and probed for giveaways, each step in its own process.
``--without`` scans it again with columns taken out: ``content`` (system, prompt, response), ``accounts`` (no accounts
file), ``network`` (addresses and TLS prints of exchanges and sign-ups), ``system``, ``ja4``, ``card`` (instrument and
issuer) or ``signup_time``. OUT/worlds.jsonl keeps everything measured, a line each; what is there for the same options
and code is not measured again. Logs and results go unless --keep.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from scan import apart, files_of, run_scan, simulate

DROPPED = {
    "content": ("system", "prompt", "response"),
    "accounts": (),
    "network": ("ip", "asn", "country", "ja4", "signup_ip", "signup_ja4"),
    "system": ("system",),
    "ja4": ("ja4", "signup_ja4"),
    "card": ("payment_hash", "payment_issuer"),
    "signup_time": ("created_at",),
}
WHOLE = "nothing"
MANY_ACCOUNTS = 50
SHARED_WORDINGS = ("fixed", "several")
SHARED_ADDRESSES = ("pool", "datacentre")


def judge(world: Path, result: Path, probed: bool) -> dict[str, Any]:
    """Evaluation of a result, and the leak probe of its log if wanted, as plain dicts."""
    from stillwatch.evaluation import evaluate, probe  # noqa: PLC0415

    found = {"evaluation": evaluate(world, result).to_dict()}
    return found | ({"leaks": probe(world).to_dict()} if probed else {})


def without(world: Path, what: str, out: Path) -> tuple[Path, Path | None, Path]:
    """The log's files with these columns taken out, rewritten below ``out`` where need be."""
    exchanges, accounts, models = files_of(world)
    if what in (WHOLE, "accounts"):
        return exchanges, accounts if what == WHOLE else None, models
    for file in (*sorted(exchanges.glob("*.parquet")), accounts):
        target = out / file.relative_to(world)
        target.parent.mkdir(parents=True, exist_ok=True)
        _rewrite(file, target, DROPPED[what])
    return out / "exchanges", out / "accounts.parquet", models


def _rewrite(source: Path, target: Path, dropped: Iterable[str]) -> None:
    """Copy a Parquet file without some columns, a row group at a time."""
    file = pq.ParquetFile(source)
    kept = [name for name in file.schema_arrow.names if name not in set(dropped)]
    schema = file.read_row_group(0, columns=kept).schema if file.num_row_groups else file.schema_arrow
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for group in range(file.num_row_groups):
            writer.write_table(file.read_row_group(group, columns=kept))


def run_seed(seed: int, options: argparse.Namespace, done: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of one seed that are not done yet: the whole log, then without each of what was asked for."""
    wanted = [w for w in (WHOLE, *options.without) if key_of(seed, w, options) not in done]
    if not wanted:
        return
    world = options.out / f"world-{seed}"
    apart(simulate, world, {"seed": seed} | settings_of(options))
    for what in wanted:
        result, changed = options.out / f"result-{seed}-{what}", options.out / f"changed-{seed}-{what}"
        scanned = run_scan(*without(world, what, changed), result, options.scan)
        found = apart(judge, world, result, what == WHOLE and not options.no_leaks)
        yield {
            "key": key_of(seed, what, options), "seed": seed, "without": what, "options": plain(options),
            "plans": plans_of(world), "scan": asdict(scanned), **found,
        }  # fmt: skip
        shutil.rmtree(changed, ignore_errors=True)
        if not options.keep:
            shutil.rmtree(result)
    if not options.keep:
        shutil.rmtree(world)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What ``default_world`` is called with, but for the seed."""
    from stillwatch.simulate import parse_campaign  # noqa: PLC0415

    names = ("accounts", "exchanges", "prompts", "traces")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    if options.look_alikes_only:
        settings["campaigns"] = ()
    elif options.campaign:
        settings["campaigns"] = tuple(map(parse_campaign, options.campaign))
    return settings


def plain(options: argparse.Namespace) -> dict[str, Any]:
    """The options that decide a row's figures."""
    names = ("accounts", "exchanges", "prompts", "traces", "look_alikes_only", "campaign", "scan", "no_leaks")
    return {name: str(value) if isinstance(value := getattr(options, name), Path) else value for name in names}


def key_of(seed: int, what: str, options: argparse.Namespace) -> str:
    """Names a row by all that decides it, the code included: figures of older code are measured anew."""
    text = json.dumps([seed, what, plain(options), code()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code() -> str:
    """A hash of the package's sources and data as they were when this run began."""
    package = Path(find_spec("stillwatch").origin).parent
    files = sorted(f for f in package.rglob("*") if f.is_file() and f.suffix not in (".pyc", ".nbi", ".nbc"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def plans_of(world: Path) -> dict[str, dict[str, Any]]:
    """The knobs of each planted campaign, by its id."""
    made = json.loads((world / "world.json").read_text(encoding="utf-8"))
    ids = [planted["campaign_id"] for planted in made["campaigns"]]
    return dict(zip(ids, made["world"]["campaigns"], strict=True))


def should_be_found(plan: dict[str, Any]) -> bool:
    """Whether at least 50 accounts share wording, cards or addresses: those a scan must find nine tenths of."""
    shares_wording = plan["wording"] in SHARED_WORDINGS
    shares = shares_wording or plan["accounts_per_card"] > 1 or plan["addresses"] in SHARED_ADDRESSES
    return bool(plan["accounts"] >= MANY_ACCOUNTS and shares)


def figures(row: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of one row; None where there is nothing to measure."""
    found = row["evaluation"]
    campaigns = found["campaigns"]
    recalls = {c["campaign_id"]: c["recall"]["value"] for c in campaigns}
    due = [r for c, r in recalls.items() if should_be_found(row["plans"][c])]
    other = [r for c, r in recalls.items() if not should_be_found(row["plans"][c])]
    purities = [c["purity"]["value"] for c in campaigns if c["purity"]["value"] is not None]
    strongest = (row.get("leaks") or {}).get("leaks") or [{}]
    return {
        "precision": found["precision"]["value"],
        "recall": found["recall"]["value"],
        "recall, due": min(due, default=None),
        "others": min(other, default=None),
        "pieces": max((len(c["pieces"]) for c in campaigns), default=None),
        "purity": min(purities, default=None),
        "headline": found["headline"],
        "reported": len(found["reported"]),
        "false": sum(r["is_false"] for r in found["reported"]),
        "wrongly accused": found["cost"]["wrongly_accused"],
        "leak": strongest[0].get("auc"),
        "per CPU s": row["scan"]["exchanges"] / row["scan"]["cpu_s"],
        "peak GB": row["scan"]["peak_bytes"] / 1e9,
    }


HIGHER_IS_WORSE = ("pieces", "false", "reported", "wrongly accused", "leak", "peak GB")


def words(row: dict[str, Any]) -> tuple[str, str, str]:
    """The worst look-alike, the strongest single column, and what trees on the columns reach."""
    populations = row["evaluation"]["populations"]
    worst = max(populations, key=lambda p: (p["accused"]["hits"], p["highest_risk"] or 0), default=None)
    alike = f"{worst['name']} {worst['accused']['hits']} (risk {worst['highest_risk'] or 0:.2f})" if worst else "–"
    leaks = row.get("leaks") or {}
    column = leaks["leaks"][0]["column"] if leaks.get("leaks") else "–"
    best = (leaks.get("trees") or {}).get("best_f1")
    trees = f"{best['precision']['value'] or 0:.2f} / {best['recall']['value'] or 0:.2f}" if best else "–"
    return alike, column, trees


def show(rows: list[dict[str, Any]]) -> None:
    """One table: a row each, and the worst of the logs that nothing was taken from."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    measured = [figures(row) for row in rows]
    table = Table(title="Scans of simulated logs", title_justify="left")
    for name in ("seed", "without", *measured[0], "worst look-alike", "strongest column", "trees P / R"):
        table.add_column(name, overflow="fold")
    for row, numbers in zip(rows, measured, strict=True):
        table.add_row(str(row["seed"]), row["without"], *map(_text, numbers.values()), *words(row))
    whole = [numbers for row, numbers in zip(rows, measured, strict=True) if row["without"] == WHOLE]
    if len(whole) > 1:
        table.add_section()
        table.add_row("worst", WHOLE, *(_text(_worst(name, whole)) for name in measured[0]))
    console.print(table)
    console.print(
        f"recall, due: the lowest of any campaign of at least {MANY_ACCOUNTS} accounts that share wording, cards or "
        "addresses; others: the lowest of the rest; strongest column: of those without text, alone, by AUC."
    )


def _worst(name: str, rows: list[dict[str, float | None]]) -> float | None:
    values = [value for row in rows if (value := row[name]) is not None]
    return (max if name in HIGHER_IS_WORSE else min)(values, default=None)


def _text(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value > 100 else f"{value:.3f}"


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows kept so far; a last line cut short is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            print(f"{file}: a broken line was left out", file=sys.stderr)
    return rows


def seeds_of(text: str) -> list[int]:
    """``1-5`` or ``7``."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds_of, nargs="+", default=[[1]], help="such as 1-5, or 3 8")
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--exchanges", type=int, default=0, help="0: what the simulator thinks usual")
    parser.add_argument("--prompts", type=Path, help="folder of real prompts for the simulator")
    parser.add_argument("--traces", type=Path, help="folder of real timings for the simulator")
    parser.add_argument("--look-alikes-only", action="store_true")
    parser.add_argument(
        "--campaign", action="append", default=[], help="SHAPE[:ACCOUNTS[:CAMOUFLAGE]], may be repeated"
    )
    parser.add_argument("--without", nargs="+", choices=list(DROPPED), default=[], help="scan again without these")
    parser.add_argument("--scan", nargs="*", default=[], help="more arguments for `stillwatch scan`, given last")
    parser.add_argument(
        "--no-leaks", action="store_true", help="leave the leak probe out: it takes as long as the scan"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and results")
    parser.add_argument("--out", type=Path, required=True, help="folder of worlds.jsonl")
    parser.add_argument("--again", action="store_true", help="measure seeds again that are there already")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the table")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, then show all rows of these options."""
    options = parse()
    seeds = [seed for group in options.seeds for seed in group]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "worlds.jsonl"
    held = {} if options.again else {row["key"]: row for row in read_rows(file)}
    for seed in seeds:
        for row in run_seed(seed, options, set(held)):
            held[row["key"]] = row
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
            print(f"seed {seed} without {row['without']}: done", file=sys.stderr)
    keys = [key_of(seed, what, options) for seed in seeds for what in (WHOLE, *options.without)]
    rows = [held[key] for key in keys]
    if options.json:
        print(json.dumps([{"seed": r["seed"], "without": r["without"], **figures(r)} for r in rows], indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
