"""The command line as a user meets it: what is said on stderr, the exit code, and what is left in --out."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch import cli

FILES = ["accounts.parquet", "campaigns.json", "report.html", "review.json", "run.json"]
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages show paths as they were given: short ones here. No key from outside, no terminal's width."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLWATCH_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def record(number: int, **changes: Any) -> dict[str, Any]:
    """A good exchange, one of forty by four accounts."""
    return {
        "exchange_id": f"e{number}", "time": (START + timedelta(minutes=7 * number)).isoformat(),
        "account_id": f"a{number % 4}", "model": "m", "prompt": f"what is the {number}th prime?",
    } | changes  # fmt: skip


def records(count: int = 40) -> list[dict[str, Any]]:
    return [record(i) for i in range(count)]


def ndjson(rows: Iterable[dict[str, Any] | str | bytes], name: str = "log.ndjson") -> str:
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(b"\n".join(lines) + b"\n")
    return name


def parquet(rows: list[dict[str, Any]], name: str = "log.parquet") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), name)
    return name


@dataclass
class Ran:
    """What a command said and left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def run(self) -> dict[str, Any]:
        return json.loads(Path("out/run.json").read_text(encoding="utf-8"))

    @property
    def rejected(self) -> dict[str, int]:
        return self.run["rejected"]

    @property
    def accounts(self) -> list[str]:
        return sorted(pq.read_table("out/accounts.parquet")["account_id"].to_pylist())


