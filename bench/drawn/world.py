"""A whole world: draw, finish the columns of the contract, write."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import honest
from .campaigns import plan_counts, plant
from .draft import MODELS, Columns, Draft, draw_settings, gathered
from .finish import account_table, exchange_columns, exchange_part, stamps
from .knobs import Knobs, draw_campaigns
from .priors import DAY
from .text import CAPABILITIES

PART = 100_000
MOST_CAMPAIGN_EXCHANGES = 0.4
ENOUGH = 50


@dataclass(slots=True)
class World:
    """Everything that is written, text not yet rendered."""

    draft: Draft
    accounts: Columns
    exchanges: Columns
    order: np.ndarray
    about: dict[str, Any]


def draw_world(
    seed: int,
    prompts: Path,
    traces: Path,
    look_alikes_only: bool = False,
    accounts: int | None = None,
    exchanges: int | None = None,
) -> World:
    """The world of a seed. The same seed gives the same world."""
    rng = np.random.default_rng([seed, 1])
    settings = draw_settings(rng, seed, accounts, exchanges)
    draft = Draft(settings, Path(prompts), Path(traces))
    campaigns = [] if look_alikes_only else draw_campaigns(rng, settings, draft.corpus)
    counts = plan_counts(rng, campaigns, MOST_CAMPAIGN_EXCHANGES * settings.exchanges)
    planted = sum(len(c) for c in counts)
    sizes = honest.populate(draft, settings.accounts - planted, settings.exchanges - sum(int(c.sum()) for c in counts))
    pools: dict[str, np.ndarray] = {}
    for number, (knobs, count) in enumerate(zip(campaigns, counts)):
        plant(draft, number, knobs, count, pools)
    book, rows = gathered(draft.accounts), gathered(draft.exchanges)
    rows = exchange_columns(draft, book, rows)
    order = np.argsort(rows["time"], kind="stable")
    about = _about(draft, campaigns, sizes, book, rows)
    return World(draft, book, rows, order, about)


def write_world(world: World, out: Path) -> None:
    """Write the log, the accounts, the models and the truth."""
    out = Path(out)
    (out / "exchanges").mkdir(parents=True, exist_ok=True)
    for old in (out / "exchanges").glob("part-*.parquet"):
        old.unlink()
    draft, order = world.draft, world.order
    rng = draft.rng = np.random.default_rng([draft.settings.seed, 99])  # written twice, it is the same
    ids = np.array([f"acct_{a:016x}" for a in rng.integers(0, 1 << 62, len(world.accounts["created"]))], dtype=object)
    exchange_ids = np.array(
        [
            f"msg_{a:015x}{b:05x}"
            for a, b in zip(rng.integers(0, 1 << 60, len(order)), rng.integers(0, 1 << 20, len(order)))
        ]
    )
    for part, start in enumerate(range(0, len(order), PART)):
        chosen = order[start : start + PART]
        table = exchange_part(draft, world.accounts, world.exchanges, chosen, ids, exchange_ids[start : start + PART])
        pq.write_table(table, out / "exchanges" / f"part-{part:05d}.parquet", compression="zstd")
    by_id = np.argsort(ids)
    pq.write_table(account_table(draft, world.accounts, ids).take(pa.array(by_id)), out / "accounts.parquet")
    pq.write_table(_truth(world, ids).take(pa.array(by_id)), out / "truth.parquet")
    rows = world.exchanges
    names = np.array([*CAPABILITIES, None], dtype=object)
    truth = {
        "exchange_id": pa.array(exchange_ids),
        "distillation": pa.array(rows["distillation"][order]),
        "capability": pa.array(names[rows["capability"][order]], pa.string()),
    }
    pq.write_table(pa.table(truth), out / "truth_exchanges.parquet", compression="zstd")
    (out / "models.csv").write_text(_models(draft))
    (out / "world.json").write_text(json.dumps(world.about, indent=1, default=str))


def _truth(world: World, ids: np.ndarray) -> pa.Table:
    """Who belongs to which campaign."""
    book = world.accounts
    names = np.array([f"planted-{i + 1:02d}" for i in range(int(book["campaign"].max()) + 1)] + [None], dtype=object)
    bad = book["campaign"] >= 0
    return pa.table(
        {
            "account_id": pa.array(ids, pa.string()),
            "campaign_id": pa.array(names[book["campaign"]], pa.string()),
            "population": pa.array(book["population"], pa.string()),
            "generation": pa.array(np.where(bad, book["generation"], 0), pa.int16(), mask=~bad),
            "replaced": pa.array(book["replaced"]),
        }
    )


def _models(draft: Draft) -> str:
    """The models; all but the last are older than the log."""
    settings = draft.settings
    ages = [240, 150, 90, 400]
    when = [settings.start - age * DAY for age in ages] + [settings.release]
    lines = [f"{m},{np.datetime64(int(t), 'us').astype('datetime64[s]')!s}Z" for m, t in zip(MODELS, when)]
    return "model,released_at\n" + "\n".join(lines) + "\n"


def _about(draft: Draft, campaigns: list[Knobs], sizes: dict[str, int], book: Columns, rows: Columns) -> dict[str, Any]:
    """What was drawn, and what each campaign came to."""
    settings, result = draft.settings, []
    owner = book["campaign"][rows["account"]]
    for number, knobs in enumerate(campaigns):
        mine = np.flatnonzero(owner == number)
        day = (
            (rows["time"][mine] >= settings.release)
            & (rows["time"][mine] < settings.release + DAY)
            & rows["distillation"][mine]
        )
        moved = rows["model"][mine] == len(MODELS) - 1
        knobs["new_model_in_24h"] = round(float(moved[day].mean()), 4) if day.any() else None
        result.append(
            {
                "campaign_id": knobs["campaign_id"],
                "shape": knobs["shape"],
                "accounts": int((book["campaign"] == number).sum()),
                "exchanges": len(mine),
                "distillation": int(rows["distillation"][mine].sum()),
                "shares": _shares(draft, knobs, book, rows, mine, number),
                "class": knobs["class"],
            }
        )
    world = {
        "seed": settings.seed,
        "accounts": len(book["created"]),
        "exchanges": len(rows["time"]),
        "days": settings.days,
        "start": stamps(settings.start),
        "release": stamps(settings.release),
        "rates": settings.rates,
        "campaigns": campaigns,
        "populations": sizes,
    }
    return {"world": world, "campaigns": result, "populations": sizes}


def _shares(draft: Draft, knobs: Knobs, book: Columns, rows: Columns, mine: np.ndarray, number: int) -> list[str]:
    """What at least fifty of the accounts have in common, counted in the finished world."""
    found, account = [], rows["account"][mine]
    if knobs["wording"] not in ("paraphrase", "bare"):
        asks = rows["distillation"][mine] & (rows["turn"][mine] == 0)
        text = np.maximum(rows["wrap"][mine], rows["system"][mine])[asks]
        if _holders(text, account[asks]) >= ENOUGH:
            found.append("wording")
    members = np.flatnonzero((book["campaign"] == number) & (book["card"] >= 0))
    if _holders(book["card"][members], members) >= ENOUGH and knobs["accounts_per_card"] > 1:
        found.append("cards")
    if knobs["addresses"] and _holders(rows["address"][mine], account, 3) >= ENOUGH:
        found.append("addresses")
    if len(np.unique(account[rows["distillation"][mine]])) >= ENOUGH:
        found.append("purpose")
    return found


def _holders(values: np.ndarray, account: np.ndarray, least: int = 2) -> int:
    """How many accounts hold a value that at least `least` of them hold."""
    pairs = np.unique(np.stack([values, account], axis=1), axis=0) if len(values) else np.zeros((0, 2), np.int64)
    _, back, counts = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    return len(np.unique(pairs[counts[back] >= least, 1]))
