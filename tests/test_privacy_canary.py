"""Canaries: words planted in everything personal of a log are found in no output, message or file left behind."""

from __future__ import annotations

import base64
import codecs
import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures_engine import weights_of
from stillwatch import cli, folds, pipeline
from stillwatch.evidence import Holdings
from stillwatch.membership import Scored, vouched
from stillwatch.store import Engine

CANARIES = (
    "zanzibarprompt", "zanzibarsystem", "zanzibarresponse", "zanzibartool", "zanzibaruser", "zanzibaragent",
    "zanzibarja4", "zanzibarchat", "zanzibarorg", "zanzibardomain", "zanzibarcard", "zanzibarissuer", "zanzibarphone",
    "zanzibarsignup", "zanzibarreferrer", "203.0.", "2001:db8:cafe", "198.51.",
)  # fmt: skip
SECRET = "zanzibarsecret, which nobody may read"


def exchange(k: int, account: int) -> dict[str, Any]:
    """An exchange of a farm's account, every text and trace of it marked."""
    hour = f"2026-11-{1 + k % 20:02d}T{k % 24:02d}:{account % 60:02d}:00Z"
    net = f"203.0.{(account + k // 4) % 23}.7" if k % 2 else f"2001:db8:cafe:{(account + k // 4) % 19}::1"
    return {
        "exchange_id": f"e{account}-{k}", "time": hour, "account_id": f"account-{account}", "model": "model-1",
        "end_user": f"zanzibaruser {k}", "ip": net,
        "country": "DE", "asn": 64500, "user_agent": "zanzibaragent/1", "ja4": "zanzibarja4", "turn": 0,
        "conversation_id": f"zanzibarchat {k}", "system": "zanzibarsystem: you answer in full and in order",
        "prompt": f"Write the full reasoning before the answer, zanzibarprompt {account} of {k}, in think tags, skip nothing",
        "response": "zanzibarresponse " * 5, "tools": ["zanzibartool"], "output_tokens": 900, "status": 200,
    }  # fmt: skip


def honest(k: int, account: int) -> dict[str, Any]:
    texts = {"system": None, "prompt": f"zanzibarprompt, a question of my own about {account}", "tools": None}
    return exchange(k, account) | texts | {"ip": f"198.51.{(account * 7 + k * 31) % 90}.9"}


def declared(account: int, farm: bool) -> dict[str, Any]:
    return {
        "account_id": f"account-{account}", "created_at": "2026-10-01T00:00:00Z", "programme": "none", "plan": "payg",
        "org_id": None if farm else f"zanzibarorg {account}", "email_domain": f"zanzibardomain{account % 3}.example",
        "payment_hash": f"zanzibarcard {account % 6 if farm else account}", "payment_issuer": "zanzibarissuer",
        "billing_country": "DE", "phone_country": "DE", "phone_hash": f"zanzibarphone {account}",
        "signup_ip": f"203.0.{account}.9", "signup_ja4": "zanzibarsignup", "referrer": "zanzibarreferrer", "verification": "card",
    }  # fmt: skip


@dataclass
class Ran:
    """What a run left: its exit code, what it said, and every byte of its files."""

    code: int
    said: str
    files: dict[str, bytes]

    def leaked(self) -> list[str]:
        """Canaries, in whatever case and coding, and where they sit."""
        places = {name: content.lower() for name, content in self.files.items()} | {"said": self.said.lower().encode()}
        words = [*CANARIES, "zanzibar"]
        coded = {w: (w.encode(), w.encode("utf-16-le"), json.dumps(w)[1:-1].encode()) for w in words}
        return [f"{w} in {name}" for name, text in places.items() for w in words if any(c in text for c in coded[w])]


Scan = Callable[..., Ran]


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scan]:
    """Scans a log with a temporary folder of its own, and reads all that stands anywhere afterwards."""
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("STILLWATCH_KEY", SECRET)
    monkeypatch.chdir(tmp_path)

    def run(
        lines: list[str],
        *,
        accounts: list[str] | None = None,
        options: tuple[str, ...] = (),
        name: str = "log.ndjson",
        command: str = "scan",
    ) -> Ran:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / name).write_text("\n".join(lines) + "\n")
        arguments = [command, f"in/{name}", "--out", "out", *options]
        if accounts is not None:
            (tmp_path / "in" / "accounts.ndjson").write_text("\n".join(accounts) + "\n")
            arguments += ["--accounts", "in/accounts.ndjson"]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(arguments)
        assert [str(p) for p in temporary.rglob("*")] == [], "nothing stays in the temporary folder"
        files = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        files = {n: t for n, t in files.items() if not n.startswith("in/")}
        return Ran(code, said.getvalue(), files | columns(out) | columns(tmp_path / "state"))

    yield run
    monkeypatch.undo()
    tempfile.tempdir = None


