"""Words, lengths and identifiers for the exchanges, and the files of a world."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .campaigns import Campaign
from .people import COUNTRIES, DAY, World
from .texts import Book, Library, Style
from .traffic import Traffic, realised_shares
from .wording import listed

PART_ROWS = 100_000
MODELS = ("heron-2-large", "heron-2-small", "plover-1", "heron-2-reason", "plover-1-mini")
NEW_MODEL = "heron-3"
ANSWERS = (
    "Here is a version that covers {f}.", "In short: {f}, and then {g}.", "Yes, because {f}.", "The result is {n}.",
    "I would start with {f}; {g} can wait.", "Step one is {f}. Step two is {g}.", "It depends on {f}.", "Done: {f}.",
    "There are {n} cases. The main one is {f}.", "Dear {p}, about {f}: {g}. Best regards.", "def solve(x): return x + {n}",
    "No, {f} does not imply {g}.", "{n}", "Option A is {f}, option B is {g}. I prefer A.", "Score: {n}. Reason: {f}.",
)  # fmt: skip
ACCOUNT_COLUMNS = listed(
    "org_id programme plan email_domain payment_hash payment_issuer billing_country phone_country phone_hash "
    "signup_ip signup_ja4 referrer verification"
)
TEXT_COLUMNS = ("system", "prompt", "response")


@dataclass(slots=True)
class Lengths:
    """Token counts as measured on real traffic."""

    answers: np.ndarray
    code_answers: np.ndarray

    @classmethod
    def read(cls, folder: Path, rng: np.random.Generator) -> Lengths:
        """Generated tokens of two public services; a plain lognormal where a trace is not there."""
        found = []
        for name in ("azure_llm_2023_conv", "azure_llm_2023_code"):
            path = folder / f"{name}.parquet"
            if path.exists():
                found.append(pq.read_table(path, columns=["output_tokens"])["output_tokens"].to_numpy())
            else:
                found.append(np.maximum(rng.lognormal(4.5, 1.0, 5000), 1))
        return cls(*found)


def draw_missing(rng: np.random.Generator) -> dict[str, float]:
    """The share of rows or accounts where a source does not deliver a column."""
    absent = {
        name: float(rng.choice([0, rng.uniform(0, 0.5), 1], p=[0.4, 0.45, 0.15]))
        for name in ("ja4", "end_user", "conversation_id")
    }
    absent |= {
        name: float(rng.choice([0, rng.uniform(0, 0.3)]))
        for name in ("ip", "asn", "user_agent", "output_tokens", "images")
    }
    absent |= {
        name: float(rng.choice([0, rng.uniform(0, 0.4)]))
        for name in ("signup_ip", "signup_ja4", "phone_hash", "payment_hash", "email_domain", "referrer")
    }
    absent["response"] = float(rng.choice([0.0, rng.uniform(0.1, 0.9), 1.0]))
    absent["cloud_network"] = float(rng.choice([0, 1]))
    return {k: round(v, 3) for k, v in absent.items()}


def _null(values: np.ndarray, absent: np.ndarray) -> list[object]:
    """The values as a list with None where absent."""
    out = values.astype(object)
    out[absent] = None
    return out.tolist()


def _texts(
    rng: np.random.Generator, lib: Library, styles: list[Style], t: Traffic, rows: np.ndarray, silent: float
) -> dict[str, list]:
    """System, prompt and answer of some exchanges."""
    system, prompt = [], []
    columns = (t.style[rows].tolist(), t.item[rows].tolist(), t.salt[rows].tolist(), t.variant[rows].tolist())
    for style, item, salt, variant in zip(*columns, strict=True):
        s, p = lib.render(styles[style], item, salt, variant)
        system.append(s)
        prompt.append(p)
    salts = rng.integers(0, 1 << 40, len(rows)).tolist()
    quiet = (rng.random(len(rows)) < silent).tolist()
    answer = []
    for s, q in zip(salts, quiet, strict=True):
        words = lib.slots(ANSWERS[s % len(ANSWERS)], s >> 4)
        if len(words) < 24 or s & 64:
            words += " " + lib.slots(ANSWERS[(s >> 9) % 6], s >> 7)
        answer.append(None if q else words[:200])
    return {"system": system, "prompt": prompt, "response": answer}


def _lengths(
    rng: np.random.Generator,
    styles: list[Style],
    t: Traffic,
    a: dict,
    rows: np.ndarray,
    text: dict[str, list],
    lengths: Lengths,
) -> dict:
    """Token counts from the text, the turns before it and the account's habit."""
    n, acc = len(rows), t.account[rows]
    chars = np.array([len(p) + len(s or "") for p, s in zip(text["prompt"], text["system"], strict=True)])
    history = np.array([s.history for s in styles])[t.style[rows]]
    tools = np.array([len(s.tools) for s in styles])[t.style[rows]]
    before = history * t.rank[rows] * rng.gamma(2.0, 0.5, n)
    entered = chars / rng.uniform(3.2, 4.6, n) + before + tools * 120 + rng.integers(3, 14, n)
    code = history > 1000
    draw = np.where(code, rng.choice(lengths.code_answers, n), rng.choice(lengths.answers, n))
    put = np.maximum(draw * np.exp(a["length"][acc]), 1)
    limit = a["max_tokens"][acc]
    cut = (limit > 0) & (put >= limit)
    put = np.where(cut, limit, put)
    thinking = a["thinking"][acc]
    return {
        "input_tokens": entered.astype(np.int32),
        "output_tokens": put.astype(np.int32),
        "reasoning_tokens": _null((rng.lognormal(6.2, 1.1, n)).astype(np.int32), ~thinking),
        "cut": cut,
        "tools": tools > 0,
    }


