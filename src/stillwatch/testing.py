"""Contract checks for plug-ins, ours and other people's: each is one call in a test and raises AssertionError.

check_detector(DETECTOR, lambda: open_engine("duckdb"))
check_fingerprint(FINGERPRINT, batch)
check_adapter(ADAPTER, Path("tests/data/one_log.jsonl"))
check_responder(RESPONDER)
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch import folds
from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.report import Report
from stillwatch.detectors import EVIDENCE, Detector, Example, run_detector
from stillwatch.detectors._rows import inputs, labels
from stillwatch.errors import InputRejected
from stillwatch.fingerprints import Fingerprint
from stillwatch.kinds import KINDS
from stillwatch.privacy import Privacy
from stillwatch.responders import API_KEY, BEARER, DIALECTS, Answer, Buckets, Request, Responder, Usage
from stillwatch.store import Engine
from stillwatch.tables import EXCHANGES, FACTS
from stillwatch.types import InForce

EngineFactory = Callable[[], AbstractContextManager[Engine]]

EVERYBODY = 60
"""Accounts in the log whose values are all the same."""

CHANCE_BITS = 1.0
"""More than this for a value that everybody holds is evidence made out of nothing."""

HEAD_BYTES = 1 << 16


def check_detector(detector: Detector, engine_factory: EngineFactory, shuffles: int = 1, seed: int = 0) -> None:
    """Its examples hold, in any order of rows; an empty log and a value that everybody holds give nothing."""
    rng = np.random.default_rng(seed)
    for example in detector.examples:
        found = evidence(detector, example, engine_factory)
        _check_shape(detector, example, found)
        seen = found_in(detector, example, found)
        expect = frozenset(example.expect)
        assert seen == expect, (
            f"{detector.name}, example {example.title!r}: "
            f"missed {sorted(expect - seen)}, found besides {sorted(seen - expect)}"
        )
        for _ in range(shuffles):
            again = evidence(detector, example, engine_factory, rng)
            fault = difference(found, again)
            assert not fault, f"{detector.name}, example {example.title!r}, depends on the order of rows: {fault}"
    nothing = evidence(detector, Example("nothing", []), engine_factory)
    assert not nothing.num_rows, f"{detector.name} finds something in an empty log"
    if detector.shape != "signals":
        _check_everybody(detector, evidence(detector, everybody(), engine_factory))


def evidence(
    detector: Detector, example: Example, engine_factory: EngineFactory, rng: np.random.Generator | None = None
) -> pa.Table:
    """What the detector finds in an example, on an engine of its own; ``rng`` shuffles the rows of every table."""
    with engine_factory() as engine:
        steps = base_steps(detector)
        text = " ".join([*detector.steps.values(), *(folds.BASE_STEPS[s] for s in steps)])
        for name, table in (inputs(example) | {"kinds": folds.kinds_table()}).items():
            if _reads(text, name):
                engine.append(name, table if rng is None else table.take(rng.permutation(table.num_rows)))
        for step in steps:
            engine.step(step, folds.BASE_STEPS[step])
        return run_detector(engine, detector)


def base_steps(detector: Detector) -> list[str]:
    """Of the steps all detectors stand on, those that this one reads, and what these read in turn; in order."""
    text, needed = " ".join(detector.steps.values()), []
    for name, sql in reversed(folds.BASE_STEPS.items()):
        if _reads(text, name):
            needed.append(name)
            text += sql
    return needed[::-1]


def _reads(text: str, table: str) -> bool:
    return re.search(rf"\b{table}\b", text) is not None


def found_in(detector: Detector, example: Example, found: pa.Table) -> frozenset[Any]:
    """Evidence in the words of an example's ``expect``: pairs of accounts, or accounts for signals."""
    name = labels(example)
    if detector.shape == "signals":
        return frozenset(name[a] for a in found["account"].to_pylist())
    if detector.shape == "links":
        ends = zip(found["left_account"].to_pylist(), found["right_account"].to_pylist())
        return frozenset((name[left], name[right]) for left, right in ends)
    held = sorted((r["kind"], r["value"], name[r["account"]]) for r in found.to_pylist())
    together = [[account for *_, account in rows] for _, rows in groupby(held, key=lambda h: h[:2])]
    return frozenset(pair for accounts in together for pair in combinations(accounts, 2))


