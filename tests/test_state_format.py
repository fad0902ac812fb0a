"""What is in a state of judging, and what it means, does not change without the number of its format (``checkpoint.FORMAT``).

A version that finds a state of its own format takes it up. So whenever one of these tests fails: raise ``FORMAT``, have the
golden written anew with ``STILLWATCH_GOLDEN=1 pytest tests/test_state_format.py``, and what older versions left is begun afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch import checkpoint
from stillwatch.arrivals import Systems
from stillwatch.checkpoint import Checkpoint, Hashes
from stillwatch.fingerprints import observe
from stillwatch.intake import Intake
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.recognition import Book, Profile
from stillwatch.replay import begin
from stillwatch.tables import EXCHANGES

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "state_format.json"
KEY = Privacy(b"a key for this golden, and for nothing else")
INEXACT = (pa.types.is_floating, pa.types.is_decimal)


def taken_in(key: Privacy) -> Intake:
    """A few exchanges with something in most columns, as ``key`` hashes them."""
    rows = [
        {"exchange_id": f"e{k}", "time": datetime(2026, 1, 1 + k, tzinfo=UTC), "account_id": f"a{k % 3}", "model": f"m{k % 2}",
         "end_user": f"u{k}", "conversation_id": f"c{k % 2}", "ip": f"203.0.113.{k}", "country": ("DE", "US")[k % 2],
         "asn": 64500 + k, "user_agent": f"sdk-python/1.{k}", "ja4": f"t13d{k}", "max_tokens": 100 * k, "temperature": 0.5,
         "system": f"You are tutor {k % 2} and show each step of the work in full, always.", "input_tokens": 10 + k,
         "prompt": f"Explain step by step, and number the steps: how many primes are below {k}00? Then grade the answer.",
         "response": f"Step 1: we count. Step 2: we find {k}.", "output_tokens": 200 + k, "status": "200"}
        for k in range(1, 9)
    ]  # fmt: skip
    known = {f.name: f.type for f in EXCHANGES.schema}
    columns = [pa.array([r.get(n) for r in rows]).cast(t) for n, t in known.items()]
    found, batch = Intake(), pa.RecordBatch.from_arrays(columns, schema=EXCHANGES.schema)
    found.add(batch["account_id"], batch["model"], observe(batch, key))
    return found


@pytest.fixture(scope="module")
def intake() -> Intake:
    return taken_in(KEY)


@pytest.fixture(scope="module")
def shape(intake: Intake, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schemas of a state's files, as a save writes them, and the shape of its manifest."""
    intake.complete(None, KEY)
    arrivals, watch = begin(intake, profiles(None, intake.accounts, KEY), KEY, None)
    watch.ledger.record([("SW-1", np.array([0]))], 10)
    watch.book = Book.of(
        [(0, Profile(*(np.ones(1, t) for t in (int, float, int)), 0.5, np.ones(2), np.ones(1, int), 0.5))]
    )
    watch.until, watch.end = len(arrivals), 20
    folder = tmp_path_factory.mktemp("state")
    kept = Checkpoint(folder, {"key_id": KEY.key_id, "settings": {}, "every": "1h", "share": 0.0})
    kept.save(watch, arrivals, Systems.of(intake, arrivals), Hashes.of(intake, KEY))
    manifest = json.loads((folder / "state.json").read_text())
    found = {"state.json": shape_of(manifest)}
    for path in sorted(folder.iterdir()):
        name = re.sub(r"-\d+", "", path.name)
        if path.suffix == ".parquet":
            found[name] = {f.name: str(f.type) for f in pq.read_schema(path)}
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {n: f"{arrays[n].dtype.kind}{arrays[n].ndim}" for n in sorted(arrays.files)}
    return found


def shape_of(value: Any) -> Any:
    """A JSON value with the kinds of its values; of a list its first, files by kind."""
    if isinstance(value, dict):
        return {re.sub(r"-\d+", "", k): shape_of(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape_of(v) for v in value[:1]]
    return "null" if value is None else type(value).__name__


def meaning_of(intake: Intake) -> dict[str, str]:
    """A digest of each exact fact of a fixed log, and of the sketches: what kept ones are compared with."""
    facts = pa.Table.from_batches(intake.facts)
    exact = [f.name for f in facts.schema if not any(is_(f.type) for is_ in INEXACT)]
    told = {n: digest(json.dumps(facts[n].cast(pa.string()).to_pylist()).encode()) for n in exact}
    sketches = np.concatenate(intake.sketches)
    systems = [np.concatenate([s[k] for s in intake.systems]) for k in range(3)]
    told["sketch"] = digest(np.ascontiguousarray(sketches).tobytes())
    told["systems"] = digest(b"".join(np.ascontiguousarray(s).tobytes() for s in systems[1:]))
    return told


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()[:16]


def test_shape_and_meaning_of_a_state_change_only_with_its_format(shape: dict[str, Any], intake: Intake) -> None:
    now = {"format": checkpoint.FORMAT, "shape": shape, "meaning": meaning_of(intake)}
    if os.environ.get("STILLWATCH_GOLDEN"):
        GOLDEN.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    golden = json.loads(GOLDEN.read_text())
    hint = "raise checkpoint.FORMAT and write the golden anew: see the head of this file"
    assert golden["format"] == now["format"], "the golden is of another format: write it anew"
    for part in ("shape", "meaning"):
        changed = sorted(n for n in golden[part].keys() | now[part] if golden[part].get(n) != now[part].get(n))
        assert not changed, f"{part} of {changed}: {hint}"


def test_the_test_sees_what_changes(shape: dict[str, Any], intake: Intake) -> None:
    """A column more, another width, another field of the plain part, another way to hash: each is another shape or meaning."""
    assert {"part.parquet", "systems.parquet", "rows.parquet", "watch.npz", "state.json"} == set(shape)
    assert {"floor", "carried_until", "schedule", "campaigns"} <= set(shape["state.json"]["plain"])
    assert shape_of({"a": [1, "x"], "part-000012": 0.5}) == {"a": ["int"], "part": "float"}
    assert shape_of({"a": 1}) != shape_of({"a": 1.0})
    told = meaning_of(intake)
    assert len(set(told.values())) > 10
    other = meaning_of(taken_in(Privacy(b"another key for tests, and nothing else")))
    assert {"exchange", "sketch", "systems", "prompt", "address", "client"} <= {n for n in told if told[n] != other[n]}