class Scan:
    """Calls the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        code = cli.main(["scan", *arguments, "--out", "out", "--quiet"])
        return Ran(code, *self._capsys.readouterr())


@pytest.fixture
def scan(capsys: pytest.CaptureFixture[str]) -> Scan:
    return Scan(capsys)


def left_behind(folder: str = "out") -> list[str]:
    """All that lies in the folder of results, hidden things too."""
    return sorted(p.name for p in Path(folder).iterdir()) if Path(folder).exists() else []


# Verbs and usage


def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stillwatch", *arguments], capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from stillwatch.cli import main; main(['--help']); print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "duckdb", "numba", "numpy", "igraph", "sklearn", "pyspark"} & set(done.stdout.split())


def test_help_begins_with_examples_and_is_quick() -> None:
    began = datetime.now(UTC)
    done = verb("--help")
    assert datetime.now(UTC) - began < timedelta(seconds=5)
    assert done.returncode == 0
    assert done.stdout.index("stillwatch scan last-month/") < done.stdout.index("Commands")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{cli.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], 'Unknown command "bogus"'),
        (["scan"], "requires an argument"),
        (["scan", "log.ndjson"], "--out"),
        (["scan", "log.ndjson", "--out", "out", "--oot", "x"], "Unknown option: --oot"),
        (["simulate", "--out", "w", "--seed", "many"], 'unable to convert "many" into int'),
        (["simulate", "--out", "w", "--campaign", "bogus"], "no campaign shape 'bogus'"),
        (["simulate", "--out", "w", "--campaign", "small_ring:many"], "accounts is 'many', no number"),
        (["simulate", "--out", "w", "--campaign", "small_ring", "--look-alikes-only"], "contradict each other"),
        (["simulate", "--out", "w", "--accounts", "50"], "leave too few"),
        (["inspect"], "no log given"),
        (["evaluate", "w"], "nothing to evaluate"),
        (["scan", "log.ndjson", "--out", "out", "--adapter", "bogus"], "no adapter named 'bogus'"),
        (["scan", "log.ndjson", "--out", "log.ndjson"], "log.ndjson: is a file, but --out is a folder"),
        (["scan", "log.ndjson", "--out", "log.ndjson/deep"], "log.ndjson: is a file, but --out is a folder"),
        (["scan", "log.ndjson", "--out", "out", "--config", "gone.toml"], "gone.toml: cannot be read as TOML"),
        (["scan", "log.ndjson", "--out", "out", "--key", "gone"], "gone: the privacy key cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    ndjson(records(4))
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stillwatch: ")
    assert words in err
    assert "\n  hint: " in err or "cannot be read" in err or "no number" in err
    assert not Path("out").exists()
    assert not Path("w").exists()


def test_wrong_settings(scan: Scan) -> None:
    log = ndjson(records(4))
    Path("s.toml").write_text("memroy = '1GB'")
    done = scan(log, "--config", "s.toml")
    assert done.code == 2
    assert (
        done.stderr
        == "stillwatch: s.toml: unknown setting 'memroy'\n  hint: known: engine, memory, threads, detectors\n"
    )
    Path("key").write_text("short")
    done = scan(log, "--key", "key")
    assert (done.code, "shorter than 16 bytes" in done.stderr) == (2, True)
    assert "short\n" not in done.stderr


def test_a_fault_of_ours_never_ends_like_a_found_campaign(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, code, words in (
        (ZeroDivisionError("x"), 70, "this is a fault of stillwatch"),
        (MemoryError(), 5, "out of memory"),
        (ModuleNotFoundError("No module named 'igraph'"), 5, "a package is missing: No module named 'igraph'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "x.parquet"), 5, "x.parquet: No space left on device"),
    ):

        def fails(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("stillwatch.intake.read_exchanges", fails)
        assert cli.main(["scan", "log", "--out", "out", "--quiet"]) == code
        assert words in capsys.readouterr().err


# What a good log gives


def test_a_quiet_log(scan: Scan) -> None:
    done = scan(ndjson(records()))
    assert done.code == 0
    assert done.stderr == ""
    assert done.stdout.startswith("No campaign found\n40 exchanges of 4 accounts judged")
    assert left_behind() == FILES
    assert done.accounts == ["a0", "a1", "a2", "a3"]
    assert json.loads(Path("out/campaigns.json").read_text()) == []
    assert done.rejected == {}


def test_a_log_of_nothing_but_the_required_columns(scan: Scan) -> None:
    names = ("exchange_id", "time", "account_id", "model")
    done = scan(ndjson({name: r[name] for name in names} for r in records()))
    assert done.code == 0, done.stderr
    assert {"shared_wording", "shared_address", "shared_payment", "elicitation_focus"} <= set(done.run["blind"])


def test_json_is_run_json_and_nothing_else(scan: Scan) -> None:
    done = scan(ndjson(records()), "--json")
    assert json.loads(done.stdout) == done.run
    assert done.run["rows"]["exchanges_kept"] == 40


def test_an_older_result_is_replaced_only_by_a_whole_one(scan: Scan) -> None:
    scan(ndjson(records()))
    older = {f: Path("out", f).read_bytes() for f in FILES}
    assert scan("gone.ndjson").code == 3
    assert {f: Path("out", f).read_bytes() for f in FILES} == older
    assert scan(ndjson(records(8))).code == 0
    assert scan(ndjson(records(8))).run["rows"]["exchanges_kept"] == 8


def test_standard_input() -> None:
    text = "".join(json.dumps(r) + "\n" for r in records())
    command = [sys.executable, "-m", "stillwatch", "scan", "-", "--out", "out"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert left_behind() == FILES


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of shell, in which ``stillwatch`` is this one; the exit code is that of the first in a pipe."""
    line = f'stillwatch() {{ "{sys.executable}" -m stillwatch "$@"; }}; {command}; exit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("command", ["stillwatch scan log.ndjson --out out --quiet", "stillwatch --help"])
def test_a_reader_that_leaves_is_no_found_campaign(command: str) -> None:
    ndjson(records())
    # The reader closes its end at once, and the writer starts well after.
    done = shell(f"{command} | exec true")
    assert (done.returncode, done.stderr) == (141, "")


