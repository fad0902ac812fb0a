"""A slice of the timeline as a table in the canonical form: identifiers, network, text, parameters, token counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.simulate import pools
from stillwatch.simulate.grammar import U64, Grammar, Seeds, mix
from stillwatch.simulate.networks import Addresses
from stillwatch.simulate.people import People
from stillwatch.simulate.pools import API, F64, I64, Settings
from stillwatch.simulate.sessions import DAY_US, Stream, Timeline
from stillwatch.simulate.traces import Rhythms, draw
from stillwatch.simulate.work import Catalogue, owner_seeds
from stillwatch.tables import EXCHANGES
from stillwatch.types import CAPABILITIES

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_SPARES = np.random.default_rng(0).integers(0, len(pools.CLIENTS), (len(pools.CLIENTS), 4))
"""What else runs where a client runs."""
_PARAPHRASES = 24
"""Sentence plans a paraphrasing operator uses; the words in them are drawn anew each time."""


def hex_ids(values: U64, prefix: str = "") -> pa.StringArray:
    """``prefix`` and 16 hexadecimal digits of each value."""
    head = np.frombuffer(prefix.encode(), np.uint8)
    nibbles = values.astype(">u8").view(np.uint8).reshape(-1, 8)
    width = len(head) + 16
    text = np.empty((len(values), width), np.uint8)
    text[:, : len(head)] = head
    text[:, len(head) :: 2] = _HEX[nibbles >> 4]
    text[:, len(head) + 1 :: 2] = _HEX[nibbles & 15]
    offsets = np.arange(len(values) + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(text.ravel()))


def ip_strings(addresses: I64) -> pa.StringArray:
    octet = pa.array([str(i) for i in range(256)])
    parts = [octet.take(pa.array((addresses >> shift) & 255)) for shift in (24, 16, 8, 0)]
    return pc.binary_join_element_wise(*parts, ".")


def coded(names: pa.Array | tuple[str, ...], index: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Few names for many rows, as a dictionary column that holds only the names in use."""
    used, inverse = np.unique(index, return_inverse=True)
    values = names if isinstance(names, pa.Array) else pa.array(names, pa.string())
    mask = None if valid is None else ~valid
    return pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32), mask=mask), values.take(pa.array(used)))


def hashed(values: U64, prefix: str, valid: npt.NDArray[np.bool_]) -> pa.Array:
    used, inverse = np.unique(values, return_inverse=True)
    return pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32), mask=~valid), hex_ids(used, prefix))


@dataclass(frozen=True, slots=True)
class Stage:
    """All that is needed to turn a slice of the timeline into rows."""

    secret: int
    start_us: int
    people: People
    account_ids: pa.StringArray
    streams: Stream
    catalogue: Catalogue
    grammar: Grammar
    addresses: Addresses
    settings: Settings
    rhythms: Rhythms


@dataclass(slots=True)
class Sheets:
    """Activities as columns."""

    first: npt.NDArray[np.int32]
    more: npt.NDArray[np.int32]
    answer: npt.NDArray[np.int32]
    system: npt.NDArray[np.int32]
    owner: I64
    variants: I64
    listed: I64
    in_order: npt.NDArray[np.bool_]
    systems: F64
    tools: I64
    images: F64
    words: F64
    context: F64
    batch: F64
    is_code: npt.NDArray[np.bool_]
    capability: I64


def sheets(catalogue: Catalogue, grammar: Grammar) -> Sheets:
    c = catalogue.column
    return Sheets(
        *(catalogue.sections(name, grammar) for name in ("first", "more", "answer", "system")), c("owner", np.int64),
        c("variants", np.int64), c("listed", np.int64), c("in_order", bool), c("systems", float), c("tools", np.int64),
        c("images", float), c("words", float), c("context", float), c("batch", float), c("is_code", bool),
        catalogue.capabilities(),
    )  # fmt: skip


def exchange_table(stage: Stage, sheet: Sheets, line: Timeline, begin: int) -> tuple[pa.Table, pa.Table]:
    """Rows of the exchanges table, and beside them which of these are distillation queries."""
    rng = np.random.default_rng([stage.secret & 0xFFFFFFFF, begin])
    ids = hex_ids(mix(np.arange(begin, begin + len(line), dtype=np.uint64) + np.uint64(stage.secret)), "x")
    columns = {"exchange_id": ids, "time": pa.array(line.time_us + stage.start_us, pa.timestamp("us", "UTC"))}
    columns |= _who(stage, line) | _network(stage, line)
    text, spent = _text(stage, sheet, line, begin, rng)
    columns |= text | _parameters(stage, sheet, line, spent, rng)
    table = pa.table([columns[name] for name in EXCHANGES.names], names=EXCHANGES.names)
    capability = sheet.capability[line.activity]
    names = coded(CAPABILITIES, np.maximum(capability, 0), capability >= 0).cast(pa.string())
    return table, pa.table({"exchange_id": ids, "distillation": capability >= 0, "capability": names})


