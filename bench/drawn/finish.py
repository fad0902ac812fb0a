"""From the draft to the columns of the contract: network, client, model, tokens, text."""

import numpy as np
import pyarrow as pa

from .draft import MODELS, Columns, Draft
from .grammar import TALK
from .network import CODES, dotted
from .persona import BANKS, VIRTUAL_BANKS
from .priors import mix, unit
from .wording import follow_up

FLAVOUR = {
    "coding": "code", "agentic_coding": "code", "tool_use": "code", "computer_use": "code", "data_analysis": "code",
    "math_reasoning": "math", "cot_elicitation": "math", "education": "math", "eval_harness": "math", "grading": "grade",
}  # fmt: skip


def stamps(time: int) -> str:
    """A time as ISO text."""
    return f"{np.datetime64(int(time), 'us').astype('datetime64[s]')}Z"


def exchange_columns(draft: Draft, book: Columns, rows: Columns) -> Columns:
    """Everything but text: where from, with what, to which model, at what length."""
    account, time, total = rows["account"], rows["time"], len(rows["time"])
    rows["time"] = time = np.clip(time, draft.settings.start, draft.settings.end - 1)
    chunk = [
        draft.network.where(book["points"][account], book["weights"][account], book["sticky"][account], account, time)
    ]
    rows["address"], rows["network"] = chunk[0]
    second = np.where(
        book["mixes"][account], unit(mix(account, time // 3_600_000_000, 41)) < 0.3, time >= book["client_at"][account]
    )
    rows["client"] = np.where(second, book["client2"][account], book["client"][account])
    new = (time >= book["new_at"][account]) & (draft.rng.random(total) < book["new_share"][account])
    other = unit(mix(account, time // 7_200_000_000, 42)) < 0.12
    rows["model"] = np.where(new, len(MODELS) - 1, np.where(other, book["model2"][account], book["model"][account]))
    _lengths(draft, book, rows)
    return rows


def _lengths(draft: Draft, book: Columns, rows: Columns) -> None:
    """Answer and reasoning tokens, status and stop reason."""
    rng, account, total = draft.rng, rows["account"], len(rows["time"])
    code = np.isin(draft.corpus.task, ["classification", "tool_use", "grading", "translation"])[rows["task"]]
    answer = np.where(
        code, rng.choice(draft.traces.answers["code"], total) * 2, rng.choice(draft.traces.answers["conv"], total)
    )
    wants = book["thinking"][account]
    rows["thinks"] = (wants > 0) & (rng.random(total) < wants)
    lasting = answer * book["length"][account] * rng.lognormal(0, 0.4, total) * np.where(rows["thinks"], 1.2, 1)
    limit = np.where(book["max_tokens"][account] > 0, book["max_tokens"][account], 16_384)
    rows["output"] = np.clip(lasting, 1, limit).astype(np.int64)
    rows["reasoning"] = np.where(rows["thinks"], (rng.lognormal(6, 1, total)).astype(np.int64), 0)
    rows["status"] = rng.choice([200, 429, 400, 500, 529], total, p=[0.968, 0.015, 0.008, 0.004, 0.005])
    failed = rows["status"] != 200
    for name in ("output", "reasoning"):
        rows[name] = np.where(failed, 0, rows[name])
    tool = (rows["tools"] >= 0) & (rng.random(total) < 0.5)
    rows["stop"] = np.select([failed, rows["output"] >= limit, tool], [3, 1, 2], 0)


def exchange_part(
    draft: Draft, book: Columns, rows: Columns, at: np.ndarray, ids: np.ndarray, exchange_ids: np.ndarray
) -> pa.Table:
    """One part of the log as the contract has it."""
    rates, network, rng = draft.settings.rates, draft.network, draft.rng
    part = {name: values[at] for name, values in rows.items()}
    account, stops = part["account"], np.array(["end_turn", "max_tokens", "tool_use", None], dtype=object)
    prompt, system = prompts(draft, part, at), systems(draft, part, at)
    size = np.array([len(p) for p in prompt]) + np.array([len(s) if s else 0 for s in system])
    read = (size / 3.9 + part["turn"] * 190 + np.maximum(part["images"], 0) * 850) * rng.lognormal(0, 0.08, len(at)) + 8
    keeps = book["keeps"][account] | (book["channel"][account] == "console")
    users = np.where(part["end_user"] >= 0, mix(part["end_user"], draft.settings.seed).astype(object), None)
    text, toolsets = pa.string(), pa.array([*draft.toolsets, None], pa.list_(pa.string()))
    columns = {
        "exchange_id": pa.array(exchange_ids, text),
        "time": pa.array(part["time"], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "account_id": pa.array(ids[account], text),
        "end_user": pa.array([f"u{u:016x}" if u is not None else None for u in users], text),
        "channel": pa.array(book["channel"][account], text),
        "model": pa.array(np.array(MODELS, dtype=object)[part["model"]], text),
        "ip": pa.array(dotted(part["address"]), text),
        "asn": pa.array(network.as_number[part["network"]], pa.int32()),
        "country": pa.array(CODES[network.as_country[part["network"]]], text),
        "user_agent": pa.array(_user_agents(draft, part), text),
        "ja4": pa.array([None] * len(at) if rates["no_ja4"] else _prints(draft)[part["client"]], text),
        "conversation_id": pa.array(_conversations(draft, part, keeps), text),
        "turn": pa.array(part["turn"], pa.int16(), mask=~keeps),
        "system": pa.array(system, text),
        "prompt": pa.array(prompt, text),
        "response": responses(draft, part, at),
        "tools": toolsets.take(pa.array(np.where(part["tools"] >= 0, part["tools"], len(draft.toolsets)))),
        "images": pa.array(part["images"], pa.int16(), mask=part["images"] < 0),
        "input_tokens": pa.array(read.astype(np.int32)),
        "output_tokens": pa.array(part["output"].astype(np.int32)),
        "reasoning_tokens": pa.array(part["reasoning"].astype(np.int32), mask=~part["thinks"]),
        **_parameters(book, account, part),
        "status": pa.array(part["status"].astype(np.int16)),
        "stop_reason": pa.array(stops[part["stop"]], text),
    }
    return pa.table(columns)


def _prints(draft: Draft) -> np.ndarray:
    return np.array([c.ja4 for c in draft.clients], dtype=object)


def _user_agents(draft: Draft, part: Columns) -> np.ndarray:
    """User agents, but for accounts behind a gateway that strips them."""
    hidden = unit(mix(part["account"], 51)) < (0.7 if draft.settings.rates["few_user_agents"] else 0.02)
    return np.where(hidden, None, np.array([c.user_agent for c in draft.clients], dtype=object)[part["client"]])


def _parameters(book: Columns, account: np.ndarray, part: Columns) -> dict[str, pa.Array]:
    """Request parameters; null where a client leaves them out."""
    many, sure = book["several"][account], book["logprobs"][account]
    warm, most = book["temperature"][account], book["max_tokens"][account]
    return {
        "max_tokens": pa.array(most.astype(np.int32), mask=most < 0),
        "temperature": pa.array(warm.astype(np.float32), mask=np.isnan(warm)),
        "n": pa.array(many.astype(np.int16), mask=many < 0),
        "logprobs": pa.array(sure == 1, mask=sure < 0),
        "thinking": pa.array(part["thinks"], mask=book["thinking"][account] < 0),
        "stream": pa.array(book["stream"][account] == 1, mask=book["stream"][account] < 0),
        "batch": pa.array(part["batch"]),
    }


def _conversations(draft: Draft, part: Columns, keeps: np.ndarray) -> list[str | None]:
    """Random conversation ids, where the client keeps any."""
    hashed = mix(part["conversation"], draft.settings.seed, 61)
    return [f"conv_{h:016x}" if k else None for h, k in zip(hashed.tolist(), keeps.tolist())]


def prompts(draft: Draft, part: Columns, at: np.ndarray) -> list[str]:
    """The last user turn of each exchange."""
    vary, texts, found = draft.corpus.vary, draft.texts, []
    columns = (part[name].tolist() for name in ("row", "vary", "seed", "wrap"))
    for row, share, seed, wrap, own in zip(*columns, at.tolist()):
        text = vary(row, share, seed) if row >= 0 else follow_up(seed)
        found.append(texts[wrap].around(text, own) if wrap >= 0 else text)
    return found


def systems(draft: Draft, part: Columns, at: np.ndarray) -> list[str | None]:
    """The system text of each exchange; a fixed one is made once."""
    texts, ready, found = draft.texts, {}, []
    for number, own in zip(part["system"].tolist(), at.tolist()):
        if number < 0:
            found.append(None)
        elif texts[number].jitter or texts[number].reworded:
            found.append(texts[number].around("", own).strip())
        else:
            if number not in ready:
                ready[number] = texts[number].around("", 0).strip()
            found.append(ready[number])
    return found


def responses(draft: Draft, part: Columns, at: np.ndarray) -> pa.Array:
    """Short answers in the manner of the task, with words of the prompt's source; none where the log has none."""
    if draft.settings.rates["no_responses"]:
        return pa.nulls(len(at), pa.string())
    rng, corpus = draft.rng, draft.corpus
    flavours = sorted(TALK)
    of_row = np.array([flavours.index(FLAVOUR.get(t, "chat")) for t in corpus.task])
    flavour = of_row[part["task"]]
    heads = [np.array(TALK[f][0], dtype=object) for f in flavours]
    tails = [np.array(TALK[f][1], dtype=object) for f in flavours]
    dice = rng.integers(0, 1 << 30, (len(at), 3)).tolist()
    found = []
    for f, row, (a, b, c), failed in zip(
        flavour.tolist(), part["task"].tolist(), dice, (part["status"] != 200).tolist()
    ):
        words = corpus.prompts[row].split(" ", 40)[:40]
        start = c % max(1, len(words) - 8)
        said = f"{heads[f][a % len(heads[f])]} {tails[f][b % len(tails[f])]} {' '.join(words[start : start + 8])[:90]} {c % 997}."
        found.append(None if failed else said)
    return pa.array(found, pa.string())


def account_table(draft: Draft, book: Columns, ids: np.ndarray) -> pa.Table:
    """Accounts as the contract has them."""
    rates, seed, n = draft.settings.rates, draft.settings.seed, len(ids)
    text, network = pa.string(), draft.network
    starts = np.concatenate([[0], np.cumsum(np.concatenate(network.sizes))[:-1]])
    at = book["weights"].argmax(axis=1)
    address = np.concatenate(network.addresses)[starts[book["points"][np.arange(n), at]]]
    paid = book["card"] >= 0
    billing, bank = _banks(book)
    phoned = (book["phone"] >= 0) & (not rates["no_phone"])
    free = (book["card"] < 0) & (mix(np.arange(n), 71) % np.uint64(3) > 0)
    columns = {
        "account_id": pa.array(ids, text),
        "created_at": pa.array(book["created"], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "org_id": pa.array(np.where(book["org"] >= 0, _named("org", book["org"], seed), None), text),
        "programme": pa.array(book["programme"], text),
        "plan": pa.array(book["plan"], text),
        "email_domain": pa.array(book["email"], text),
        "payment_hash": pa.array(np.where(paid, _named("pay", book["card"], seed), None), text),
        "payment_issuer": pa.array(np.where(paid & (not rates["no_issuer"]), bank, None), text),
        "billing_country": pa.array(np.where(free, None, CODES[billing]), text),
        "phone_country": pa.array(np.where(phoned, CODES[book["phone_country"]], None), text),
        "phone_hash": pa.array(np.where(phoned, _named("tel", book["phone"], seed), None), text),
        "signup_ip": pa.array(dotted(address), text),
        "signup_ja4": pa.array([None] * n if rates["no_ja4"] else _prints(draft)[_signup_clients(draft, book)], text),
        "referrer": pa.array(np.where(book["referrer"] == "", None, book["referrer"]), text),
        "verification": pa.array(book["verification"], text),
    }
    return pa.table(columns)


def _banks(book: Columns) -> tuple[np.ndarray, np.ndarray]:
    """(billing country, bank) of each account; both belong to the card, so its holders agree."""
    holders = np.where(book["card"] >= 0, book["card"], -1 - np.arange(len(book["card"])))
    _, first, back = np.unique(holders, return_index=True, return_inverse=True)
    billing = book["billing"][first][back]
    number = (mix(holders, 81) % np.uint64(1 << 20)).astype(np.int64)
    local = np.array([f"{CODES[c]}-bank-{i}" for c, i in zip(billing, number % BANKS)], dtype=object)
    virtual = np.array([f"virtual-{i % VIRTUAL_BANKS}" for i in number], dtype=object)
    return billing, np.where(unit(mix(holders, 82)) < book["virtual"][first][back], virtual, local)


def _signup_clients(draft: Draft, book: Columns) -> np.ndarray:
    """Most people sign up in a browser, whatever they use afterwards."""
    n = len(book["created"])
    own = np.array([c.kind == "browser" for c in draft.clients])[book["client"]]
    return np.where(own | (draft.rng.random(n) < 0.04), book["client"], draft.client("browser", n))


def _named(prefix: str, numbers: np.ndarray, seed: int) -> np.ndarray:
    """Numbers as random-looking names, so that their order says nothing."""
    return np.array(
        [f"{prefix}_{h:016x}" for h in mix(numbers, seed, len(prefix) * 100 + ord(prefix[0])).tolist()], dtype=object
    )
