"""A simulated month through the command line: findings do not hang on the order, the split or the format of a log."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch import cli
from stillwatch.findings import ACCOUNTS_SCHEMA
from stillwatch.plugins import discover
from stillwatch.simulate import default_world, parse_campaign, simulate
from stillwatch.types import CAPABILITIES, FAMILIES

FILES = ["accounts.parquet", "campaigns.json", "report.html", "review.json", "run.json"]
CAMPAIGN_KEYS = {
    "campaign_id", "accounts", "exchanges", "first_seen", "last_seen", "detected_at", "confidence", "q_value",
    "capabilities", "evidence", "models", "pivot", "summary",
}  # fmt: skip
PLANTED = ("tagged_traces:80", "balanced_reasoning:60")
NETWORK = ["ip", "asn", "country", "user_agent", "ja4"]
CONTENT = ["system", "prompt", "response", "tools"]


@dataclass(frozen=True)
class World:
    """A simulated log on disk and its truth: campaign by account, null for honest ones."""

    folder: Path
    campaign: dict[str, str | None]

    @property
    def log(self) -> pa.Table:
        return pq.read_table(self.folder / "exchanges")


@dataclass(frozen=True)
class Result:
    """A scan's exit code and files."""

    code: int
    folder: Path

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def accounts(self) -> pa.Table:
        return pq.read_table(self.folder / "accounts.parquet")

    @property
    def flagged(self) -> dict[str, str]:
        rows = self.accounts.select(["account_id", "campaign_id"]).to_pylist()
        return {r["account_id"]: r["campaign_id"] for r in rows if r["campaign_id"]}


def made(folder: Path, seed: int, *campaigns: str) -> World:
    plans = tuple(parse_campaign(c) for c in campaigns)
    simulate(default_world(seed, accounts=1500, exchanges=40_000, campaigns=plans), folder)
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    return World(folder, {r["account_id"]: r["campaign_id"] for r in truth})


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "key").write_text("a key for tests, and for nothing else")
    return folder


@pytest.fixture(scope="session")
def world(base: Path) -> World:
    return made(base / "world", 2, *PLANTED)


Scan = Callable[..., Result]


@pytest.fixture(scope="session")
def scan(base: Path) -> Scan:
    """Scans a log under one key; without ``accounts`` or ``models``, a scan without them."""
    count = iter(range(1000))

    def run(log: Path, *, accounts: Path | None = None, models: Path | None = None, key: Path = base / "key") -> Result:
        out = base / f"result-{next(count)}"
        arguments = ["scan", str(log), "--out", str(out), "--key", str(key), "--quiet"]
        for name, path in (("--accounts", accounts), ("--models", models)):
            arguments += [name, str(path)] if path else []
        with contextlib.redirect_stdout(io.StringIO()):
            return Result(cli.main(arguments), out)

    return run


@pytest.fixture(scope="session")
def result(world: World, scan: Scan) -> Result:
    """The usual scan of the world."""
    return whole(world, scan, world.folder / "exchanges")


def whole(world: World, scan: Scan, log: Path, **options: Path) -> Result:
    """A scan of ``log``, some form of this world's, with its accounts and models."""
    return scan(log, accounts=world.folder / "accounts.parquet", models=world.folder / "models.csv", **options)


def honest(world: World, accounts: Iterator[str] | dict[str, str]) -> list[str]:
    return [a for a in accounts if world.campaign[a] is None]


def partition(result: Result) -> set[frozenset[str]]:
    """The accounts of each campaign, whatever it is called."""
    by_name: dict[str, set[str]] = {}
    for account, campaign in result.flagged.items():
        by_name.setdefault(campaign, set()).add(account)
    return {frozenset(accounts) for accounts in by_name.values()}


# The contract


def test_campaigns_are_found_and_nobody_else(world: World, result: Result) -> None:
    assert result.code == 1
    assert honest(world, result.flagged) == []
    for planted in ("planted-01", "planted-02"):
        members = [a for a, c in world.campaign.items() if c == planted]
        assert sum(a in result.flagged for a in members) >= 0.9 * len(members)