def everybody() -> Example:
    """A log of accounts that all hold the same values, ask the same, at the same moments."""
    accounts = [f"e{k:02}" for k in range(EVERYBODY)]
    fact = {k.column: 7 for k in KINDS.values() if k.table == "facts"}
    traits = {k.column: 7 for k in KINDS.values() if k.table == "accounts"}
    return Example(
        "everybody alike",
        [(a, kind, 7, 5, 0, 60 * 24 * 4) for a in accounts for kind in KINDS],
        tables={
            "facts": [{"account": a, "time": 60 * 24 * day, **fact} for a in accounts for day in range(5)],
            "accounts": [{"account": a, "created_at": 0, **traits} for a in accounts],
        },
    )


def difference(left: pa.Table, right: pa.Table, tolerance: float = 1e-6) -> str:
    """Why two tables do not hold the same rows in some order, floats within ``tolerance`` of their size, or ''."""
    if sorted(left.column_names) != sorted(right.column_names):
        return f"columns {left.column_names} and {right.column_names}"
    if left.num_rows != right.num_rows:
        return f"{left.num_rows} and {right.num_rows} rows"
    names = sorted(left.column_names, key=lambda n: (pa.types.is_floating(left.schema.field(n).type), n))
    for a, b in zip(_sorted_rows(left, names), _sorted_rows(right, names)):
        if not all(_alike(x, y, tolerance) for x, y in zip(a, b)):
            return f"{dict(zip(names, a))} and {dict(zip(names, b))}"
    return ""


def check_fingerprint(fingerprint: Fingerprint, batch: pa.RecordBatch) -> None:
    """It fills the columns it declares, one value a row, from that row alone; gaps and empty batches do not trip it."""
    assert set(fingerprint.kinds) <= set(fingerprint.columns), "a kind is one of its columns"
    assert set(fingerprint.columns) <= set(FACTS.names), "a column no fact has"
    assert all(FACTS.schema.field(kind).type == pa.int64() for kind in fingerprint.kinds), "a kind is a keyed hash"
    assert set(fingerprint.needs) <= set(EXCHANGES.names), "it needs a column no exchange has"
    privacy = Privacy(b"a secret of a test, long enough to be one")
    whole = _observed(fingerprint, batch, privacy)
    assert set(fingerprint.columns) <= set(whole), "a column it declares is not filled"
    assert set(whole) <= {*fingerprint.columns, "sketch", "system_sketch"}, "it fills a column it does not declare"
    assert whole == _observed(fingerprint, batch, privacy), "a second look sees something else"
    middle = batch.slice(1, max(0, batch.num_rows - 2))
    part = {name: values[1 : 1 + middle.num_rows] for name, values in whole.items()}
    assert _observed(fingerprint, middle, privacy) == part, "what it sees in a row depends on the rows around it"
    assert not any(_observed(fingerprint, batch.slice(0, 0), privacy).values()), "it sees something in no rows"
    required = [pa.array(batch.column(n)) for n in EXCHANGES.required]
    bare = pa.RecordBatch.from_arrays(required, names=EXCHANGES.required)
    missing = [
        batch.column(f.name) if f.name in EXCHANGES.required else pa.nulls(batch.num_rows, f.type)
        for f in EXCHANGES.schema
    ]
    null = pa.RecordBatch.from_arrays(missing, schema=EXCHANGES.schema)
    assert _observed(fingerprint, bare, privacy) == _observed(fingerprint, null, privacy), "absent is not null to it"


