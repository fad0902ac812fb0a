"""Bars as inline SVG or plain HTML: no script, readable without colour, with words for those who cannot see them."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

from stillwatch.report.words import bits_text
from stillwatch.types import FAMILIES, Campaign


def svg(width: float, height: float, body: Iterable[str], *, label: str, css: str) -> Markup:
    """An SVG image that scales with its box; ``label`` says in words what it shows. ``body`` is markup already."""
    return Markup(
        f'<svg class="{css}" viewBox="0 0 {trim(width)} {trim(height)}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def trim(number: float) -> str:
    """A coordinate in as few characters as a tenth of a unit needs."""
    return f"{number:.1f}".removesuffix(".0")


def rect(x: float, y: float, width: float, height: float, css: str) -> str:
    """A rectangle; nothing where it would have no area."""
    if width <= 0.05 or height <= 0.05:
        return ""
    return f'<rect class="{css}" x="{trim(x)}" y="{trim(y)}" width="{trim(width)}" height="{trim(height)}"/>'


def text(x: float, y: float, words: str, css: str) -> str:
    """A line of text, escaped."""
    return f'<text class="{css}" x="{trim(x)}" y="{trim(y)}">{escape(words)}</text>'


def bar(part: float) -> Markup:
    """A share of one as a bar; the number stands beside it, so it is hidden from screen readers."""
    width = 100 * min(max(part, 0.0), 1.0)
    return Markup(f'<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></span>')


def step(start: float, bits: float, total: float) -> Markup:
    """A bar of the waterfall, from ``start`` for ``bits`` on a scale up to ``total``."""
    scale = 100 / max(total, 1e-9)
    left, width = max(0.0, start * scale), max(0.3, abs(bits) * scale)
    return Markup(
        f'<span class="bar step" aria-hidden="true"><i style="margin-left:{left:.1f}%;width:{width:.1f}%"></i></span>'
    )


def columns(bars: Iterable[tuple[float, float, float, float]], css: str) -> str:
    """Upright bars ``(x, y, width, height)`` as one path, which is a third of the size of as many rectangles."""
    path = "".join(
        f"M{trim(x)} {trim(y)}h{trim(w)}v{trim(h)}H{trim(x)}" for x, y, w, h in bars if w > 0.05 and h > 0.05
    )
    return f'<path class="{css}" d="{path}"/>' if path else ""


def families(campaign: Campaign) -> Markup:
    """Six small columns, one per family of evidence and always in the same order, each as high as its bits."""
    bits = [max(campaign.evidence.get(f, 0.0), 0.0) for f in FAMILIES]
    high = [26 * b / max(16.0, *bits) for b in bits]
    body = [columns(((i * 14 + 1, 28, 10, 0.8) for i in range(len(FAMILIES))), "axis")]
    body.append(columns(((i * 14 + 1, 28 - h, 10, h) for i, h in enumerate(high)), "ink"))
    said = ", ".join(f"{f} {bits_text(b)} bits" for f, b in campaign.evidence.items())
    return svg(84, 29, body, label=f"Evidence by family: {said or 'none'}", css="families")
