"""Builds a world and writes it down: exchanges in parts ordered by time, accounts, models, truth, settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.simulate.accounts import accounts_table, truth_table
from stillwatch.simulate.columns import exchange_table
from stillwatch.simulate.grammar import compile_rules, mix
from stillwatch.simulate.identifiers import hex_ids
from stillwatch.simulate.networks import build_networks
from stillwatch.simulate.operators import plant
from stillwatch.simulate.people import draw_people
from stillwatch.simulate.plans import World
from stillwatch.simulate.pools import F64, MODELS, settings_profiles
from stillwatch.simulate.populations import settle
from stillwatch.simulate.prompts import load_rules
from stillwatch.simulate.sessions import Timeline, count_streams, lay_out
from stillwatch.simulate.stage import Stage, sheets
from stillwatch.simulate.town import Town
from stillwatch.simulate.traces import built_in, read_rhythms
from stillwatch.simulate.work import Catalogue, Streams, everyday
from stillwatch.tables import EXCHANGES

PART_ROWS = 200_000
Progress = Callable[[int, int], None]
"""Called with rows written and rows in all."""


@dataclass(frozen=True, slots=True)
class Planted:
    """One campaign as it came out."""

    campaign_id: str
    shape: str
    accounts: int
    exchanges: int
    distillation: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written: totals, accounts of each honest population, campaigns."""

    out: Path
    accounts: int
    exchanges: int
    populations: dict[str, int]
    campaigns: tuple[Planted, ...]