def test_files_are_the_contracts(world: World, result: Result) -> None:
    assert sorted(os.listdir(result.folder)) == FILES
    assert result.accounts.schema.equals(ACCOUNTS_SCHEMA)
    seen = set(world.log["account_id"].to_pylist())
    assert sorted(result.accounts["account_id"].to_pylist()) == sorted(seen)
    assert result.accounts["first_flagged_at"].null_count == len(seen)


def test_accounts_flagged_have_reasons_and_risk(result: Result) -> None:
    for row in result.accounts.to_pylist():
        assert 0 <= row["risk"] <= 1
        if row["campaign_id"]:
            assert row["reasons"]
            assert {r["family"] for r in row["reasons"]} <= set(FAMILIES)
            assert all(r["text"] and r["bits"] > 0 for r in row["reasons"])


def test_campaigns_json_is_the_contracts(result: Result) -> None:
    campaigns = result.json("campaigns.json")
    sizes = {c["campaign_id"]: c["accounts"] for c in campaigns}
    counted: dict[str, int] = {}
    for name in result.flagged.values():
        counted[name] = counted.get(name, 0) + 1
    assert sizes == counted
    for campaign in (reviewed := result.json("review.json")):
        assert campaign["confidence"] == 0, "nothing is claimed of what people are to look at"
    for campaign in campaigns:
        assert 0 < campaign["confidence"] < 1
    for campaign in [*campaigns, *reviewed]:
        assert set(campaign) == CAMPAIGN_KEYS
        assert set(campaign["capabilities"]) <= set(CAPABILITIES)
        assert set(campaign["evidence"]) <= set(FAMILIES)
        assert 0 <= campaign["q_value"] <= 1
        assert datetime.fromisoformat(campaign["first_seen"]) <= datetime.fromisoformat(campaign["last_seen"])
        assert campaign["summary"]


def test_run_json_counts_and_settings(world: World, result: Result, base: Path) -> None:
    run = result.json("run.json")
    rows = world.log.num_rows
    assert run["rows"] == {
        "exchanges_read": rows, "exchanges_kept": rows, "exchanges_rejected": 0,
        "accounts": len(set(world.log["account_id"].to_pylist())), "models": len(set(world.log["model"].to_pylist())),
    }  # fmt: skip
    assert (run["rejected"], run["blind"], run["unknown_columns"]) == ({}, {}, [])
    assert run["peak_memory_bytes"] > 0
    assert {"read and fingerprint", "detect", "judge"} <= set(run["timings"])
    assert (base / "key").read_text() not in json.dumps(run)


def test_no_content_and_no_personal_value_leaves_the_scan(world: World, result: Result) -> None:
    """Nothing that stood in the log, but ids, models and times, stands in a result."""
    texts = [(result.folder / name).read_text(encoding="utf-8") for name in FILES if name != "accounts.parquet"]
    texts.append(json.dumps(result.accounts.drop_columns(["account_id"]).to_pylist(), default=str))
    everything = "\n".join(texts)
    flagged = set(result.flagged)
    rows = [r for r in world.log.select(["account_id", "ip", "prompt"]).to_pylist() if r["account_id"] in flagged][:300]
    for row in rows:
        assert row["ip"] not in everything
        assert row["prompt"][:60] not in everything
    for row in pq.read_table(world.folder / "accounts.parquet").to_pylist():
        if row["account_id"] in flagged and row["payment_hash"]:
            assert row["payment_hash"] not in everything


def test_report_opens_without_a_network(result: Result) -> None:
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in set(result.flagged.values()))
    assert not any(mark in page for mark in ('src="http', 'href="http', "@import", "url(http"))


def test_look_alikes_only(base: Path, scan: Scan) -> None:
    quiet = made(base / "quiet", 2)
    found = whole(quiet, scan, quiet.folder / "exchanges")
    assert (found.code, found.flagged, found.json("campaigns.json")) == (0, {}, [])


# The same log, otherwise


def test_twice_gives_the_same(world: World, scan: Scan, result: Result) -> None:
    again = whole(world, scan, world.folder / "exchanges")
    assert again.accounts.equals(result.accounts)
    for name in ("campaigns.json", "review.json"):
        # A scan detects when it runs; all else is the log's.
        first, second = ([c | {"detected_at": None} for c in r.json(name)] for r in (result, again))
        assert first == second


