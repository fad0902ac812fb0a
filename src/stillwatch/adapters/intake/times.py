"""Times of any spelling, as microseconds UTC.

Numbers are epochs whose magnitude gives the unit, value by value: below 1e11 seconds, 1e14 milliseconds, 1e17
microseconds, above that nanoseconds. Text is ISO 8601 with or without a zone (none means UTC), or such a number. A
value that cannot be read comes back as null and is marked as failed; a null is null.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from stillwatch.privacy import spans
from stillwatch.tables import UTC_US

Mask = npt.NDArray[np.bool_]

UNREADABLE = np.iinfo(np.int64).min
LATEST_S = 253_402_300_800.0  # the year 10000: what a datetime can hold
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def to_utc(column: pa.Array) -> tuple[pa.Array, Mask]:
    """The column as timestamps in microseconds UTC, and which of its values could not be read."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _rescaled(column.view(pa.int64()), kind.unit)
    if pa.types.is_date(kind):
        return _rescaled(column.cast(pa.timestamp("ms")).view(pa.int64()), "ms")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _of_epochs(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _built(_parse_all(*spans(column)), column)
    return pa.nulls(len(column), UTC_US), _present(column)


def _rescaled(values: pa.Array, unit: str) -> tuple[pa.Array, Mask]:
    if unit == "us" and not values.null_count:
        return values.view(UTC_US), np.zeros(len(values), bool)
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    per_second = _PER_SECOND[unit]
    fits = np.abs(numbers / per_second) < LATEST_S
    numbers = np.where(fits, numbers, 0)
    us = numbers // 1000 if unit == "ns" else numbers * (10**6 // per_second)
    return _built(np.where(fits, us, UNREADABLE), values)


def _of_epochs(column: pa.Array) -> tuple[pa.Array, Mask]:
    if pa.types.is_integer(column.type) and not pa.types.is_uint64(column.type):
        whole = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return _built(_epochs_to_us(whole), column)
    numbers = column.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
    return _built(_fractions_to_us(numbers), column)


def _epochs_to_us(v: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    size = np.abs(v)
    seconds = np.where(size < 10**11, v, 0) * 10**6
    return np.where(
        size < 10**11, seconds, np.where(size < 10**14, v * 1000, np.where(size < 10**17, v, v // 1000))
    )  # fmt: skip


def _fractions_to_us(v: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    size = np.abs(v)
    readable = np.isfinite(v) & (size < 1e19)
    scaled = np.select([size < 1e11, size < 1e14, size < 1e17], [v * 1e6, v * 1e3, v], v / 1e3)
    return np.where(readable, np.round(np.where(readable, scaled, 0)).astype(np.int64), UNREADABLE)


def _built(us: npt.NDArray[np.int64], source: pa.Array) -> tuple[pa.Array, Mask]:
    present = _present(source)
    failed = (us == UNREADABLE) & present
    return pa.array(us, pa.int64(), mask=failed | ~present).view(UTC_US), failed


def _present(column: pa.Array) -> Mask:
    mask: Mask = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return mask


@njit(cache=True, nogil=True)
def _parse_all(data: Any, starts: Any, ends: Any) -> Any:
    out = np.empty(len(starts), np.int64)
    for i in range(len(starts)):
        out[i] = _parse(data, starts[i], ends[i])
    return out


@njit(cache=True, nogil=True)
def _parse(d: Any, at: Any, end: Any) -> Any:
    """Microseconds UTC of one text, or UNREADABLE."""
    while at < end and d[at] == 32:
        at += 1
    while end > at and d[end - 1] == 32:
        end -= 1
    if end - at >= 10 and d[at + 4] == 45 and d[at + 7] == 45:
        return _parse_iso(d, at, end)
    return _parse_epoch(d, at, end)


@njit(cache=True, nogil=True)
def _digits(d: Any, at: Any, end: Any, count: int) -> Any:
    """``count`` digits as a number, -1 where there are fewer."""
    if at + count > end:
        return -1
    value = 0
    for i in range(at, at + count):
        if d[i] < 48 or d[i] > 57:
            return -1
        value = value * 10 + (d[i] - 48)
    return value


@njit(cache=True, nogil=True)
def _parse_epoch(d: Any, at: Any, end: Any) -> Any:
    if at < end and d[at] == 45:
        # Before 1970: read, so that it is refused for what it is.
        after = _parse_epoch_digits(d, at + 1, end)
        return UNREADABLE if after == UNREADABLE else -after
    return _parse_epoch_digits(d, at, end)


@njit(cache=True, nogil=True)
def _parse_epoch_digits(d: Any, at: Any, end: Any) -> Any:
    whole, digits = 0, 0
    while at < end and 48 <= d[at] <= 57:
        whole = whole * 10 + (d[at] - 48)
        at += 1
        digits += 1
    if digits == 0 or digits > 19 or whole < 0:
        return UNREADABLE
    fraction, scale = 0.0, 0.1
    if at < end and d[at] == 46:
        at += 1
        while at < end and 48 <= d[at] <= 57:
            fraction += (d[at] - 48) * scale
            scale /= 10
            at += 1
    if at != end:
        return UNREADABLE
    if whole < 10**11:
        return whole * 1_000_000 + np.int64(np.round(fraction * 1e6))
    if whole < 10**14:
        return whole * 1000 + np.int64(np.round(fraction * 1e3))
    return whole if whole < 10**17 else whole // 1000


@njit(cache=True, nogil=True)
def _parse_iso(d: Any, at: Any, end: Any) -> Any:
    year, month, day = _digits(d, at, end, 4), _digits(d, at + 5, end, 2), _digits(d, at + 8, end, 2)
    if year < 1 or month < 1 or month > 12 or day < 1 or day > _days_in(year, month):
        return UNREADABLE
    us = _days_from_epoch(year, month, day) * 86_400_000_000
    at += 10
    if at == end:
        return us
    if d[at] != 84 and d[at] != 116 and d[at] != 32:
        return UNREADABLE
    hour, minute = _digits(d, at + 1, end, 2), _digits(d, at + 4, end, 2)
    if hour < 0 or hour > 24 or minute < 0 or minute > 59 or d[at + 3] != 58:
        return UNREADABLE
    us += (hour * 3600 + minute * 60) * 1_000_000
    at += 6
    if at < end and d[at] == 58:
        second = _digits(d, at + 1, end, 2)
        if second < 0 or second > 60:
            return UNREADABLE
        us += second * 1_000_000
        at += 3
        if at < end and (d[at] == 46 or d[at] == 44):
            at += 1
            unit = 100_000
            while at < end and 48 <= d[at] <= 57:
                us += (d[at] - 48) * unit
                unit //= 10
                at += 1
    shift = _zone(d, at, end)
    return UNREADABLE if shift == UNREADABLE else us - shift


@njit(cache=True, nogil=True)
def _zone(d: Any, at: Any, end: Any) -> Any:
    """Microseconds east of UTC that the rest of the text says; nothing, Z and UTC are 0."""
    while at < end and d[at] == 32:
        at += 1
    if at == end or (end - at == 1 and (d[at] == 90 or d[at] == 122)):
        return 0
    if end - at == 3 and d[at] == 85 and d[at + 1] == 84 and d[at + 2] == 67:
        return 0
    sign = 1 if d[at] == 43 else -1
    if d[at] != 43 and d[at] != 45:
        return UNREADABLE
    hours, minutes = _digits(d, at + 1, end, 2), 0
    at += 3
    if at < end:
        at += 1 if d[at] == 58 else 0
        minutes = _digits(d, at, end, 2)
        at += 2
    if hours < 0 or hours > 18 or minutes < 0 or minutes > 59 or at != end:
        return UNREADABLE
    return sign * (hours * 3600 + minutes * 60) * 1_000_000


@njit(cache=True, nogil=True)
def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@njit(cache=True, nogil=True)
def _days_from_epoch(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar (Howard Hinnant's days_from_civil)."""
    y = year - 1 if month <= 2 else year
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
