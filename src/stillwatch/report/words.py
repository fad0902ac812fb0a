"""Numbers and times as people read them, and text of unknown origin made safe to look at."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

CAPABILITY_WORDS = {
    "agentic_coding": "agentic coding",
    "tool_use": "tool use",
    "coding": "coding",
    "data_analysis": "data analysis",
    "computer_use": "computer use",
    "vision": "vision",
    "math_reasoning": "mathematical reasoning",
    "cot_elicitation": "chains of thought",
    "grading": "grading by rubric",
    "sensitive_rewrite": "rewriting of sensitive queries",
    "other": "other",
}

_SCALES = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand"))


def visible(text: str, limit: int = 400) -> str:
    """``text`` with control, format and line-breaking characters written out, cut at ``limit`` characters.

    An account id may hold a terminal escape or a right-to-left override; neither may act on the reader's screen.
    """
    cut = text[:limit]
    shown = "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else f"\\u{ord(c):04x}" for c in cut
    )
    return shown + "…" if len(text) > limit else shown


def count(number: float) -> str:
    """A whole number with separators: ``151,203``."""
    return f"{number:,.0f}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 account``, ``4,012 accounts``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(part: float) -> str:
    """A part of one as a percentage that never claims a false 0 or 100."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "< 0.1%"
    if 99.9 < percent < 100:
        return "> 99.9%"
    return f"{percent:.0f}%" if percent in (0, 100) or 10 <= percent <= 90 else f"{percent:.1f}%"


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):g}"


def q_text(q_value: float) -> str:
    """A false-discovery rate: two digits that count, or a bound where it is next to nothing."""
    if q_value < 1e-6:
        return "< 0.000001"
    if q_value >= 0.1:
        return f"{q_value:.2f}"
    return f"{q_value:.7f}".rstrip("0") if q_value < 1e-4 else _two_digits(q_value)


def bits_text(bits: float) -> str:
    """Bits with one decimal; the minus sign is a real one."""
    return f"{bits:.1f}".replace("-", "−")


def expected_text(expected: float) -> str:
    """How many holders chance would give."""
    if expected < 0.001:
        return "none" if expected <= 0 else "fewer than one in a thousand"
    return _two_digits(expected) if expected < 10 else count(expected)


def odds(bits: float) -> str:
    """Log-odds in bits as odds: ``about 70 thousand to 1``, ``1 to 8``."""
    ratio = 2.0 ** min(abs(bits), 60.0)
    if ratio < 1.5:
        return "even odds"
    if ratio >= 1e12:
        words = "more than a trillion"
    else:
        unit, name = next(((unit, f" {name}") for unit, name in _SCALES if ratio >= unit), (1.0, ""))
        words = f"about {_two_digits(ratio / unit)}{name}"
    return f"{words} to 1" if bits > 0 else f"1 to {words}"


def day(moment: datetime) -> str:
    """The UTC day of a moment."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def minute(moment: datetime) -> str:
    """A moment to the minute, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(first: datetime, last: datetime) -> str:
    """Two moments as days, or as one day."""
    return day(first) if day(first) == day(last) else f"{day(first)} to {day(last)}"


def duration(seconds: float) -> str:
    """A length of time in its two leading units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, lower, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // lower
            return f"{whole // unit} {name} {rest} {small}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def size(octets: int) -> str:
    """An amount of memory."""
    return f"{octets / 1e9:.1f} GB" if octets >= 1e9 else f"{octets / 1e6:.0f} MB"


def capability(name: str) -> str:
    """A capability in words."""
    return CAPABILITY_WORDS.get(name, name.replace("_", " "))