class Writer:
    """Turns traffic into the files of a world."""

    def __init__(
        self, world: World, lib: Library, book: Book, a: dict[str, np.ndarray], t: Traffic, lengths: Lengths
    ) -> None:
        """Draw identifiers, the calendar and what the log lacks."""
        rng = self.rng = world.rng
        self.world, self.lib, self.styles, self.a, self.t, self.lengths = world, lib, book.styles, a, t, lengths
        self.start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 240)))
        self.account_id = world.token(len(a["created"]), 16)
        self.exchange_id = world.token(len(t.time), 20)
        self.session_id = world.token(int(t.session.max()) + 1, 16)
        self.missing = draw_missing(rng)
        self.models = np.array([*MODELS[: world.old_models], NEW_MODEL], object)
        self.unlucky = rng.random((len(a["created"]), 3))

    def stamp(self, seconds: np.ndarray) -> pa.Array:
        """Seconds of the log as a timestamp column."""
        base = int(self.start.timestamp() * 1e6)
        return pa.array((seconds * 1e6).astype(np.int64) + base, pa.timestamp("us", tz="UTC"))

    def _network(self, rows: np.ndarray, acc: np.ndarray) -> dict[str, object]:
        """Address, its owner and the client software, less what the source lacks."""
        rng, n, net, miss = self.rng, len(rows), self.world.net, self.missing
        cloud = np.char.startswith(self.a["channel"][acc].astype(str), "cloud") & (miss["cloud_network"] > 0)
        hidden = cloud | (self.unlucky[acc, 0] < miss["ip"])
        block = net.row[self.t.ip[rows] >> 12]
        unknown = hidden | (rng.random(n) < miss["asn"])
        return {
            "ip": _null(net.text(self.t.ip[rows]), hidden),
            "asn": pa.array(_null(net.asn[block], unknown), pa.int32()),
            "country": _null(np.array(COUNTRIES, object)[net.country[block]], unknown),
            "user_agent": _null(self.a["agent"][acc], cloud | (self.unlucky[acc, 1] < miss["user_agent"])),
            "ja4": _null(self.a["ja4"][acc], cloud | (self.unlucky[acc, 2] < miss["ja4"])),
        }

    def _conversation(self, rows: np.ndarray) -> dict[str, object]:
        """Conversation and turn, where the client keeps one."""
        code = {"none": 0, "single": 1, "session": 2}
        kept = np.array([code[s.conversation] for s in self.styles])[self.t.style[rows]]
        name = np.where(kept == 2, self.session_id[self.t.session[rows]], self.world.token(len(rows), 16))
        absent = (kept == 0) | (self.rng.random(len(rows)) < self.missing["conversation_id"])
        turn = np.where(kept == 2, np.minimum(2 * self.t.rank[rows], 400), 0)
        return {"conversation_id": _null(name, absent), "turn": pa.array(_null(turn, absent), pa.int16())}

    def _parameters(self, acc: np.ndarray) -> dict[str, object]:
        """Request parameters; a console sends none."""
        a = self.a
        web = a["channel"][acc] == "console"
        flag = {k: pa.array(_null(a[k][acc], web), pa.bool_()) for k in ("logprobs", "thinking", "stream", "batch")}
        heat = a["temperature"][acc]
        return {
            "max_tokens": pa.array(_null(a["max_tokens"][acc], web | (a["max_tokens"][acc] == 0)), pa.int32()),
            "temperature": pa.array(_null(heat, web | np.isnan(heat)), pa.float64()),
            "n": pa.array(_null(a["n"][acc], web | (a["n"][acc] == 0)), pa.int16()),
            **flag,
        }

    def part(self, rows: np.ndarray) -> pa.Table:
        """One part of the exchanges."""
        rng, t, acc, n = self.rng, self.t, self.t.account[rows], len(rows)
        text = _texts(rng, self.lib, self.styles, t, rows, self.missing["response"])
        size = _lengths(rng, self.styles, t, self.a, rows, text, self.lengths)
        images = rng.random(n) < np.array([s.image_share for s in self.styles])[t.style[rows]]
        status = rng.choice(np.array([200, 429, 500, 529]), n, p=[0.985, 0.008, 0.004, 0.003])
        called = size["tools"] & (rng.random(n) < 0.6)
        stop = np.where(size["cut"], "length", np.where(called, "tool_use", "stop")).astype(object)
        unsaid = (status != 200) | (rng.random(n) < self.missing["output_tokens"])
        tools = [list(self.styles[s].tools) or None for s in t.style[rows].tolist()]
        columns: dict[str, object] = {
            "exchange_id": self.exchange_id[rows].tolist(),
            "time": self.stamp(t.time[rows]),
            "account_id": self.account_id[acc].tolist(),
            "end_user": self._end_users(rows),
            "channel": self.a["channel"][acc].tolist(),
            "model": self._models(rows),
            **self._network(rows, acc),
            **self._conversation(rows),
            **{k: pa.array(text[k], pa.string()) for k in TEXT_COLUMNS},
            "tools": pa.array(tools, pa.list_(pa.string())),
            "images": pa.array(_null(images.astype(int), rng.random(n) < self.missing["images"]), pa.int16()),
            "input_tokens": pa.array(size["input_tokens"], pa.int32()),
            "output_tokens": pa.array(_null(size["output_tokens"], unsaid), pa.int32()),
            "reasoning_tokens": pa.array(size["reasoning_tokens"], pa.int32()),
            **self._parameters(acc),
            "status": pa.array(status, pa.int16()),
            "stop_reason": _null(stop, status != 200),
        }
        strings = ("ip", "country", "user_agent", "ja4", "conversation_id")
        return pa.table({k: pa.array(v, pa.string()) if k in strings else v for k, v in columns.items()})

    def _end_users(self, rows: np.ndarray) -> pa.Array:
        """Pseudonyms of the customer's own users, where it passes them on."""
        numbers, accounts = self.t.end_user[rows], self.t.account[rows]
        named = [f"{hash_text(f'u{x}-{y}'):016x}" for x, y in zip(accounts.tolist(), numbers.tolist(), strict=True)]
        absent = (numbers < 0) | (self.rng.random(len(rows)) < self.missing["end_user"])
        return pa.array(_null(np.array(named, object), absent), pa.string())

    def _models(self, rows: np.ndarray) -> list[str]:
        """The account's model, its second one now and then, or the new one."""
        t, acc = self.t, self.t.account[rows]
        old = np.where(t.second[rows], self.a["second_model"][acc], self.a["old_model"][acc])
        return self.models[np.where(t.new_model[rows], len(self.models) - 1, old)].tolist()

    def accounts(self) -> pa.Table:
        """The accounts by sign-up."""
        a, rng, n = self.a, self.rng, len(self.account_id)
        order = np.argsort(a["created"])
        columns: dict[str, object] = {"account_id": self.account_id, "created_at": a["created"]}
        a = a | {"signup_ip": self.world.net.text(a["signup_ip"])}
        for name in ACCOUNT_COLUMNS:
            absent = rng.random(n) < self.missing.get(name, 0)
            columns[name] = pa.array(np.array(_null(a[name], absent), object)[order].tolist(), pa.string())
        columns["account_id"] = pa.array(self.account_id[order].tolist())
        columns["created_at"] = self.stamp(self.a["created"][order])
        return pa.table(columns)

    def truth(self) -> tuple[pa.Table, pa.Table]:
        """Who belongs to which campaign, and which exchanges are distillation."""
        a, t = self.a, self.t
        order = np.argsort(self.account_id.astype(str))
        who = pa.table(
            {
                "account_id": pa.array(self.account_id[order].tolist()),
                "campaign_id": pa.array(a["campaign"][order].tolist(), pa.string()),
                "population": pa.array(a["population"][order].tolist(), pa.string()),
                "generation": pa.array(_null(a["generation"][order], a["generation"][order] < 0), pa.int16()),
                "replaced": pa.array(a["replaced"][order].astype(bool)),
            }
        )
        aim = np.array([s.capability for s in self.styles], object)[t.style]
        what = pa.table(
            {
                "exchange_id": pa.array(self.exchange_id.tolist()),
                "distillation": pa.array(t.distill),
                "capability": pa.array(_null(aim, ~t.distill), pa.string()),
            }
        )
        return who, what


