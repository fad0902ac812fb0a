"""Files of a world: exchanges in parts, accounts, models, truth, world.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from strangers import traffic
from strangers.network import COUNTRIES, mixed
from strangers.people import DAY, Block, World, tokens
from strangers.streams import render

PART = 50_000
TIME = pa.timestamp("us", tz="UTC")
LABELS = ("org_id", "programme", "plan", "email_domain", "payment_hash", "payment_issuer", "billing_country", "phone_country",
          "phone_hash")  # fmt: skip


def stamps(w: World, seconds: np.ndarray) -> pa.Array:
    """Seconds of the world as moments."""
    return pa.array((w.knobs["epoch"] * 1_000_000 + (seconds * 1e6).astype(np.int64)), TIME)


def dotted(ip: np.ndarray) -> list[str]:
    """Addresses in the usual form."""
    return [f"{v >> 24}.{v >> 16 & 255}.{v >> 8 & 255}.{v & 255}" for v in ip.tolist()]


def hidden(values: np.ndarray, where: np.ndarray, kind: pa.DataType) -> pa.Array:
    """The values, null where asked."""
    return pa.array(values, kind, mask=where)


def texts(w: World, r: traffic.Rows, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """System texts and prompts of these rows, stream by stream."""
    system, prompt = np.full(len(rows), None, dtype=object), np.full(len(rows), "", dtype=object)
    stream = r["source"][rows]
    for one in np.unique(stream):
        at = np.flatnonzero(stream == one)
        mine = rows[at]
        told = [r[c][mine] for c in ("item", "variant", "taste", "turn")]
        system[at], prompt[at] = render(w.streams[one], w.corpus, *told, seed * 1_009 + int(one))
    return system, prompt


def offered(w: World, a: Block, r: traffic.Rows, rows: np.ndarray) -> list[list[str] | None]:
    """Names of the tools in each request whose task has tools; an account keeps its own set."""
    task = np.isin(w.corpus.task[r["item"][rows]], traffic.WITH_TOOLS)
    who = a["keys"][r["account"][rows]]
    first, many = mixed(who, 3) % np.uint64(len(traffic.TOOLS)), 1 + mixed(who, 4) % np.uint64(6)
    twice = np.concatenate([traffic.TOOLS, traffic.TOOLS]).tolist()
    return [twice[f : f + m] if t else None for f, m, t in zip(first.tolist(), many.tolist(), task.tolist())]


def part(w: World, a: Block, r: traffic.Rows, rows: np.ndarray, names: np.ndarray, seed: int) -> pa.Table:
    """One part of the exchanges."""
    who, n = r["account"][rows], len(rows)
    system, prompt = texts(w, r, rows, seed)
    length = np.array([len(p) + len(s or "") for p, s in zip(prompt, system)])
    given = (length / w.rng.normal(3.9, 0.25, n).clip(2.5) + r["extra"][rows] + 4).clip(1, 180_000)
    good = r["status"][rows] == 200
    tools = offered(w, a, r, rows)
    stop = np.where(r["cut"][rows], "max_tokens", "end_turn")
    stop = np.where(
        np.array([t is not None for t in tools]) & (w.rng.random(n) < 0.6) & ~r["cut"][rows], "tool_use", stop
    )
    channel = traffic.channel_names(a)[who]
    unseen = np.array([c.startswith("cloud:") for c in channel]) & w.knobs["clouds_hide"]
    talk = (mixed(a["keys"][who], 9) % np.uint64(1000)).astype(float) < a["talk"][who] * 1000
    own_row = np.where(
        np.array([s.personal for s in w.streams])[r["source"][rows]], r["session"][rows], rows + (1 << 33)
    )
    users = a["users"][who]
    user = mixed(a["keys"][who], r["session"][rows]) % np.maximum(users, 1).astype(np.uint64)
    agent, ja4 = (np.array([c[i] for c in w.net.clients], dtype=object)[r["client"][rows]] for i in (0, 1))
    vision = w.corpus.task[r["item"][rows]] == "vision"
    return pa.table({
        "exchange_id": pa.array([f"x{w.knobs['tag']}{i:08d}" for i in rows.tolist()]),
        "time": stamps(w, r["time"][rows]), "account_id": pa.array(names[who], pa.string()),
        "end_user": hidden(np.array([f"u{u:x}" for u in user.tolist()], dtype=object), users == 0, pa.string()),
        "channel": pa.array(channel, pa.string()), "model": pa.array(np.array(w.models, dtype=object)[r["model"][rows]]),
        "ip": hidden(np.array(dotted(r["ip"][rows]), dtype=object), unseen, pa.string()),
        "asn": hidden(w.net.asn[r["at"][rows]].astype(np.int32), unseen, pa.int32()),
        "country": hidden(np.array(COUNTRIES, dtype=object)[w.net.country[r["at"][rows]]], unseen, pa.string()),
        "user_agent": pa.array(agent, pa.string()), "ja4": hidden(ja4, unseen, pa.string()),
        "conversation_id": hidden(tokens("v", own_row), ~talk, pa.string()),
        "turn": hidden((2 * r["turn"][rows]).clip(0, 30_000).astype(np.int16), ~talk, pa.int16()),
        "system": pa.array(system, pa.string()), "prompt": pa.array(prompt, pa.string()),
        "response": pa.nulls(n, pa.string()), "tools": pa.array(tools, pa.list_(pa.string())),
        "images": pa.array(np.where(vision, 1 + rows % 3 // 2, 0).astype(np.int16)),
        "input_tokens": pa.array(given.astype(np.int32)), "output_tokens": hidden(r["output_tokens"][rows], ~good, pa.int32()),
        "reasoning_tokens": hidden(r["reasoning_tokens"][rows], ~good, pa.int32()),
        "max_tokens": hidden(a["max_tokens"][who].astype(np.int32), a["max_tokens"][who] == 0, pa.int32()),
        "temperature": hidden(a["temperature"][who], np.isnan(a["temperature"][who]), pa.float64()),
        "n": pa.array(a["copies"][who].astype(np.int16)), "logprobs": pa.array(a["logprobs"][who]),
        **{c: pa.array(r[c][rows]) for c in ("thinking", "stream", "batch")},
        "status": pa.array(r["status"][rows].astype(np.int16)), "stop_reason": hidden(stop.astype(object), ~good, pa.string()),
    })  # fmt: skip


def account_table(w: World, a: Block, names: np.ndarray) -> pa.Table:
    """The account register. A sign-up comes from an address of the account's own or of its pool."""
    n = len(names)
    ip = w.net.own(a["provider"], mixed(a["keys"], 0))
    for one in np.unique(a["pool"][a["pool"] >= 0]):
        mine = np.flatnonzero((a["pool"] == one) & (w.rng.random(n) < a["pool_share"] * 0.7))
        ip[mine] = w.rng.choice(w.net.pools[one][0], len(mine))
    ja4 = np.array([c[1] for c in w.net.clients], dtype=object)[w.rng.choice(len(w.net.clients), n, p=w.net.popularity)]
    return pa.table({
        "account_id": pa.array(names, pa.string()), "created_at": stamps(w, a["created"] * DAY),
        **{c: pa.array(a[c], pa.string()) for c in LABELS},
        "signup_ip": pa.array(dotted(ip)), "signup_ja4": pa.array(ja4, pa.string()),
        "referrer": pa.array(a["referrer"], pa.string()), "verification": pa.array(a["verification"], pa.string()),
    })  # fmt: skip