def test_another_key_flags_the_same_accounts(world: World, scan: Scan, result: Result, base: Path) -> None:
    (base / "other").write_text("another key, as good as the first one")
    found = whole(world, scan, world.folder / "exchanges", key=base / "other")
    assert partition(found) == partition(result)


def test_any_order_and_split_of_files(world: World, scan: Scan, result: Result, base: Path) -> None:
    """Rows shuffled over files of three formats: same accounts, same campaigns."""
    log = world.log
    rows = np.random.default_rng(5).permutation(log.num_rows)
    folder = base / "shuffled"
    (folder / "deep").mkdir(parents=True)
    parts = [log.take(pa.array(part)) for part in np.array_split(rows, [1000, 9000, 9001, 25_000])]
    for name, part in zip(("z.parquet", "m.parquet", "one.parquet", "deep/a.parquet"), parts):
        pq.write_table(part, folder / name)
    write_lines(folder / "b.ndjson", (plain(row) for row in parts[4].to_pylist()))
    found = whole(world, scan, folder)
    assert found.json("run.json")["rows"] == result.json("run.json")["rows"]
    assert found.flagged.keys() == result.flagged.keys()
    assert partition(found) == partition(result)


# Straight from a gateway


def write_lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items() if v is not None}


def messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation as gateways log it: system text, what was before, the last user turn with its images."""
    before = [{"role": "user" if i % 2 == 0 else "assistant", "content": "…"} for i in range(row["turn"] or 0)]
    first = [{"role": "system", "content": row["system"]}] if row["system"] else []
    content: Any = row["prompt"]
    if row["images"]:
        content = [{"type": "text", "text": content}]
        content += [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}] * row["images"]
    return [*first, *before, {"role": "user", "content": content}]


def litellm(row: dict[str, Any]) -> dict[str, Any]:
    """An exchange as LiteLLM's generic callback sends it (StandardLoggingPayload)."""
    asked: dict[str, Any] = {k: row[k] for k in ("temperature", "max_tokens", "n", "logprobs") if row[k] is not None}
    asked |= {"tools": [{"type": "function", "function": {"name": t}} for t in row["tools"]]} if row["tools"] else {}
    asked |= {"reasoning_effort": "high"} if row["thinking"] else {}
    choice = {
        "index": 0,
        "finish_reason": row["stop_reason"],
        "message": {"role": "assistant", "content": row["response"]},
    }
    return {
        "id": row["exchange_id"], "litellm_call_id": row["exchange_id"], "call_type": "acompletion",
        "custom_llm_provider": "openai", "status": "success" if row["status"] in (None, 200) else "failure",
        "model": row["model"], "model_group": row["model"], "session_id": row["conversation_id"],
        "startTime": row["time"].timestamp(), "end_user": row["end_user"], "requester_ip_address": row["ip"],
        "user_agent": row["user_agent"], "messages": messages(row), "stream": row["stream"], "model_parameters": asked,
        "response": {"choices": [choice]}, "prompt_tokens": row["input_tokens"],
        "completion_tokens": row["output_tokens"],
        "metadata": {
            "user_api_key_hash": row["account_id"],
            "usage_object": {"completion_tokens_details": {"reasoning_tokens": row["reasoning_tokens"]}},
        },
    }  # fmt: skip


def attribute(key: str, value: Any) -> dict[str, Any]:
    """One OTLP attribute in its JSON form."""
    if isinstance(value, list):
        return {"key": key, "value": {"arrayValue": {"values": [attribute("", v)["value"] for v in value]}}}
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}


