"""What a killed process left behind is taken away; what a living one has is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stillwatch.store import open_engine
from stillwatch.store.scratch import Scratch

HOLD = """
import sys
from pathlib import Path
from stillwatch.store.duckdb import DuckDB
engine = DuckDB(spill=Path(sys.argv[1]))
engine.step("t", "SELECT 1 AS a")
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_engine_and_what_lives_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin and process.stdout.readline() == "ready\n"
        (theirs,) = tmp_path.iterdir()
        (tmp_path / "stillwatch-of-somebody").mkdir()
        with open_engine(spill=tmp_path):
            assert (theirs / "tables.duckdb").exists()
            assert len(list(tmp_path.iterdir())) == 3
        assert {p.name for p in tmp_path.iterdir()} == {theirs.name, "stillwatch-of-somebody"}
        process.kill()
        process.wait(10)
        assert theirs.exists()
    with open_engine(spill=tmp_path) as engine:
        assert not theirs.exists()
        engine.step("t", "SELECT 1 AS a")
    assert [p.name for p in tmp_path.iterdir()] == ["stillwatch-of-somebody"], "nobody's folder of ours is not ours"


def test_a_folder_is_closed_twice_and_gone(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "new")
    (scratch.folder / "spilled").write_text("x")
    scratch.close()
    scratch.close()
    assert list((tmp_path / "new").iterdir()) == []