def truth_tables(w: World, a: Block, r: traffic.Rows, names: np.ndarray) -> tuple[pa.Table, pa.Table]:
    """Truth of accounts, and of exchanges."""
    honest = a["generation"] < 0
    by_account = pa.table({
        "account_id": pa.array(names, pa.string()), "campaign_id": pa.array(a["campaign_id"], pa.string()),
        "population": pa.array(a["population"], pa.string()),
        "generation": hidden(a["generation"].astype(np.int16), honest, pa.int16()), "replaced": pa.array(a["replaced"]),
    })  # fmt: skip
    targets = np.full(len(w.streams), "other", dtype=object)
    for c in w.campaigns:
        targets[c["stream"]] = c["target"]
    ids = [f"x{w.knobs['tag']}{i:08d}" for i in range(len(r["time"]))]
    capability = hidden(targets[r["source"]], ~r["planted"], pa.string())
    return by_account, pa.table({"exchange_id": ids, "distillation": pa.array(r["planted"]), "capability": capability})


def write(w: World, a: Block, r: traffic.Rows, out: Path, seed: int) -> None:
    """Write all files of the world."""
    (out / "exchanges").mkdir(parents=True, exist_ok=True)
    names = tokens("acct_", a["keys_id"])
    for i, first in enumerate(range(0, len(r["time"]), PART)):
        rows = np.arange(first, min(first + PART, len(r["time"])))
        pq.write_table(
            part(w, a, r, rows, names, seed * 131 + i), out / "exchanges" / f"part-{i:05d}.parquet", compression="zstd"
        )
    pq.write_table(account_table(w, a, names), out / "accounts.parquet")
    by_account, by_exchange = truth_tables(w, a, r, names)
    pq.write_table(by_account, out / "truth.parquet")
    pq.write_table(by_exchange, out / "truth_exchanges.parquet")
    moments = np.datetime64(int(w.knobs["epoch"]), "s") + np.array(w.releases).astype("timedelta64[s]")
    lines = [f"{m},{t}Z\n" for m, t in zip(w.models, moments)]
    (out / "models.csv").write_text("model,released_at\n" + "".join(lines), encoding="utf-8")
    world = {
        "world": about(w, a, r, seed),
        "campaigns": [listed(w, a, r, c) for c in w.campaigns],
        "populations": sizes(a),
    }
    (out / "world.json").write_text(json.dumps(world, indent=1, default=lambda v: v.item()), encoding="utf-8")


def about(w: World, a: Block, r: traffic.Rows, seed: int) -> dict:
    """The world in short."""
    return {"generator": "strangers", "seed": seed, "accounts": len(a["created"]), "exchanges": len(r["time"]), "days": w.days,
            "planted": int((a["generation"] >= 0).sum())}  # fmt: skip


def listed(w: World, a: Block, r: traffic.Rows, c: dict) -> dict:
    """A campaign's line: what it shares, as measured, and its knobs."""
    mine = a["campaign_id"] == c["campaign_id"]
    rows = mine[r["account"]]
    return {**{k: v for k, v in c.items() if k != "stream"}, "shares": traffic.shared(w, a, r, c),
            "accounts": int(mine.sum()), "exchanges": int(rows.sum()), "harvest": int((rows & r["planted"]).sum())}  # fmt: skip


def sizes(a: Block) -> dict[str, int]:
    """Accounts of each population."""
    names, many = np.unique(a["population"].astype(str), return_counts=True)
    return dict(zip(names.tolist(), many.tolist()))