def otlp(row: dict[str, Any]) -> dict[str, Any]:
    """An exchange as a GenAI span, one export request a line."""
    spoken = [
        {"role": m["role"], "parts": [{"type": "text", "content": row["prompt"] if i == 0 else m["content"]}]}
        for i, m in enumerate(reversed(messages(row | {"system": None, "images": None})))
    ][::-1]
    spoken[-1]["parts"] += [{"type": "blob", "modality": "image", "content": ""}] * (row["images"] or 0)
    system = [{"type": "text", "content": row["system"]}]
    tools = [{"type": "function", "name": t} for t in row["tools"] or []]
    values = {
        "gen_ai.operation.name": "chat", "gen_ai.response.id": row["exchange_id"], "gen_ai.request.model": row["model"],
        "user.id": row["account_id"], "enduser.pseudo.id": row["end_user"], "client.address": row["ip"],
        "user_agent.original": row["user_agent"], "tls.client.ja4": row["ja4"],
        "gen_ai.conversation.id": row["conversation_id"], "gen_ai.input.messages": json.dumps(spoken),
        "gen_ai.system_instructions": json.dumps(system) if row["system"] else None,
        "gen_ai.tool.definitions": json.dumps(tools) if tools else None,
        "gen_ai.usage.input_tokens": row["input_tokens"], "gen_ai.usage.output_tokens": row["output_tokens"],
        "gen_ai.usage.reasoning.output_tokens": row["reasoning_tokens"], "gen_ai.request.max_tokens": row["max_tokens"],
        "gen_ai.request.temperature": row["temperature"], "gen_ai.request.choice.count": row["n"],
        "gen_ai.request.stream": row["stream"], "http.response.status_code": row["status"],
        "gen_ai.response.finish_reasons": [row["stop_reason"]] if row["stop_reason"] else None,
    }  # fmt: skip
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": row["exchange_id"], "name": f"chat {row['model']}",
        "startTimeUnixNano": str(int(row["time"].timestamp() * 1_000_000) * 1000),
        "attributes": [attribute(k, v) for k, v in values.items() if v is not None],
    }  # fmt: skip
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {}, "spans": [span]}]}]}


@pytest.mark.parametrize("form", [litellm, otlp], ids=["litellm", "otlp"])
def test_straight_from_a_gateway(
    form: Callable[[dict[str, Any]], dict[str, Any]], world: World, scan: Scan, result: Result, base: Path
) -> None:
    """The log in a gateway's own lines flags the accounts that the canonical log flags."""
    path = base / f"{form.__name__}.ndjson"
    write_lines(path, (form(row) for row in world.log.to_pylist()))
    found = whole(world, scan, path)
    run, canonical = found.json("run.json"), result.json("run.json")
    assert found.code == 1
    assert run["rows"] == canonical["rows"]
    assert (run["rejected"], run["unknown_columns"]) == ({}, [])
    for column in ("prompt", "system", "ip", "turn", "tools", "output_tokens", "user_agent"):
        assert run["coverage"][column] == pytest.approx(canonical["coverage"][column], abs=1e-3), column
    assert found.flagged.keys() == result.flagged.keys()


# A log that lacks something


@pytest.mark.parametrize(
    ("dropped", "with_accounts", "needs"),
    [(CONTENT, True, "exchanges.prompt"), ([], False, "accounts."), (NETWORK, True, "exchanges.ip")],
    ids=["no prompts", "no accounts", "no network"],
)
def test_blind_but_just(
    dropped: list[str], with_accounts: bool, needs: str, world: World, scan: Scan, base: Path
) -> None:
    log = base / f"without-{needs}parquet"
    pq.write_table(world.log.drop_columns([c for c in dropped if c in world.log.column_names]), log)
    found = whole(world, scan, log) if with_accounts else scan(log, models=world.folder / "models.csv")
    assert found.code in (0, 1)
    blind = found.json("run.json")["blind"]
    expected = {n for n, d in discover("detectors").items() if any(need.startswith(needs) for need in d.needs)}
    assert set(blind) == expected
    assert all(needs in why for why in blind.values())
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in blind)
    assert honest(world, found.flagged) == []


# Everything in one go


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--accounts", "1500", "--exchanges", "30000", "--seed", "3", "--quiet"]
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), *settings]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line[:3] for line in out.splitlines() if line[:3] in ("1/3", "2/3", "3/3")] == ["1/3", "2/3", "3/3"]
    assert "precision" in out
    report = Path(out.splitlines()[-1].removeprefix("the report: "))
    assert report == tmp_path / "demo" / "result" / "report.html"
    assert report.stat().st_size > 1000
