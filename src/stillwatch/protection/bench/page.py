"""The bench as a page for people: what was asked and what it got, tables, and power against share as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from stillwatch.protection.bench.parts import DAMAGE, PARTS, found_in, present, rows_of, tables_of
from stillwatch.protection.bench.rows import Found, Over, Row, Table
from stillwatch.protection.registration import THRESHOLD

PAGE, PICTURE = "bench.md", "power.svg"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 372, 64, 150, 32, 44
LEAST, MOST = 0.1, 1000.0
"""Of -log10 p, on the picture."""
LINES = (("open", "open weights", "#1f5fa8"), ("closed", "its text", "#b5541c"))


def write(out: Path, size: str) -> Path:
    """Write the page, and its picture where there are experiments, from what the folder holds; gives the page's path."""
    parts = list(present(out, size))
    sections = [_head(size)]
    for name in parts:
        found, cpu_s = found_in(out, name, size)
        sections.append(_section(name, size, found, cpu_s))
        if name == "experiments":
            (out / PICTURE).write_text(picture(found), encoding="utf-8")
    other = out / f"{DAMAGE}.md"
    if other.exists():
        sections.append(other.read_text(encoding="utf-8").replace("\n## ", "\n### ").replace("# ", "## ", 1))
    path = out / PAGE
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _head(size: str) -> str:
    what = (
        "what CI runs: models too small to say how well it works, large enough to say that it does"
        if size == "small"
        else "all"
    )
    return f"""# What it is worth: the bench

Made by `stillwatch bench protect --size {size}` ({what}). Small models, trained on the spot on docstrings; p is over the
random key. Figures with an interval: the mean over seeds and Student's 95 % interval from three seeds on, else least to
largest. What is asked was stated before, and is asked of the worst seed. log10 p below -50 means "below 1e-50", and no more."""


def _section(name: str, size: str, found: Sequence[Found], cpu_s: float) -> str:
    seeds = f"{len(found)} seed{'s' if len(found) != 1 else ''}, {cpu_s / 60:.1f} processor minutes each"
    blocks = [f"## {name.capitalize()}: {PARTS[name].meaning}", seeds, _asked(rows_of(name, size, found))]
    if name == "experiments":
        blocks.append(f"![Power against the share of watermarked answers]({PICTURE})")
    for table in tables_of(name, found):
        blocks.append(f"### {table.title}\n\n{grid(table)}")
    return "\n\n".join(blocks)


def _asked(rows: Sequence[Row]) -> str:
    lines = tuple((r.number, r.meaning, r.asked, r.got, "yes" if r.holds else "**no**") for r in rows)
    return grid(Table("", ("", "what", "asked", "got", "holds"), lines))


def grid(table: Table) -> str:
    """A table in Markdown, with its note below."""
    head = f"| {' | '.join(table.head)} |\n|{'---|' * len(table.head)}"
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in table.lines)
    return "\n".join(filter(None, (head, body))) + (f"\n\n{table.note}" if table.note else "")


def picture(found: Sequence[Found]) -> str:
    """-log10 p against the share of watermarked answers, both logarithmic, as SVG: means, and bars from least to largest."""
    shares = sorted(p["share"] for p in found[0]["power"])
    body = [*_axes(shares), *(part for line in LINES for part in _line(found, shares, *line))]
    label = "Minus log10 p against the share of watermarked answers, for open weights and for text"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _x(share: float, shares: Sequence[float]) -> float:
    low, high = math.log10(shares[0]), math.log10(shares[-1])
    return LEFT + (math.log10(share) - low) / max(high - low, 1e-9) * (WIDTH - LEFT - RIGHT)


def _y(bits: float) -> float:
    """The height of a -log10 p."""
    at = math.log10(min(max(bits, LEAST), MOST))
    low, high = math.log10(LEAST), math.log10(MOST)
    return HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _axes(shares: Sequence[float]) -> Iterator[str]:
    right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in (0.1, 1, 10, 100, 1000):
        y = _y(tick)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for share in shares:
        x = _x(share, shares)
        yield f'<path d="M{x:.1f} {foot}v5" stroke="#333333"/>'
        yield f'<text x="{x:.1f}" y="{foot + 18}" text-anchor="middle">{share:.0%}</text>'
    limit = _y(-math.log10(THRESHOLD))
    yield f'<path d="M{LEFT} {limit:.1f}H{right}" stroke="#333333" stroke-dasharray="5 4"/>'
    yield f'<text x="{right + 6}" y="{limit + 4:.1f}">threshold, one key</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 8}">share of answers that carried the watermark</text>'
    yield f'<text x="{LEFT - 50}" y="{TOP - 18}">-log10 p</text>'


def _line(found: Sequence[Found], shares: Sequence[float], how: str, name: str, colour: str) -> Iterator[str]:
    points = []
    for share in shares:
        over = Over.of([-p[how]["log10_p"] for f in found for p in f["power"] if p["share"] == share])
        x = _x(share, shares)
        points.append((x, _y(over.mean)))
        yield f'<path d="M{x:.1f} {_y(over.least):.1f}V{_y(over.largest):.1f}" stroke="{colour}"/>'
        yield f'<circle cx="{x:.1f}" cy="{_y(over.mean):.1f}" r="3.5" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    yield f'<text x="{points[-1][0] + 8:.1f}" y="{points[-1][1] + 4:.1f}" fill="{colour}">{escape(name)}</text>'