def _who(stage: Stage, line: Timeline) -> dict[str, pa.Array]:
    p, s, account = stage.people, stage.streams, line.account
    session = mix(line.session.astype(np.uint64) + np.uint64(stage.secret ^ 0x5E55))
    users = s.end_users[line.stream]
    # A few of a customer's users do most of the asking.
    user = (users * ((session >> np.uint64(11)).astype(float) / 2.0**53) ** 2.2).astype(np.uint64)
    lone = mix(session + line.position.astype(np.uint64) * np.uint64(0x2545F491))
    named = line.talk | ((mix(s.account[line.stream]) % np.uint64(2)) == 0)
    return {
        "account_id": coded(stage.account_ids, account),
        "end_user": hashed(mix(p.key[account] + user), "u", users > 0),
        "channel": coded(pools.CHANNELS, p.channel[account]),
        "model": coded(tuple(m for m, _ in pools.MODELS), line.model),
        "user_agent": coded(pools.CLIENTS, _client(stage, line)),
        "ja4": coded(_ja4_names(stage.secret), _client(stage, line) * pools.JA4_PER_CLIENT + p.ja4[account] % 4),
        "conversation_id": pc.if_else(pa.array(named), hex_ids(np.where(line.talk, session, lone), "c"), None),
        "turn": pa.array(np.where(line.talk, np.minimum(2 * line.position, 30_000), 0).astype(np.int16)),
    }  # fmt: skip


def _client(stage: Stage, line: Timeline) -> I64:
    """The account's client; a third of accounts have another device or program, a reseller's customers bring theirs."""
    p, session = stage.people, mix(line.session.astype(np.uint64))
    other = session % np.uint64(len(pools.CLIENTS))
    brought = (stage.streams.end_users[line.stream] > 0) & stage.streams.mixed[line.stream] & (other % 3 > 0)
    habit = mix(p.key + np.uint64(17))[line.account]
    second = ((habit % 3) == 0) & ((session >> np.uint64(20)) % np.uint64(5) == 0)
    spare = _SPARES[p.client[line.account], ((habit >> np.uint64(8)) % np.uint64(4)).astype(np.int64)]
    return np.where(brought, other.astype(np.int64), np.where(second, spare, p.client[line.account]))


def _ja4_names(secret: int) -> tuple[str, ...]:
    values = mix(np.arange(len(pools.CLIENTS) * pools.JA4_PER_CLIENT, dtype=np.uint64) // 2 + np.uint64(secret % 1009))
    return tuple(f"t13d{1500 + v % 20}h2_{v >> 40:06x}_{v % (1 << 24):06x}" for v in values.tolist())


def _network(stage: Stage, line: Timeline) -> dict[str, pa.Array]:
    p, account = stage.people, line.account
    shares = np.cumsum(p.egress_share[account], axis=1)
    u = (mix(line.session.astype(np.uint64) + np.uint64(77)) >> np.uint64(11)).astype(float) / 2.0**53
    slot = np.minimum((u[:, None] * shares[:, -1:] > shares).sum(axis=1), 2)
    day = line.time_us // DAY_US
    where = (account, slot)
    ip, block = stage.addresses.at(
        p.egress[where], p.egress_key[where], p.egress_move[where], day, line.session.astype(np.int64)
    )
    used, inverse = np.unique(ip, return_inverse=True)
    return {
        "ip": pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32)), ip_strings(used)),
        "asn": pa.array(stage.addresses.asn[block].astype(np.int32)),
        "country": coded(pools.COUNTRIES, stage.addresses.country[block]),
    }


@dataclass(frozen=True, slots=True)
class _Spent:
    """Bytes of prompt and system, and whether the exchange failed."""

    read: I64
    failed: npt.NDArray[np.bool_]


def _text(
    stage: Stage, sheet: Sheets, line: Timeline, begin: int, rng: np.random.Generator
) -> tuple[dict[str, pa.Array], _Spent]:
    activity, rows = line.activity, len(line)
    own = mix(np.arange(begin, begin + rows, dtype=np.uint64) ^ np.uint64(stage.secret ^ 0xABCDEF))
    owner = owner_seeds(sheet.owner[activity], stage.people.key[line.account])
    opening = ~line.talk | (line.position == 0)
    row = np.where((sheet.listed[activity] > 0) & opening, _item(stage, sheet, line, own), own)
    talk = mix(line.session.astype(np.uint64) + np.uint64(stage.secret))
    talk = np.where(line.talk, talk, row)
    seeds = Seeds(row, talk, *_variant(sheet.variants[activity], owner, own))
    prompt = stage.grammar.render(np.where(opening, sheet.first[activity], sheet.more[activity]), seeds)
    failed = rng.random(rows) < 0.012
    silent = failed | (rng.random(rows) < 0.2)
    answer = np.where(silent, -1, sheet.answer[activity]).astype(np.int32)
    response = stage.grammar.render(answer, Seeds(own ^ np.uint64(1), talk, owner, owner))
    system, bytes_read = _system(stage, sheet, line, owner)
    bytes_read = bytes_read + pc.binary_length(prompt).to_numpy()
    return {"system": system, "prompt": prompt, "response": response}, _Spent(bytes_read, failed)