def hash_text(text: str) -> int:
    """A stable 64-bit hash."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def write_world(
    out: Path,
    seed: int,
    world: World,
    lib: Library,
    book: Book,
    a: dict,
    t: Traffic,
    campaigns: list[Campaign],
    sizes: dict[str, int],
    lengths: Lengths,
) -> None:
    """Write every file of the world to a folder."""
    writer = Writer(world, lib, book, a, t, lengths)
    (out / "exchanges").mkdir(parents=True, exist_ok=True)
    for old in (out / "exchanges").glob("part-*.parquet"):
        old.unlink()
    for k, at in enumerate(range(0, len(t.time), PART_ROWS)):
        table = writer.part(np.arange(at, min(at + PART_ROWS, len(t.time))))
        pq.write_table(table, out / "exchanges" / f"part-{k:05d}.parquet", compression="zstd")
    pq.write_table(writer.accounts(), out / "accounts.parquet")
    who, what = writer.truth()
    pq.write_table(who, out / "truth.parquet")
    pq.write_table(what, out / "truth_exchanges.parquet")
    rows = [
        f"{m},{(writer.start - timedelta(days=200 + 37 * k)).isoformat()}" for k, m in enumerate(writer.models[:-1])
    ]
    rows.append(f"{NEW_MODEL},{(writer.start + timedelta(seconds=int(world.release_s))).isoformat()}")
    (out / "models.csv").write_text("\n".join(["model,released_at", *rows]) + "\n")
    (out / "world.json").write_text(json.dumps(_summary(seed, writer, campaigns, sizes), indent=1))


def _summary(seed: int, writer: Writer, campaigns: list[Campaign], sizes: dict[str, int]) -> dict[str, object]:
    """World, campaigns as drawn and as they came out, and populations."""
    t, a = writer.t, writer.a
    drawn, real = [], []
    for c in campaigns:
        mine = np.isin(t.account, c.accounts)
        shares = realised_shares(writer.lib, writer.styles, t, a, c)
        shape = "purpose_only" if c.shape == "shares" and not shares else c.shape
        drawn.append({"campaign_id": c.campaign_id, **c.knobs, "requests": int(mine.sum())})
        real.append(
            {
                "campaign_id": c.campaign_id,
                "shape": c.shape,
                "accounts": len(c.accounts),
                "exchanges": int(mine.sum()),
                "distillation": int((mine & t.distill).sum()),
                "shares": shares,
                "class": shape,
            }
        )
    frame = {"seed": seed, "accounts": len(writer.account_id), "exchanges": len(t.time), "days": writer.world.days}
    frame |= {
        "release_day": round(writer.world.release_s / DAY, 2),
        "missing": writer.missing,
        "campaigns": drawn,
        "populations": sizes,
    }
    heads = {c.shape: 0 for c in campaigns}
    for c in campaigns:
        heads[c.shape] += len(c.accounts)
    return {"world": frame, "campaigns": real, "populations": sizes | heads}