def test_odd_streams_and_names() -> None:
    ndjson(records())
    done = shell("stillwatch scan log.ndjson --out oé --quiet", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "o\\xe9/report.html" in done.stdout
    assert shell("stillwatch scan log.ndjson --out out --quiet >&-").returncode == 0
    full = shell("stillwatch scan log.ndjson --out out --quiet > /dev/full")
    assert (full.returncode, "No space left on device" in full.stderr) == (5, True)
    assert left_behind() == FILES


def test_a_file_name_that_is_no_text(scan: Scan) -> None:
    folder = os.fsdecode(b"logs\xff")
    ndjson([*records(), "broken"], f"{folder}/a.ndjson")
    done = scan(folder)
    assert done.code == 0, done.stderr
    assert done.rejected == {"broken JSON": 1}


# Files that cannot be read


def refused(done: Ran, message: str) -> None:
    assert done.code == 3
    assert done.stderr == textwrap.dedent(message).strip() + "\n"
    assert done.stdout == ""
    assert left_behind() == []


def test_missing_file(scan: Scan) -> None:
    refused(scan("gone.parquet"), """
        stillwatch: gone.parquet: no such file or folder
          hint: give the log's file or folder, or - for standard input
    """)  # fmt: skip


def test_empty_file_and_folder(scan: Scan) -> None:
    Path("logs").mkdir()
    refused(scan("logs"), """
        stillwatch: logs: the folder holds no files
          hint: give a folder with Parquet, NDJSON or CSV files
    """)  # fmt: skip
    Path("log.ndjson").touch()
    refused(scan("log.ndjson"), """
        stillwatch: log.ndjson: nothing in it can be judged, 0 rows read
          log.ndjson: the file is empty (0 rows)
            hint: was it written to the end?
    """)  # fmt: skip


def test_truncated_parquet(scan: Scan) -> None:
    path = Path(parquet(records()))
    path.write_bytes(path.read_bytes()[:-50])
    refused(scan("log.parquet"), """
        stillwatch: log.parquet: nothing in it can be judged, 0 rows read
          log.parquet: a Parquet file that was cut off or damaged (0 rows)
            hint: write or copy it again
    """)  # fmt: skip


def test_missing_required_columns(scan: Scan) -> None:
    log = ndjson({"id": str(i), "timestamp": i, "user_id": "a", "model": "m", "prompt": "p"} for i in range(3))
    done = scan(log)
    assert done.code == 3
    assert "log.ndjson: no columns exchange_id, time, account_id" in done.stderr
    assert "(found: id, model, prompt, timestamp, user_id)" in done.stderr
    assert 'exchange_id = "id"; time = "timestamp"; account_id = "user_id", and pass --map FILE' in done.stderr


def test_the_hint_of_missing_columns_works(scan: Scan) -> None:
    names = {"exchange_id": "id", "time": "timestamp", "account_id": "user_id"}
    log = ndjson({names.get(k, k): v for k, v in r.items()} for r in records())
    columns = "\n".join(f'{column} = "{field}"' for column, field in names.items())
    Path("ours.toml").write_text(
        f'meaning = "ours"\n[match]\nall = ["user_id"]\n[columns]\n{columns}\nmodel = "model"\n'
    )
    done = scan(log, "--map", "ours.toml")
    assert done.code == 0, done.stderr
    assert done.run["rows"]["exchanges_kept"] == 40


def test_a_bad_file_among_good_ones_is_a_partial_result(scan: Scan) -> None:
    ndjson(records()[:20], "logs/a.ndjson")
    ndjson(records()[20:], "logs/deep/b.ndjson")
    Path("logs/c.parquet").write_bytes(b"PAR1 and then nothing")
    Path("logs/d.bin").write_bytes(bytes(range(256)))
    done = scan("logs")
    assert done.code == 4
    assert done.stderr.startswith("stillwatch: not all of the input could be used\n")
    assert "  logs/c.parquet: a Parquet file that was cut off or damaged (0 rows)\n    hint: " in done.stderr
    assert "  logs/d.bin: no adapter knows this format (0 rows)\n" in done.stderr
    assert left_behind() == FILES
    assert done.run["rows"]["exchanges_kept"] == 40
    assert {r["place"] for r in done.run["rejects"]} == {"logs/c.parquet", "logs/d.bin"}


def test_a_log_that_breaks_off_is_a_partial_result(scan: Scan) -> None:
    text = b"".join(json.dumps(record(i, prompt=os.urandom(4000).hex())).encode() + b"\n" for i in range(3000))
    Path("log.ndjson.gz").write_bytes(gzip.compress(text, 1)[:-20_000])
    done = scan("log.ndjson.gz")
    assert done.code == 4
    assert "log.ndjson.gz: cannot be read on" in done.stderr
    assert "it looks cut off or damaged; write or copy it again" in done.stderr
    assert 500 < done.run["rows"]["exchanges_kept"] < 3000


def test_gzip_bomb(scan: Scan) -> None:
    Path("log.ndjson.gz").write_bytes(gzip.compress(json.dumps(record(1)).encode() + b"\n" + b" " * 100_000_000, 1))
    done = scan("log.ndjson.gz")
    assert done.code in (3, 4)
    assert "log.ndjson.gz: inflates to over 200 times its size, like a decompression bomb" in done.stderr
    assert "unpack it by hand if you trust it" in done.stderr


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder that anybody may reach: pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.chdir(folder)
        yield


def as_nobody(log: str, out: str) -> subprocess.CompletedProcess[str]:
    """A scan without the superuser's rights, after one that has loaded all the code."""
    program = f"""
import os, sys
from stillwatch.cli import main
assert main(["scan", "good.ndjson", "--out", "first", "--quiet", "--json"]) == 0
if os.geteuid() == 0:
    os.setuid(65534)
sys.exit(main(["scan", {log!r}, "--out", {out!r}]))
"""
    ndjson(records(), "good.ndjson")
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_no_permission_to_read(open_folder: None) -> None:
    Path(ndjson(records())).chmod(0)
    done = as_nobody("log.ndjson", "out")
    assert done.returncode == 3
    assert "stillwatch: log.ndjson: nothing in it can be judged, 0 rows read\n" in done.stderr
    assert "  log.ndjson: no permission to read it (0 rows)\n    hint: check the file's owner and mode" in done.stderr


def test_no_permission_to_write_is_told_before_the_work(open_folder: None) -> None:
    Path("out").mkdir()
    Path("out").chmod(0o555)
    done = as_nobody("good.ndjson", "out/deep")
    assert done.returncode == 2
    assert done.stderr == "stillwatch: out: no permission to write there\n  hint: give --out a folder of your own\n"


# Rows that cannot be judged


def test_broken_lines(scan: Scan) -> None:
    good = records()
    log = ndjson([*good[:10], '{"exchange_id": "cut off', *good[10:30], "[1, 2]", "nonsense", *good[30:]])
    done = scan(log)
    assert done.code == 0
    assert done.stderr == textwrap.dedent("""\
        stillwatch: not all of the input could be used
          log.ndjson:11: broken JSON (2 rows)
            hint: each line must be one whole JSON object
          log.ndjson:32: a line that is no JSON object (1 row)
            hint: each line must be one whole JSON object
    """)
    assert done.rejected == {"broken JSON": 2, "a line that is no JSON object": 1}
    assert done.run["rows"] == {
        "exchanges_read": 43, "exchanges_kept": 40, "exchanges_rejected": 3, "accounts": 4, "models": 1,
    }  # fmt: skip


def spelt(number: int, how: str) -> Any:
    moment = START + timedelta(minutes=number)
    seconds = int(moment.timestamp())
    return {
        "s": seconds, "ms": seconds * 1000, "us": seconds * 10**6, "iso": moment.isoformat(),
        "naive": moment.replace(tzinfo=None).isoformat(), "text": str(seconds),
        "zone": moment.astimezone().isoformat(),
    }[how]  # fmt: skip


def test_times_in_every_spelling_and_out_of_range(scan: Scan) -> None:
    ways = ["s", "ms", "us", "iso", "naive", "text", "zone"]
    rows = [record(i, time=spelt(i, ways[i % len(ways)])) for i in range(70)]
    soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    done = scan(ndjson([*rows, record(100, time=0), record(101, time="1970-01-01"), record(102, time=soon)]))
    assert done.code == 0
    assert "log.ndjson:71: time lies before 2015 (2 rows)" in done.stderr
    assert "log.ndjson:73: time lies in the future (1 row)" in done.stderr
    assert "hint: check the clock that wrote the log, and the unit of its times" in done.stderr
    assert done.rejected == {"time lies before 2015": 2, "time lies in the future": 1}
    first, last = (datetime.fromisoformat(done.run[k]) for k in ("first_time", "last_time"))
    assert (first, last) == (START, START + timedelta(minutes=69))


def test_duplicates(scan: Scan) -> None:
    rows = records()
    done = scan(ndjson([*rows, rows[3], rows[4], record(5, prompt="another")]))
    assert done.code == 0
    assert done.rejected == {"duplicate": 2, "duplicate exchange_id with different content": 1}
    assert "log.ndjson:41: duplicate (2 rows)" in done.stderr
    assert done.run["rows"]["exchanges_kept"] == 40


def test_strange_text_is_judged(scan: Scan) -> None:
    raw = json.dumps(record(50, prompt="PP")).encode()
    strange: list[dict[str, Any] | bytes] = [
        raw.replace(b"PP", b"x\xff\xfey"), record(51, prompt="x\0y"), record(52, prompt="ü" * 5_000_000),
        record(53, prompt=""), record(54, prompt=None), record(55, prompt="\ud800"), record(56, system="\0" * 3),
        record(57, prompt="\u202egnp.exe\x1b[31m"),
    ]  # fmt: skip
    done = scan(ndjson([*records(), *strange]))
    assert done.code == 0
    assert done.stderr == ""
    assert done.run["rows"]["exchanges_kept"] == 48
    assert {c["reason"]: c["rows"] for c in done.run["changed"]} == {
        "prompt: invalid UTF-8 in text, replaced": 2,
        "prompt: NUL bytes in text, replaced": 1,
        "system: NUL bytes in text, replaced": 1,
        "prompt: text over 1,048,576 bytes, cut": 1,
    }


def test_unknown_columns_are_named(scan: Scan) -> None:
    done = scan(ndjson([*records(), record(50, colour="red"), record(51, colour="blue", size=3)]))
    assert done.code == 0
    assert sorted(done.run["unknown_columns"]) == ["colour", "size"]
    assert "2 columns not understood: " in done.stdout


def test_ids_that_could_break_a_page(scan: Scan) -> None:
    odd = ["<script>alert(1)</script>", "a'; DROP TABLE facts; --", "\x1b[31mred", "[bold]x[/bold]", "a\nb"]
    done = scan(ndjson([*records(), *(record(50 + i, account_id=name, model=name) for i, name in enumerate(odd))]))
    assert done.code == 0
    assert len(done.accounts) == 9
    assert "<script>alert(1)" not in Path("out/report.html").read_text(encoding="utf-8")
    assert "\x1b[31m" not in done.stdout


# The accounts file and the models file


def test_accounts_file_missing_or_of_another_kind(scan: Scan) -> None:
    log = ndjson(records())
    done = scan(log, "--accounts", "gone.parquet")
    assert (done.code, left_behind()) == (3, [])
    assert done.stderr.startswith("stillwatch: gone.parquet: no such file or folder\n  hint: ")
    Path("accounts.csv").write_text("acount,created_at\na,2026-01-01\n")
    done = scan(log, "--accounts", "accounts.csv")
    assert done.code == 3
    assert "accounts.csv: no column account_id (found: acount, created_at)" in done.stderr


def test_accounts_file_with_duplicates_that_does_not_cover_the_log(scan: Scan) -> None:
    Path("accounts.csv").write_text(
        "account_id,created_at,payment_hash\n"
        "a0,2025-01-01,p\na0,2025-01-01,p\na1,2025-01-01,p\na1,2025-02-01,q\nz,2025-01-01,r\n"
    )
    done = scan(ndjson(records()), "--accounts", "accounts.csv")
    assert done.code == 0
    assert done.rejected["accounts of the log that the accounts file lacks"] == 2
    assert "account_id listed more than once with different values; the latest row stands (1 row)" in done.stderr
    assert done.accounts == ["a0", "a1", "a2", "a3"]


def test_models_file(scan: Scan) -> None:
    Path("models.csv").write_text("model,released_at\nm,2026-01-01\nother,\n")
    done = scan(ndjson(records()), "--models", "models.csv")
    assert done.code == 0
    assert "models.csv:3: released_at is missing (1 row)" in done.stderr
    assert "pivot" not in done.run["blind"]


# Interrupted, and no room to write


WRAPPED = """
import os, resource, signal, sys, threading
from stillwatch import cli, progress, results

def soon(what, after_s=0.0):
    threading.Timer(after_s, what).start() if after_s else what()

def at_stage(name, what, after_s=0.0):
    plain = progress.Progress.stage
    def stage(self, stage, total=None):
        answer = plain(self, stage, total)
        if stage == name:
            soon(what, after_s)
        return answer
    progress.Progress.stage = stage

def at_page(what):
    plain = results.page
    def page(*arguments):
        what()
        return plain(*arguments)
    results.page = page

def at_move(what):
    plain = os.replace
    def replace(*arguments):
        plain(*arguments)
        what()
    os.replace = replace

def stop(number=signal.SIGINT):
    os.kill(os.getpid(), number)

def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

"""


def wrapped(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A scan in a process of its own, in which something happens."""
    command = ["scan", *arguments, "--out", "out"]
    program = f"{WRAPPED}\n{code}\nsys.exit(cli.main({command!r}))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def older() -> Iterator[dict[str, bytes]]:
    """A result that was there before, and what must still be there after."""
    log = ndjson(records(8), "older.ndjson")
    assert cli.main(["scan", log, "--out", "out", "--quiet"]) == 0
    yield {f: Path("out", f).read_bytes() for f in FILES}


INTERRUPTED = "stillwatch: interrupted\n  hint: no half-written result is left; run it again\n"


@pytest.mark.parametrize(
    "moment",
    [
        'at_stage("read and fingerprint", stop)',
        'at_stage("fold", stop, 0.02)',
        'at_stage("detect", stop)',
        'at_stage("judge", lambda: stop(signal.SIGTERM))',
        "at_page(stop)",
    ],
)
def test_interrupted(moment: str, older: dict[str, bytes]) -> None:
    done = wrapped(moment, ndjson(records(2000)))
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)
    assert {f: Path("out", f).read_bytes() for f in FILES} == older
    assert left_behind() == FILES


def test_interrupted_while_files_are_moved_in(older: dict[str, bytes]) -> None:
    """The move is short and goes to its end: all files are the new ones."""
    done = wrapped("at_move(stop)", ndjson(records()))
    assert done.returncode == 130
    assert left_behind() == FILES
    assert Path("out/run.json").read_bytes() != older["run.json"]
    assert sorted(pq.read_table("out/accounts.parquet")["account_id"].to_pylist()) == ["a0", "a1", "a2", "a3"]


def test_interrupted_into_a_new_folder_leaves_nothing() -> None:
    done = wrapped("at_page(stop)", ndjson(records()))
    assert done.returncode == 130
    assert left_behind() == []


def test_disk_full_while_writing(older: dict[str, bytes]) -> None:
    done = wrapped('at_stage("write", full)', ndjson(records(200)))
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("stillwatch: ")
    assert "File too large" in done.stderr
    assert "hint: no half-written result is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert {f: Path("out", f).read_bytes() for f in FILES} == older
    assert left_behind() == FILES


def test_disk_full_while_working() -> None:
    done = wrapped('at_stage("fold", full)', ndjson(records(2000)))
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert left_behind() == []


def test_no_temporary_files_are_left(monkeypatch: pytest.MonkeyPatch, scan: Scan) -> None:
    Path("tmp").mkdir()
    log = ndjson(records(200))
    program = f"{WRAPPED}\nat_stage('judge', stop)\nsys.exit(cli.main(['scan', {log!r}, '--out', 'out']))"
    environment = os.environ | {"TMPDIR": str(Path("tmp").absolute())}
    subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert list(Path("tmp").iterdir()) == []


# The other verbs


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    log = ndjson([*records(), record(50, colour="red", prompt="x\0y"), "broken"])
    assert cli.main(["inspect", log]) == 0
    text = capsys.readouterr().out
    assert text.startswith("42 rows read, 41 can be judged; format: ndjson (1 file)\n")
    assert "blind: shared_payment (no accounts.payment_hash in the log)" in text
    assert "fields that no column takes: colour (1)" in text
    assert "log.ndjson:42: broken JSON (1 row)" in text
    assert "prompt: NUL bytes in text, replaced (1 row)" in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith(("prompt ", "ip "))] == [
        ["ip", "-", "absent"], ["prompt", "41", "100.0%"],
    ]  # fmt: skip


def test_inspect_as_json_and_its_faults(capsys: pytest.CaptureFixture[str]) -> None:
    log = ndjson(records())
    Path("accounts.csv").write_text("account_id,created_at,payment_hash\na0,2025-01-01,p\n")
    assert cli.main(["inspect", log, "--accounts", "accounts.csv", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["rows_kept"], card["formats"], card["coverage"]["prompt"]) == (40, {"ndjson": 1}, 1.0)
    assert "shared_payment" not in card["blind"]
    assert "shared_address" in card["blind"]
    assert cli.main(["inspect", "gone"]) == 3
    assert cli.main(["inspect", "--adapters"]) == 0
    assert "litellm " in capsys.readouterr().out


def test_simulate_plants_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--accounts", "600", "--exchanges", "6000", "--quiet"]
    planted = ["--campaign", "small_ring", "--campaign", "tagged_traces:30:0.7,wording=paraphrased"]
    assert cli.main(["simulate", "--out", "w", *settings, *planted]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "small_ring             14 accounts" in out
    assert "tagged_traces          30 accounts" in out
    assert left_behind("w") == [
        "accounts.parquet", "exchanges", "models.csv", "truth.parquet", "truth_exchanges.parquet", "world.json",
    ]  # fmt: skip
    assert cli.main(["simulate", "--out", "q", *settings, "--look-alikes-only"]) == 0
    assert json.loads(Path("q/world.json").read_text())["campaigns"] == []
    shutil.rmtree("w")