def simulate(world: World, out: Path, progress: Progress | None = None) -> Summary:
    """Writes the log of this world to ``out``; an older log there is replaced once the new one is whole."""
    rng = np.random.default_rng(world.seed)
    secret = int(rng.integers(1, 2**62))
    rules = load_rules(world.prompts)
    town, names = _build(world, rng, frozenset(rules))
    streams = count_streams(town, _requests(world, town, rng))
    rhythms = read_rhythms(world.traces) if world.traces else built_in(rng)
    line = lay_out(town, streams, rhythms)
    ids = hex_ids(mix(np.arange(len(town.people), dtype=np.uint64) + np.uint64(secret // 3)), "acc_")
    stage = Stage(
        secret, int(world.start.timestamp() * 1_000_000), town.people, ids, streams, town.catalogue,
        compile_rules(rules), town.net.freeze(), settings_profiles(rng), rhythms,
    )  # fmt: skip
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "exchanges").mkdir(parents=True)
    _write_exchanges(stage, line, partial, progress)
    pq.write_table(accounts_table(town.people, stage.addresses, ids, world.start, secret), partial / "accounts.parquet")
    pq.write_table(truth_table(town.people, names, ids), partial / "truth.parquet")
    _write_models(world, town.release, partial)
    summary = _summary(world, town, names, line, out)
    (partial / "world.json").write_text(json.dumps(_settings(world, summary), indent=1, default=str) + "\n")
    _put_in_place(partial, out)
    return summary


def _build(world: World, rng: np.random.Generator, sections: frozenset[str]) -> tuple[Town, tuple[str, ...]]:
    """Everybody and all they do. Numbers of accounts are shuffled, so that order tells nothing."""
    release = world.days * float(rng.uniform(0.45, 0.6))
    net = build_networks(rng, world.accounts)
    catalogue = Catalogue()
    town = Town(
        rng, world.days, release, draw_people(rng, net, world.accounts, world.days, release), net, catalogue, Streams(),
        everyday(catalogue, rng), world.start.weekday(), sections,
    )  # fmt: skip
    rows = rng.permutation(world.accounts)
    planted = sum(c.accounts for c in world.campaigns)
    settle(town, dict(world.populations), rows[planted:])
    names = tuple(world.populations)
    at = 0
    for number, plan in enumerate(world.campaigns):
        if plan.shape not in names:
            names = (*names, plan.shape)
        plant(town, plan, number, rows[at : at + plan.accounts], names.index(plan.shape))
        at += plan.accounts
    return town, names


def _requests(world: World, town: Town, rng: np.random.Generator) -> F64:
    """Mean exchanges of each account: skewed alike everywhere, and scaled to the totals that were asked for."""
    p = town.people
    honest = p.campaign < 0
    budget = world.exchanges - world.campaign_exchanges
    volume = np.minimum(p.volume, 0.02 * p.volume[honest].sum())
    floor = 1.0
    scale = max(0.1, budget - floor * honest.sum()) / volume[honest].sum()
    requests = floor + scale * volume
    for number, plan in enumerate(world.campaigns):
        rows = np.flatnonzero(p.campaign == number)
        wanted = world.requests_of(plan)
        if plan.requests:
            requests[rows] = rng.uniform(0.6, 1.4, len(rows)) * wanted
        else:
            least = min(8.0, wanted / 3)
            requests[rows] = least + (wanted - least) * volume[rows] / volume[rows].mean()
    return requests


def _parts(line: Timeline) -> Iterator[tuple[int, Timeline]]:
    for begin in range(0, len(line), PART_ROWS):
        cut = slice(begin, begin + PART_ROWS)
        yield begin, Timeline(*(getattr(line, name)[cut] for name in Timeline.__slots__))


def _write_exchanges(stage: Stage, line: Timeline, out: Path, progress: Progress | None) -> None:
    sheet = sheets(stage.catalogue, stage.grammar)
    kinds = pa.schema([("exchange_id", pa.string()), ("distillation", pa.bool_()), ("capability", pa.string())])
    with pq.ParquetWriter(out / "truth_exchanges.parquet", kinds, compression="zstd") as truth:
        for number, (begin, part) in enumerate(_parts(line)):
            table, kind = exchange_table(stage, sheet, part, begin)
            _write_part(table, out / "exchanges" / f"part-{number:05d}.parquet")
            truth.write_table(kind)
            if progress:
                progress(begin + len(part), len(line))


def _write_part(table: pa.Table, path: Path) -> None:
    """Dictionary columns go to disk as such and are read back as plain strings: the stored schema is the canonical."""
    fields = [f.with_nullable(EXCHANGES.schema.field(f.name).nullable) for f in table.schema]
    plain = {"exchange_id", "prompt", "response", "conversation_id", "time"}
    pq.write_table(
        table.cast(pa.schema(fields)), path, compression="zstd", compression_level=1, store_schema=False,
        use_dictionary=[f.name for f in fields if f.name not in plain], dictionary_pagesize_limit=32 << 20,
        write_statistics=["time"],
    )  # fmt: skip


def _write_models(world: World, release: float, out: Path) -> None:
    moments = [(name, world.start + timedelta(days=release + age)) for name, age in MODELS]
    lines = [f"{name},{moment.isoformat(timespec='seconds')}" for name, moment in moments]
    (out / "models.csv").write_text("model,released_at\n" + "\n".join(lines) + "\n")


def _summary(world: World, town: Town, names: tuple[str, ...], line: Timeline, out: Path) -> Summary:
    p = town.people
    campaign = p.campaign[line.account]
    query = town.catalogue.capabilities()[line.activity] >= 0
    sizes = np.bincount(p.population[p.campaign < 0], minlength=len(names)).tolist()
    planted = tuple(
        Planted(f"planted-{n + 1:02d}", plan.shape, plan.accounts, int((campaign == n).sum()),
                int(query[campaign == n].sum()))
        for n, plan in enumerate(world.campaigns)
    )  # fmt: skip
    honest = {name: sizes[i] for i, name in enumerate(names[: len(world.populations)])}
    return Summary(out, len(p), len(line), honest, planted)


def _settings(world: World, summary: Summary) -> dict[str, object]:
    settings = asdict(world)
    settings["start"] = world.start.isoformat()
    result = asdict(summary)
    del result["out"]
    return {"world": settings, **result}


def _put_in_place(partial: Path, out: Path) -> None:
    for path in partial.iterdir():
        target = out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    partial.rmdir()