def _item(stage: Stage, sheet: Sheets, line: Timeline, own: U64) -> U64:
    """Seed of the item of the list that a row asks: in order from a place of the account's own, or anywhere."""
    activity = line.activity
    size = np.maximum(sheet.listed[activity], 1).astype(np.uint64)
    walk = stage.people.key[line.account] % size + line.session.astype(np.uint64) * np.uint64(31)
    step = np.where(sheet.in_order[activity], walk + line.position.astype(np.uint64), own >> np.uint64(9))
    return mix(sheet.owner[activity].astype(np.uint64) + step % size)


def _variant(variants: I64, owner: U64, own: U64) -> tuple[U64, U64]:
    """Owner and variant seeds: sentences change with every fourth variant, words with each."""
    pick = (own >> np.uint64(5)) % np.maximum(variants, 1).astype(np.uint64)
    plan = np.where(variants == 0, (own >> np.uint64(13)) % np.uint64(_PARAPHRASES), pick // np.uint64(4))
    sentences = np.where((variants == 1) | (plan == 0), owner, mix(owner + plan))
    words = np.where(variants == 0, own, np.where(pick == 0, owner, mix(owner + np.uint64(9_000) + pick)))
    return sentences, words


def _system(stage: Stage, sheet: Sheets, line: Timeline, owner: U64) -> tuple[pa.Array, I64]:
    """System texts, each rendered once, and their bytes by row."""
    activity = line.activity
    u = (mix(line.session.astype(np.uint64) + np.uint64(991)) >> np.uint64(11)).astype(float) / 2.0**53
    section = np.where(u < sheet.systems[activity], sheet.system[activity], -1)
    key = np.where(section >= 0, mix(owner ^ mix(section.astype(np.uint64))), np.uint64(0))
    used, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    seed = owner[first]
    texts = stage.grammar.render(section[first].astype(np.int32), Seeds(seed, seed, seed, seed))
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    column = pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32), mask=section < 0), pc.fill_null(texts, ""))
    return column, sizes[inverse].astype(np.int64)


def _parameters(stage: Stage, sheet: Sheets, line: Timeline, spent: _Spent, rng: np.random.Generator) -> dict[str, pa.Array]:
    p, activity, rows = stage.people, line.activity, len(line)
    asked = stage.settings
    profile = p.settings[line.account]
    limit = asked.max_tokens[profile]
    u = rng.random(rows)
    length = np.where(sheet.is_code[activity], draw(stage.rhythms.code_length, u), draw(stage.rhythms.chat_length, u))
    habit = ((mix(p.key[line.account]) >> np.uint64(40)).astype(float) / 2.0**24 - 0.5) * 1.6
    wanted = np.exp(sheet.words[activity] + habit) * length * np.where(asked.n[profile] > 1, asked.n[profile], 1)
    thinking = asked.thinking[profile]
    thought = np.where(thinking, wanted * rng.lognormal(0.3, 0.7, rows), 0)
    cut = (limit > 0) & (wanted > limit)
    output = np.where(cut, limit, np.maximum(wanted, 1)).astype(np.int64)
    failed = spent.failed
    history = np.where(line.talk, line.position * np.exp(sheet.words[activity]), 0)
    context = rng.lognormal(sheet.context[activity], 0.9)
    status = np.where(failed, np.array([429, 500, 529, 400])[rng.integers(0, 4, rows)], 200)
    uses_tools = (sheet.tools[activity] > 0) & (rng.random(rows) < 0.6)
    reason = np.where(cut, 1, np.where(uses_tools, 2, 0))
    batch = (sheet.batch[activity] > 0.5) | ((profile % 23 == 5) & (p.interface[line.account] == API))
    images = np.where(rng.random(rows) < sheet.images[activity], 1 + rng.poisson(0.4, rows), 0)
    return {
        "tools": _tool_lists().take(pa.array(sheet.tools[activity])), "images": pa.array(images.astype(np.int16)),
        "input_tokens": pa.array((spent.read / 3.7 + history + context + 4).clip(1, 1e6).astype(np.int32)),
        "output_tokens": pa.array(np.where(failed, 0, output).clip(0, 10**6).astype(np.int32)),
        "reasoning_tokens": pa.array(np.where(failed, 0, thought).clip(0, 1e6).astype(np.int32), mask=~thinking),
        "max_tokens": pa.array(limit.astype(np.int32), mask=limit < 0),
        "temperature": pa.array(asked.temperature[profile].astype(np.float32), from_pandas=True),
        "n": pa.array(asked.n[profile].astype(np.int16), mask=asked.n[profile] == 0),
        "logprobs": pa.array(asked.logprobs[profile]), "thinking": pa.array(thinking),
        "stream": pa.array(asked.stream[profile] & ~batch), "batch": pa.array(batch),
        "status": pa.array(status.astype(np.int16)),
        "stop_reason": coded(("end_turn", "max_tokens", "tool_use"), reason, ~failed),
    }  # fmt: skip


def _tool_lists() -> pa.ListArray:
    return pa.array([list(names) or None for names in pools.TOOLSETS], pa.list_(pa.string()))
