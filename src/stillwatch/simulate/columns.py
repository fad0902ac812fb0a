"""A slice of the timeline as a table in the canonical form: identifiers, network, text, parameters, token counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.simulate import pools
from stillwatch.simulate.grammar import mix
from stillwatch.simulate.identifiers import coded, hashed, hex_ids, ip_strings, ja4_names
from stillwatch.simulate.pools import API, I64
from stillwatch.simulate.sessions import DAY_US, Timeline
from stillwatch.simulate.speech import Spent, write_texts
from stillwatch.simulate.stage import Sheets, Stage
from stillwatch.simulate.traces import draw
from stillwatch.tables import EXCHANGES
from stillwatch.types import CAPABILITIES

_SPARES = np.random.default_rng(0).integers(0, len(pools.CLIENTS), (len(pools.CLIENTS), 4))
"""What else runs where a client runs."""


def exchange_table(stage: Stage, sheet: Sheets, line: Timeline, begin: int) -> tuple[pa.Table, pa.Table]:
    """Rows of the exchanges table, and beside them which of these are distillation queries."""
    rng = np.random.default_rng([stage.secret & 0xFFFFFFFF, begin])
    ids = hex_ids(mix(np.arange(begin, begin + len(line), dtype=np.uint64) + np.uint64(stage.secret)), "x")
    columns = {"exchange_id": ids, "time": pa.array(line.time_us + stage.start_us, pa.timestamp("us", "UTC"))}
    columns |= _who(stage, line) | _network(stage, line)
    text, spent = write_texts(stage, sheet, line, begin, rng)
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
        "ja4": coded(ja4_names(stage.secret), _client(stage, line) * pools.JA4_PER_CLIENT + p.ja4[account] % 4),
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


def _parameters(
    stage: Stage, sheet: Sheets, line: Timeline, spent: Spent, rng: np.random.Generator
) -> dict[str, pa.Array]:
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
