from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.errors import UsageError
from stillwatch.windows import Window, lateness, length_text, parse_length, parse_moment

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(moments, st.timedeltas(timedelta(0), timedelta(days=3)), st.timedeltas(timedelta(minutes=7), timedelta(days=1)))
def test_split_covers_every_moment_exactly_once(start: datetime, length: timedelta, step: timedelta) -> None:
    whole = Window(start, start + length)
    parts = list(whole.split(step))
    assert sum((p.length for p in parts), timedelta(0)) == whole.length
    assert all(a.end == b.start for a, b in pairwise(parts))
    if parts:
        assert (parts[0].start, parts[-1].end) == (whole.start, whole.end)
        middle = parts[len(parts) // 2]
        assert [w for w in parts if w.contains(middle.start)] == [middle]


def test_split_cuts_at_full_hours_wherever_it_starts() -> None:
    parts = list(Window(NOON + timedelta(minutes=50), NOON + timedelta(hours=2, minutes=10)).split(timedelta(hours=1)))
    assert [p.start.minute for p in parts] == [50, 0, 0]
    assert [p.end.minute for p in parts] == [0, 0, 10]


def test_the_end_is_outside_and_other_zones_are_the_same_time() -> None:
    tokyo = timezone(timedelta(hours=9))
    window = Window(NOON.astimezone(tokyo), NOON + timedelta(hours=1))
    assert window == Window(NOON, NOON + timedelta(hours=1))
    assert window.contains(NOON) and not window.contains(window.end)
    assert not Window(NOON, NOON).contains(NOON)


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Window(datetime(2026, 3, 1), NOON)
    with pytest.raises(ValueError, match="before it starts"):
        Window(NOON, NOON - timedelta(seconds=1))
    with pytest.raises(ValueError, match="cannot be split"):
        list(Window(NOON, NOON + timedelta(hours=1)).split(timedelta(0)))


def test_an_early_arrival_is_not_late() -> None:
    assert lateness(NOON, NOON + timedelta(seconds=3)) == timedelta(seconds=3)
    assert lateness(NOON, NOON - timedelta(seconds=3)) == timedelta(0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600), ("30m", 1800), ("90s", 90), ("2d", 172_800), (" 1.5 H ", 5400), ("1s", 1), ("366d", 366 * 86_400)],
)
def test_a_length_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_length(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "h", "1", "1w", "-1h", "0h", "0.5s", "367d", "1h30m", "1e3s", "nan s", "٣٤ years"]
)
def test_what_is_no_length_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_length(text)
    assert repr(text) in str(refused.value)
    assert refused.value.hint


@given(st.integers(1, 366 * 86_400))
def test_a_length_reads_as_it_is_written(seconds: int) -> None:
    length = timedelta(seconds=seconds)
    assert parse_length(length_text(length)) == length


def test_a_length_is_written_in_its_largest_unit() -> None:
    texts = {"1h": 3600, "90m": 5400, "7d": 7 * 86_400, "61s": 61, "1.500000s": 1.5}
    assert [length_text(timedelta(seconds=s)) for s in texts.values()] == list(texts)


def test_a_moment_is_in_utc_unless_it_says_otherwise() -> None:
    assert parse_moment("2026-03-01T12:00") == parse_moment("2026-03-01T13:00+01:00") == NOON
    assert parse_moment("2026-03-01") == NOON - timedelta(hours=12)
    with pytest.raises(UsageError, match="no time"):
        parse_moment("noon")