def check_adapter(adapter: Adapter, path: Path) -> None:
    """It knows its format, yields batches of the canonical schema, the same ones again, and accounts for every row."""
    assert adapter.matches(path, path.read_bytes()[:HEAD_BYTES]), f"{adapter.name} does not know {path}"
    report = Report()
    batches = list(adapter.batches(path, report))
    assert batches, f"{adapter.name} reads nothing from {path}"
    assert all(b.schema.equals(EXCHANGES.schema) for b in batches), "a batch is not of the schema of EXCHANGES"
    again = list(adapter.batches(path, Report()))
    assert pa.Table.from_batches(batches).equals(pa.Table.from_batches(again)), "a second reading gives other rows"
    kept, refused = sum(b.num_rows for b in batches), sum(r.rows for r in report.rejected.rejects)
    assert report.rows_read == kept + refused, f"{report.rows_read} read, {kept} kept and {refused} refused"


def check_adapter_refuses(adapter: Adapter, path: Path) -> None:
    """A file that is not its format is refused or yields nothing; it does not raise anything else."""
    with suppress(InputRejected):
        assert not sum(b.num_rows for b in adapter.batches(path, Report())), f"{adapter.name} makes rows out of {path}"


def _check_shape(detector: Detector, example: Example, found: pa.Table) -> None:
    where = f"{detector.name}, example {example.title!r}"
    assert found.schema.names == EVIDENCE[detector.shape].names
    for column in found.column_names:
        assert not found[column].null_count, f"{where}: {column} is null"
    rows = found.to_pylist()
    assert all(r["bits"] >= 0 and np.isfinite(r["bits"]) for r in rows), f"{where}: bits below 0 or not finite"
    if detector.shape == "links":
        assert all(r["left_account"] < r["right_account"] for r in rows), f"{where}: ends out of order"
    if detector.shape == "ties":
        held = Counter((r["kind"], r["value"]) for r in rows)
        assert len({(r["kind"], r["value"], r["account"]) for r in rows}) == len(rows), f"{where}: a tie is there twice"
        assert all(held[r["kind"], r["value"]] <= r["holders"] for r in rows), f"{where}: fewer holders than ties"
    else:
        assert all(r["exhibit"].strip() for r in rows), f"{where}: an exhibit is empty"


def _check_everybody(detector: Detector, found: pa.Table) -> None:
    worst = max(found["bits"].to_pylist(), default=0.0)
    assert worst <= CHANCE_BITS, f"{detector.name} gives {worst:.1f} bits for what everybody shares"


