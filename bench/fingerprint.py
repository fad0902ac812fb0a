"""How fast exchanges are fingerprinted and wording families found, on one CPU.

    python bench/fingerprint.py [--rows 200000] [--sketches 1000000] [--millions 10]

Prompts are 800 bytes of the training corpus's wording, a third of them in one of 40 wrappers. Rates are per
second of CPU time. "kernel"
is tokens, sketch, whole-text hash and sums; "observe" all fingerprints of full canonical exchanges, system text and
network included; "memory" what the process grew by, beyond what its input takes. Beside them, on the same bytes in the same
run: xxhash of the whole text, and MinHash-64 of word 3-shingles by rensa and datasketch (pip install 'stillwatch[bench]').
``--millions`` goes on fingerprinting that long and prints the memory at each tenth.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from stillwatch.fingerprints import observe
from stillwatch.fingerprints.prompt import read
from stillwatch.privacy import Privacy
from stillwatch.tables import EXCHANGES, SKETCH_WIDTH
from stillwatch.wordings import resolve

CORPUS = Path(__file__).parent.parent / "training" / "corpus"
BATCH = 20_000
PRIVACY = Privacy(b"a key for benchmarks only")


def prompts(rng: np.random.Generator, rows: int) -> list[str]:
    """Texts of about 800 bytes from the training corpus's own wording, a third behind one of 40 openings."""
    lines = [
        json.loads(line)["text"] for path in sorted(CORPUS.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]
    english = [line for line in lines if line.isascii()]
    chosen = rng.integers(0, len(english), (rows, 12))
    openings = [" ".join(" ".join(english[i] for i in row[:4]).split()[:25]) for row in chosen[:40]]
    texts = []
    for k, row in enumerate(chosen):
        head = openings[k % 40] + " " if k % 3 == 0 else ""
        texts.append((head + " ".join(english[i] for i in row))[:800])
    return texts


def exchanges(rng: np.random.Generator, texts: list[str]) -> pa.RecordBatch:
    """Canonical exchanges around the prompts, every column a fingerprint reads filled."""
    rows = len(texts)
    numbers = rng.integers(0, 250, (4, rows))
    given = {
        "exchange_id": [f"e{i}" for i in range(rows)],
        "time": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", tz="UTC")),
        "account_id": [f"a{i % 999}" for i in range(rows)],
        "model": ["m"] * rows,
        "prompt": texts,
        "system": [f"You are the assistant of shop number {n}, be brief and kind to everybody." for n in numbers[0]],
        "ip": [f"10.{a}.{b}.{c}" for a, b, c in numbers[:3].T],
        "user_agent": [f"client/{n}" for n in numbers[3]],
        "tools": [["search", "order"]] * rows,
        "max_tokens": pa.array(numbers[1], pa.int32()),
    }
    columns = [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(rows, f.type) for f in EXCHANGES.schema]
    return pa.RecordBatch.from_arrays(columns, schema=EXCHANGES.schema)


def sketches(rng: np.random.Generator, rows: int) -> Iterator[np.ndarray]:
    """Sketches as a large log has them: 60 % free text, 30 % wrappers over recurring slots, 10 % one family."""
    pool = rng.integers(1, 2**32 - 1, (20000, 32), dtype=np.uint32)
    heads = rng.integers(1, 2**32 - 1, (200, 16), dtype=np.uint32)
    for start in range(0, rows, 250_000):
        count = min(250_000, rows - start)
        block = rng.integers(1, 2**32 - 1, (count, SKETCH_WIDTH), dtype=np.uint32)
        wrapped, common = int(0.3 * count), int(0.4 * count)
        block[:wrapped, :16] = heads[rng.integers(0, 200, wrapped)]
        block[:wrapped, 16:] = pool[rng.integers(0, 20000, wrapped)]
        block[wrapped:common, :20] = heads[:2].ravel()[:20]
        yield block


def measured(work: Callable[[], object], turns: int = 1) -> tuple[float, float]:
    """CPU seconds, and growth of peak memory in GB, of doing the work a few times."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for _ in range(turns):
        work()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return time.process_time() - start, grown / 1e6


def report(name: str, rows: int, spent: tuple[float, float]) -> None:
    print(f"{name:12} {rows:>10,} rows {rows / spent[0]:>10,.0f} a CPU second {spent[1]:6.2f} GB memory")


def beside(texts: list[str]) -> None:
    """What others do on the same bytes, where they are installed."""
    few = texts[:2000]

    def shingles(text: str) -> list[str]:
        words = text.lower().split()
        return [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]

    def by_rensa() -> None:
        from rensa import RMinHash  # noqa: PLC0415

        for text in few:
            sketch = RMinHash(num_perm=64, seed=1)
            sketch.update(shingles(text))

    def by_datasketch() -> None:
        from datasketch import MinHash  # noqa: PLC0415

        for text in few:
            MinHash(num_perm=64).update_batch([s.encode() for s in shingles(text)])

    def by_xxhash() -> None:
        from xxhash import xxh3_64_intdigest  # noqa: PLC0415

        for _ in range(10):
            for text in few:
                xxh3_64_intdigest(text.encode())

    for name, rows, work in (
        ("xxhash", 20_000, by_xxhash),
        ("rensa", 2000, by_rensa),
        ("datasketch", 2000, by_datasketch),
    ):
        try:
            report(name, rows, measured(work))
        except ImportError as e:
            print(f"{name:12} not installed: {e}")


def lasting(batch: pa.RecordBatch, millions: float) -> None:
    """Memory while that many million exchanges are fingerprinted."""
    turns = int(millions * 1e6 / batch.num_rows)
    started = time.process_time()
    for turn in range(turns):
        observe(batch, PRIVACY)
        if (turn + 1) % max(1, turns // 10) == 0:
            held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            rows = (turn + 1) * batch.num_rows
            rate = rows / (time.process_time() - started)
            print(f"  {rows:>12,} rows: {held:.2f} GB held, peak {peak:.2f}, {rate:,.0f} a CPU second", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--sketches", type=int, default=1_000_000)
    parser.add_argument("--millions", type=float, default=0)
    args = parser.parse_args()
    pa.set_cpu_count(1)
    rng = np.random.default_rng(0)
    texts = prompts(rng, BATCH)
    column, batch = pa.array(texts, pa.large_string()), exchanges(rng, texts)
    blocks = list(sketches(rng, args.sketches))
    accounts = rng.integers(0, max(1, args.sketches // 10), args.sketches).astype(np.int32)
    observe(batch.slice(0, 9), PRIVACY)
    resolve(blocks[0][:999], accounts[:999])
    turns = max(1, args.rows // BATCH)
    print(f"prompts of {column.nbytes / len(column):.0f} bytes")
    report("kernel", turns * BATCH, measured(lambda: read(column, PRIVACY, SKETCH_WIDTH), turns))
    report("observe", turns * BATCH, measured(lambda: observe(batch, PRIVACY), turns))
    report("families", args.sketches, measured(lambda: resolve(blocks, accounts)))
    beside(texts)
    lasting(batch, args.millions)


if __name__ == "__main__":
    main()
