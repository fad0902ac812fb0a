"""A real server under load is killed and started again: what it promised it keeps. ``bench/kill.py`` does this for long."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent.parent / "bench"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    spec = importlib.util.spec_from_file_location("bench_kill", BENCH / "kill.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_kill", module)
    spec.loader.exec_module(module)
    return module


def faults_of(kill: ModuleType, folder: Path, *options: str) -> list[str]:
    given = kill.options().parse_args(
        ["--out", str(folder / "out"), "--life", "1", "--held", "12", "--no-clock", *options]
    )
    ledger = kill.run(given)
    assert ledger.acknowledged, "nothing was acknowledged: nothing was tested"
    assert ledger.counts["asked"] > 0
    assert ledger.counts["full disks"] == given.full_disk
    return ledger.faults


@pytest.mark.slow
def test_nothing_promised_is_lost_when_the_server_is_killed(kill: ModuleType, folder: Path) -> None:
    assert faults_of(kill, folder, "--rounds", "3", "--no-full-disk") == []


@pytest.mark.slow
def test_nor_when_its_clock_jumps(kill: ModuleType, folder: Path) -> None:
    if kill.clock_library() is None:
        pytest.skip("needs Debian's faketime")
    given = kill.options().parse_args(
        ["--out", str(folder / "out"), "--life", "1", "--held", "12", "--rounds", "4", "--no-full-disk", "--clock"]
    )
    ledger = kill.run(given)
    assert ledger.counts["clock jumps"] == 1
    assert int(kill.clock_file(given).read_text()) == 0
    assert ledger.faults == []


@pytest.mark.slow
def test_a_full_disk_is_answered_come_again(kill: ModuleType, folder: Path) -> None:
    assert faults_of(kill, folder, "--rounds", "2") == []


def test_the_bench_sees_what_is_lost_kept_twice_or_made_up(kill: ModuleType, folder: Path) -> None:
    from stillwatch.serving.home import Home
    from stillwatch.serving.reception import receive
    from stillwatch.serving.services import privacy_of
    from stillwatch.spool import Spool, fingerprinted

    home = Home(folder / "home").made()
    privacy, _ = privacy_of(home, None)

    def ledger(*acknowledged: int) -> object:
        made = kill.Ledger(held=0, rows=4, began=1.7e9)
        made.acknowledged |= set(acknowledged)
        kill.look_at_spool(home, made)
        return made.faults

    blank = kill.Ledger(held=0, rows=4, began=1.7e9)
    with Spool(home.spool) as spool:
        for number in (0, 1):
            taken = receive(blank.body(number), "application/x-ndjson", "", "exchanges", privacy=privacy)
            spool.put(fingerprinted(taken.batches[0], privacy))
    kill.HASHED.clear()
    assert ledger(0, 1) == []
    assert ledger(0, 1, 2) == ["4 acknowledged exchanges are not in the spool"]
    assert ledger(0) == ["4 exchanges in the spool were sent by nobody"]
    twice = kill.Ledger(held=0, rows=4, began=1.7e9, acknowledged={0, 1})
    kill.look_at_spool(home, twice)
    twice.kept.append(twice.kept[0])
    kill.look_at_spool(home, twice)
    assert "4 exchanges are in the spool twice" in twice.faults
