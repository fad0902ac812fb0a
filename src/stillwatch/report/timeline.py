"""Traffic of a campaign over its days: bars for exchanges, a line for active accounts, and the same in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from markupsafe import Markup, escape

from stillwatch.report.charts import rect, svg, text, trim
from stillwatch.report.words import count, counted
from stillwatch.types import Campaign, Day


@dataclass(frozen=True, slots=True)
class Frame:
    """Where bars stand: left end, head and foot of the scale, width for each bar, and the value at the head."""

    left: float
    head: float
    foot: float
    wide: float
    top: float

    @property
    def gap(self) -> float:
        return min(self.wide * 0.18, 4.0)

    def height(self, value: float) -> float:
        """The height on the page at which ``value`` lies."""
        return self.foot - (self.foot - self.head) * value / self.top


def filled(days: Sequence[Day]) -> list[Day]:
    """The days in order, with quiet days between them put in."""
    if not days:
        return []
    known = {d.day: d for d in days}
    first, last = (date.fromisoformat(f(known)[:10]) for f in (min, max))
    names = ((first + timedelta(days=i)).isoformat() for i in range((last - first).days + 1))
    return [known.get(name) or Day(name, 0, 0, 0) for name in names]


def binned(days: Sequence[Day], bars: int) -> list[Day]:
    """At most ``bars`` bins of equally many days: exchanges add up, accounts are the most active on one day."""
    whole = filled(days)
    step_days = max(1, math.ceil(len(whole) / bars))
    groups = [whole[i : i + step_days] for i in range(0, len(whole), step_days)]
    return [
        Day(g[0].day, sum(d.exchanges for d in g), sum(d.distillation for d in g), max(d.accounts for d in g))
        for g in groups
    ]


def day_bars(bins: Sequence[Day], frame: Frame) -> list[str]:
    """A bar for each bin: distillation solid at the foot, other traffic hatched above it. Drawn as two thick lines,
    half the size of as many rectangles."""
    solid, hatched = [], []
    for i, d in enumerate(bins):
        x, mid = trim(frame.left + (i + 0.5) * frame.wide), trim(frame.height(d.distillation))
        solid += [f"M{x} {trim(frame.foot)}V{mid}"] if d.distillation else []
        hatched += [f"M{x} {mid}V{trim(frame.height(d.exchanges))}"] if d.exchanges > d.distillation else []
    wide = trim(frame.wide - frame.gap)
    lines = (("solid", solid), ("hatched", hatched))
    return [f'<path class="{css}" stroke-width="{wide}" d="{"".join(path)}"/>' for css, path in lines if path]


def spark(campaign: Campaign) -> Markup:
    """The days of a campaign as a row of bars, small enough for a table."""
    bins = binned(campaign.days, 44)
    frame = Frame(0, 2, 28, 132 / max(len(bins), 14), max((d.exchanges for d in bins), default=1) or 1)
    body = [rect(0, 28, 132, 0.8, "axis"), *day_bars(bins, frame)]
    return svg(132, 30, body, label=f"Exchanges a day, {len(campaign.days)} days; told in full below", css="spark")


def told(campaign: Campaign) -> str:
    """The timeline in a sentence."""
    if not campaign.days:
        return "No days recorded."
    peak = max(campaign.days, key=lambda d: d.exchanges)
    return (
        f"{counted(len(campaign.days), 'active day')}, {campaign.days[0].day} to {campaign.days[-1].day}; busiest "
        f"{peak.day} with {counted(peak.exchanges, 'exchange')}, {count(peak.distillation)} of them distillation, "
        f"from {counted(peak.accounts, 'account')}."
    )


def round_top(value: float) -> float:
    """The next round number at or above ``value``."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= value)


WIDTH, HEIGHT, LEFT, RIGHT = 720.0, 210.0, 46.0, 40.0


def chart(campaign: Campaign, bars: int = 92, *, hover: bool = True) -> Markup:
    """Exchanges a day as bars (distillation solid, the rest hatched) and active accounts as a line on its own scale."""
    bins = binned(campaign.days, bars)
    if not bins:
        return Markup("")
    wide = (WIDTH - LEFT - RIGHT) / max(len(bins), 7)
    traffic = Frame(LEFT, 10, 184, wide, round_top(max(d.exchanges for d in bins)))
    active = Frame(LEFT, 10, 184, wide, round_top(max(d.accounts for d in bins)))
    points = " ".join(f"{trim(LEFT + (i + 0.5) * wide)},{trim(active.height(d.accounts))}" for i, d in enumerate(bins))
    body = [*_scales(traffic, active), *day_bars(bins, traffic), f'<polyline class="line" points="{points}"/>']
    every = max(1, math.ceil(len(bins) / 7))
    for i, d in list(enumerate(bins))[::every]:
        body.append(text(LEFT + (i + 0.5) * wide, traffic.foot + 17, d.day[5:] if i else d.day, "tick mid"))
    if hover:
        body += [_hover(d, LEFT + i * wide, wide) for i, d in enumerate(bins)]
    return svg(
        WIDTH, HEIGHT, body, label="Exchanges and active accounts over time, told in the caption", css="timeline"
    )


def _scales(traffic: Frame, active: Frame) -> list[str]:
    body = []
    for part in (0.0, 0.5, 1.0):
        y = traffic.height(part * traffic.top)
        body.append(f'<path class="grid" d="M{trim(LEFT)} {trim(y)}H{trim(WIDTH - RIGHT)}"/>')
        for frame, x, css in ((traffic, LEFT - 6, "tick end"), (active, WIDTH - RIGHT + 6, "tick line-tick")):
            if (part * frame.top).is_integer():
                body.append(text(x, y + 4, short(part * frame.top), css))
    return body


def _hover(day: Day, x: float, wide: float) -> str:
    """An unseen column over the whole height that tells a day's numbers under the pointer."""
    traffic = f"{count(day.exchanges)} exchanges, {count(day.distillation)} distillation"
    said = escape(f"{day.day}: {traffic}, {count(day.accounts)} accounts")
    return f'<rect class="over" x="{trim(x)}" y="10" width="{trim(wide)}" height="174"><title>{said}</title></rect>'


def short(number: float) -> str:
    """A number for an axis: ``0``, ``250``, ``2.5k``, ``4M``."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{name}"
    return f"{number:g}"
