"""Progress: quiet where it should be, short in a log, exact about time."""

import io
import time

import pytest

from stillwatch.progress import Progress, Timing, peak_memory_bytes, rows_text, seconds_text


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_ten_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock=clock) as progress:
        progress.stage("read", total=3_000_000)
        for _ in range(25):
            clock.now += 1.0
            progress.advance(50_000)
    assert stream.getvalue().splitlines() == [
        "read: 500 k of 3 M rows, 50 k rows/s, 50 s left",
        "read: 1 M of 3 M rows, 50 k rows/s, 40 s left",
    ]


def test_quiet_says_nothing_but_keeps_time() -> None:
    clock, stream = Clock(), Terminal()
    with Progress(stream, quiet=True, clock=clock) as progress:
        progress.stage("read")
        clock.now += 60
        progress.advance(10)
        progress.note("hello")
    assert stream.getvalue() == ""
    assert progress.timings["read"].wall_s == 60


def test_stages_end_with_the_next_with_their_block_or_with_an_error() -> None:
    clock = Clock()
    with pytest.raises(RuntimeError), Progress(io.StringIO(), clock=clock) as progress:
        progress.stage("read")
        clock.now += 2
        with progress.stage("fold") as inner:
            assert inner is progress
            clock.now += 3
        clock.now += 50
        progress.stage("read")
        clock.now += 4
        raise RuntimeError
    assert {name: t.wall_s for name, t in progress.timings.items()} == {"read": 6, "fold": 3}


def test_processor_time_is_counted() -> None:
    with Progress(quiet=True) as progress:
        progress.stage("spin")
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        progress.stage("sleep")
        time.sleep(0.05)
    assert progress.timings["spin"].cpu_s >= 0.05
    assert progress.timings["sleep"].cpu_s < 0.05 <= progress.timings["sleep"].wall_s


def test_a_terminal_gets_one_live_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Progress(stream) as progress:
        progress.stage("[bold]read", total=1000)
        progress.advance(500)
        assert progress._live is not None
        progress._live.refresh()
        progress.note("a [note]")
    text = stream.getvalue()
    assert "[bold]read" in text and "500 of 1 k rows" in text and "a [note]" in text
    assert progress._live is None


def test_notes_are_shown_at_once() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.note("ja4 is in no row")
    assert stream.getvalue() == "ja4 is in no row\n"


def test_timings_add_up() -> None:
    assert Timing(1, 2) + Timing(3, 4) == Timing(4, 6)
    assert peak_memory_bytes() > 10_000_000


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (rows_text(0), "0"), (rows_text(950), "950"), (rows_text(12_345), "12.3 k"), (rows_text(999_999), "1000 k"),
        (rows_text(4_071_000), "4.07 M"),
        (seconds_text(48.4), "48 s"), (seconds_text(200), "3 min 20 s"), (seconds_text(7500), "2 h 5 min"),
    ],
)  # fmt: skip
def test_short_forms(shown: str, expected: str) -> None:
    assert shown == expected