def _sorted_rows(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    rows = zip(*(table[n].to_pylist() for n in names)) if names else iter(())
    return sorted(rows, key=lambda row: [(v is None, 0 if v is None else v) for v in row])


def _alike(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.isclose(a, b, rtol=tolerance, atol=2 * tolerance, equal_nan=True))
    return bool(a == b)


def _observed(fingerprint: Fingerprint, batch: pa.RecordBatch, privacy: Privacy) -> Mapping[str, list[Any]]:
    """What the fingerprint fills, as lists, each as long as the batch."""
    given = fingerprint.observe(batch, privacy)
    seen = {n: v.to_pylist() if isinstance(v, pa.Array) else np.asarray(v).tolist() for n, v in given.items()}
    for name, values in seen.items():
        assert len(values) == batch.num_rows, f"{name}: {len(values)} values for {batch.num_rows} rows"
    return seen


ASKED: Mapping[str, tuple[Request, ...]] = {
    "anthropic": (
        {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "hello"}]},
        {
            "model": "m", "max_tokens": 64_000, "system": "be brief", "temperature": 1, "stream": True,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "logprobs"}]}],
            "thinking": {"type": "enabled", "budget_tokens": 32_000, "display": "summarized"},
            "tools": [{"name": "n", "input_schema": {"type": "object"}}], "metadata": {"user_id": "u"},
        },
    ),
    "openai_chat": (
        {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
        {
            "model": "m", "messages": [{"role": "user", "content": "n"}], "n": 8, "logprobs": True, "top_logprobs": 20,
            "max_completion_tokens": 64_000, "seed": 7, "reasoning_effort": "high", "tools": [], "stop": ["x"],
        },
    ),
    "openai_responses": (
        {"model": "m", "input": "hello"},
        {
            "model": "m", "input": [{"role": "user", "content": "include"}], "instructions": "be brief", "top_logprobs": 5,
            "include": ["message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results"],
            "reasoning": {"effort": "high", "summary": "detailed"}, "max_output_tokens": 64_000, "tools": [],
        },
    ),
    "vllm": (
        {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
        {
            "model": "m", "prompt": "prompt_logprobs", "n": 4, "best_of": 4, "logprobs": 5, "prompt_logprobs": 1,
            "max_tokens": 64_000, "include_reasoning": True, "temperature": 0.2,
        },
    ),
}  # fmt: skip
"""Requests a responder is tried on, by dialect: a bare one, and one that asks for all there is."""

SAID = (
    "model", "messages", "input", "prompt", "system", "instructions", "tools", "tool_choice", "temperature", "top_p", "seed",
    "stop", "stream", "metadata", "reasoning_effort",
)  # fmt: skip
"""What makes an answer what it is: no responder touches it."""


def check_responder(responder: Responder) -> None:
    """It says what it does; rewriting is pure, repeatable and leaves what was said alone; a refusal is one in each dialect."""
    assert responder.meaning.strip() and responder.told.strip(), f"{responder.name} does not say what it does"
    for name, setting in responder.settings.items():
        assert setting.meaning.strip(), f"{responder.name}.{name} has no line of meaning"
        fault = None if setting.default is None or setting.is_required else setting.fault(setting.default)
        assert not fault, f"{responder.name}.{name}: its own default {fault}"
    usual = {n: s.default for n, s in responder.settings.items() if s.default is not None}
    for settings in ({}, usual):
        for dialect in DIALECTS:
            for request in ASKED[dialect]:
                _check_change(responder, request, dialect, settings)
            _check_answer(responder, dialect, settings)


def _check_change(responder: Responder, request: Request, dialect: str, settings: Mapping[str, Any]) -> None:
    where = f"{responder.name}, {dialect}"
    before = copy.deepcopy(request)
    changed = responder.change(request, dialect, settings)
    assert request == before, f"{where}: the caller's own request was written to"
    assert (changed.request is request) == (not changed.notes), f"{where}: notes do not say whether it was changed"
    for name in SAID:
        assert changed.request.get(name) == before.get(name), f"{where}: {name} was touched"
    again = responder.change(changed.request, dialect, settings)
    assert not again.notes and again.request == changed.request, f"{where}: changing twice is not changing once"
    json.dumps(changed.request)


def _check_answer(responder: Responder, dialect: str, settings: Mapping[str, Any]) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    held = InForce("a", responder.rung, "A-1", "C-1", now + timedelta(days=1), settings)
    for credential in (BEARER, API_KEY):
        buckets = Buckets()
        for _ in range(20):
            answer = responder.answer(held, dialect, now, Usage(buckets, "m", credential))
            if answer is not None:
                _check_refusal(responder, dialect, answer)


def _check_refusal(responder: Responder, dialect: str, answer: Answer) -> None:
    where = f"{responder.name}, {dialect}"
    assert 400 <= answer.status < 500, f"{where}: refuses with {answer.status}"
    body = json.loads(answer.content())
    assert isinstance(body["error"]["message"], str) and body["error"]["type"], f"{where}: no error in its dialect"
    assert (body.get("type") == "error") == (dialect == "anthropic"), f"{where}: not in its dialect"
    for name, value in answer.headers.items():
        assert name == name.lower() and value.isascii() and value.isprintable(), f"{where}: header {name!r}: {value!r}"