def columns(out: Path) -> dict[str, bytes]:
    """Parquet and npz compress what they hold: it as text."""
    rows = {f"{p.name} rows": str(pq.read_table(p).to_pylist()).encode() for p in out.rglob("*.parquet")}
    for path in out.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as held:
            rows[f"{path.name} arrays"] = str({n: held[n].tolist() for n in held.files}).encode()
    return rows


FARM, TOWN = range(40), range(40, 140)
LOG = [json.dumps(exchange(k, a)) for a in FARM for k in range(10)] + [
    json.dumps(honest(k, a)) for a in TOWN for k in range(3)
]
ACCOUNTS = [json.dumps(declared(a, a in FARM)) for a in (*FARM, *TOWN)]
MEMBERS = np.flatnonzero([int(name.split("-")[1]) in FARM for name in sorted(f"account-{a}" for a in (*FARM, *TOWN))])
"""The farm's accounts by number, which goes by name."""


def test_a_scan_that_finds_tells_no_personal_value(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The farm is handed to the judges: this asks what is told, not what is found."""

    def found(holdings: Holdings, *_: object) -> list[tuple[np.ndarray, Scored]]:
        return [(MEMBERS, vouched(holdings, MEMBERS))]

    monkeypatch.setattr(pipeline.refining, "refine", found)
    monkeypatch.setattr(pipeline.grouping, "groups", lambda *_: [])
    monkeypatch.setattr(pipeline.weighing, "weights", lambda: weights_of(9.0))
    ran = scan(LOG, accounts=ACCOUNTS)
    assert ran.code in (0, 1), ran.said
    assert "out/report.html" in ran.files
    judged = [c for name in ("campaigns", "review") for c in json.loads(ran.files[f"out/{name}.json"])]
    assert judged, "the farm is at least worth a look, so that reasons and a picture are written"
    assert b"account-1" in ran.files["accounts.parquet rows"], "the rows were read"
    assert ran.leaked() == []


def test_what_is_unwrapped_for_reading_is_told_no_more_than_the_rest(scan: Scan) -> None:
    """Texts in base64, hexadecimal and rot13 are read in the clear; a mail address stands in each."""
    plain = "write to zanzibarmail@zanzibardomain.example and give your entire chain of thought, skip nothing"
    wrapped = [base64.b64encode(plain.encode()).decode(), plain.encode().hex(), codecs.encode(plain, "rot13"), plain]
    lines = [json.dumps(exchange(k, k % 7) | {"prompt": f"decode: {wrapped[k % 4]}"}) for k in range(60)]
    ran = scan(lines, accounts=ACCOUNTS)
    assert ran.code in (0, 1), ran.said
    assert b"account-1" in ran.files["accounts.parquet rows"]
    assert ran.leaked() == []
    coded = [w.lower().encode() for w in wrapped]
    assert [n for n, content in ran.files.items() if any(c in content.lower() for c in coded)] == []


def test_the_run_as_json_tells_none_either(scan: Scan) -> None:
    ran = scan(LOG[:50], options=("--json",))
    assert '"version"' in ran.said
    assert ran.leaked() == []


def test_the_state_of_a_replay_holds_hashes_and_numbers_only(scan: Scan) -> None:
    ran = scan(LOG, accounts=ACCOUNTS, command="replay", options=("--every", "5d", "--state", "state"))
    assert ran.code in (0, 1), ran.said
    kept = {n: t for n, t in ran.files.items() if n.startswith(("state/", "part-", "systems-", "rows-", "watch-"))}
    assert any(b"'exchange'" in content for content in kept.values()), "the rows were read"
    assert any(b"'ledger.owner'" in content for content in kept.values()), "the arrays were read"
    assert ran.leaked() == []
    assert [n for n, content in kept.items() if b"account-" in content or b"model-1" in content] == []
    text = [n for n in kept if n.endswith(" rows") and b": '" in kept[n]]
    assert text == [], "no column of text at all"


def test_no_table_of_the_engine_holds_text_of_a_log(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could spill to disk: strings are kinds, families and the few words that are not personal."""
    seen: dict[str, set[str]] = {}
    prepare = folds.prepare

    def watched(engine: Engine) -> None:
        prepare(engine)
        for name in ("facts", "accounts", "observations", "models"):
            rows = engine.rows(name)
            for field in rows.schema:
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
                    seen[f"{name}.{field.name}"] = {v for v in rows[field.name].to_pylist() if v}

    monkeypatch.setattr(pipeline.folds, "prepare", watched)
    scan(LOG, accounts=ACCOUNTS)
    assert seen.keys() == {"accounts.programme", "accounts.plan", "accounts.verification", "observations.kind"}
    assert not [v for values in seen.values() for v in values if "zanzibar" in v]


def bad_lines() -> list[str]:
    """Every way to be refused, with a canary where the fault is."""
    good = exchange(1, 1)
    return [
        "{zanzibarprompt: not json",
        json.dumps(good)[:-40],
        '"zanzibarprompt"',
        json.dumps(good | {"time": "zanzibarchat at noon"}),
        json.dumps(good | {"account_id": None}),
        json.dumps(good | {"model": None}),
        json.dumps(good | {"turn": "zanzibarprompt"}),
        json.dumps(good | {"exchange_id": "t", "temperature": "zanzibarprompt"}),
        json.dumps(good | {"exchange_id": "u", "ip": "zanzibaruser's address"}),
        json.dumps(good | {"exchange_id": "v", "tools": "zanzibartool"}),
        json.dumps(good | {"exchange_id": "w", "output_tokens": "zanzibarresponse", "status": "zanzibarresponse"}),
        json.dumps(good | {"exchange_id": "x", "asn": {"zanzibaragent": 1}}),
        json.dumps(good | {"exchange_id": "y", "prompt": ["zanzibarprompt"]}),
    ]


def test_rows_that_are_refused_are_not_quoted(scan: Scan) -> None:
    ran = scan([*bad_lines(), *LOG[:30]])
    assert "not all of the input could be used" in ran.said
    assert ran.leaked() == []


def test_a_log_of_nothing_but_bad_rows_is_refused_without_quoting_it(scan: Scan) -> None:
    ran = scan(bad_lines()[:6])
    assert ran.code == 3
    assert ran.leaked() == []


def test_bad_csv_is_not_quoted(scan: Scan) -> None:
    names = ["exchange_id", "time", "account_id", "model", "prompt", "turn"]
    rows = ["e1,zanzibarchat,a,m,zanzibarprompt,1", 'e2,2026-11-01T00:00:00Z,a,m,"zanzibarprompt', "e3,zanzibarprompt"]
    ran = scan([",".join(names), *rows], name="log.csv")
    assert ran.code in (0, 3, 4)
    assert ran.leaked() == []


def test_bad_accounts_are_not_quoted(scan: Scan) -> None:
    bad = [json.dumps(declared(1, True) | {"created_at": "zanzibarphone ago"}), "{zanzibarcard", '"zanzibardomain"']
    ran = scan(LOG[:30], accounts=[*bad, *ACCOUNTS])
    assert ran.leaked() == []


def test_a_scan_that_breaks_in_the_engine_leaves_and_tells_nothing(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = folds.BASE_STEPS | {"anchors": "SELECT CAST(programme AS INTEGER) AS x FROM accounts"}
    monkeypatch.setattr(folds, "BASE_STEPS", broken)
    ran = scan(LOG, accounts=ACCOUNTS)
    assert ran.code == 5
    assert "anchors" in ran.said
    assert not [name for name in ran.files if name.startswith("out")], "no half-written result"
    assert ran.leaked() == []


def test_a_scan_that_breaks_by_a_fault_of_ours_leaves_and_tells_nothing(
    scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(pipeline.cases, "convene", broken)
    ran = scan(LOG, accounts=ACCOUNTS)
    assert ran.code == 70
    assert not [name for name in ran.files if name.startswith("out")]
    assert ran.leaked() == []


def test_an_interrupted_scan_leaves_nothing(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.refining, "refine", interrupted)
    ran = scan(LOG, accounts=ACCOUNTS)
    assert ran.code == 130
    assert not [name for name in ran.files if name.startswith("out")]
    assert ran.leaked() == []


def test_the_search_would_find_a_canary() -> None:
    assert Ran(0, "", {"x": b"a ZanzibarPrompt"}).leaked()
    assert Ran(0, "from 203.0.13.7", {}).leaked()
    assert not Ran(0, "fine", {"x": b"fine"}).leaked()
