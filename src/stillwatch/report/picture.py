"""A picture of a cluster: its accounts and the values that many of them share, from a layout made earlier.

Shape tells the kind, so that it reads without colour; values carry their names where there is room. Of a large cluster
only the heaviest values and accounts are drawn, and the caption says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from stillwatch.report.charts import svg, trim
from stillwatch.report.words import visible
from stillwatch.types import Campaign, Node

WIDTH, HEIGHT, PAD_X, PAD_Y = 720.0, 400.0, 70.0, 28.0
ACCOUNT = "account"


def _turned(radius: float, part: float) -> tuple[float, float]:
    """A corner at ``part`` of a whole turn from the top."""
    return radius * math.sin(2 * math.pi * part), -radius * math.cos(2 * math.pi * part)


SHAPES = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    "triangle": ((0, -1.3), (1.25, 0.95), (-1.25, 0.95)),
    "hexagon": tuple(_turned(1.15, (a + 0.5) / 6) for a in range(6)),
    "wedge": ((0, 1.3), (1.25, -0.95), (-1.25, -0.95)),
    "bar": ((-1.5, -0.6), (1.5, -0.6), (1.5, 0.6), (-1.5, 0.6)),
    "hourglass": ((-1.1, -1.1), (1.1, -1.1), (-1.1, 1.1), (1.1, 1.1)),
    "post": ((-0.6, -1.5), (0.6, -1.5), (0.6, 1.5), (-0.6, 1.5)),
    "star": tuple(_turned(1.45 if a % 2 == 0 else 0.6, a / 10) for a in range(10)),
    "pentagon": tuple(_turned(1.25, a / 5) for a in range(5)),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """The nodes that are drawn, the edges between them, and the shape and number of each kind."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    shapes: dict[str, str]
    left_out: int


def drawn(campaign: Campaign, nodes: int = 180, edges: int = 500) -> Drawn:
    """What of a cluster's picture fits: values first, at most a third of the room, then accounts; heaviest first."""
    order = sorted(range(len(campaign.nodes)), key=lambda i: -campaign.nodes[i].weight)
    values = [i for i in order if campaign.nodes[i].kind != ACCOUNT][: nodes // 3]
    accounts = [i for i in order if campaign.nodes[i].kind == ACCOUNT][: nodes - len(values)]
    kept = {old: new for new, old in enumerate(accounts + values)}
    joined = [(kept[a], kept[b]) for a, b in campaign.edges if a in kept and b in kept]
    kinds = sorted({campaign.nodes[i].kind for i in values})
    shapes = {kind: list(SHAPES)[n % len(SHAPES)] for n, kind in enumerate(kinds)}
    if accounts:
        shapes = {ACCOUNT: "circle", **shapes}
    thinned = joined[:: max(1, math.ceil(len(joined) / edges))]
    return Drawn(tuple(campaign.nodes[i] for i in kept), tuple(thinned), shapes, len(campaign.nodes) - len(kept))


def cluster(campaign: Campaign, shown: Drawn) -> Markup:
    """The picture itself."""
    if not shown.nodes:
        return Markup("")
    at = [_place(n) for n in shown.nodes]
    lines = "".join(f"M{at[a][0]} {at[a][1]}L{at[b][0]} {at[b][1]}" for a, b in shown.edges)
    heaviest = max((n.weight for n in shown.nodes if n.kind != ACCOUNT), default=1.0) or 1.0
    body = [f'<path class="edge" d="{lines}"/>'] if lines else []
    dots = "".join(f"M{x} {y}h0" for n, (x, y) in zip(shown.nodes, at) if n.kind == ACCOUNT)
    body += [f'<path class="acc" d="{dots}"/>'] if dots else []
    body += [_mark(n, p, shown.shapes, heaviest) for n, p in zip(shown.nodes, at) if n.kind != ACCOUNT]
    body += _labels(shown.nodes, at, heaviest)
    return svg(WIDTH, HEIGHT, body, label=_said(campaign, shown), css="cluster")


def key_mark(kind: str, shapes: dict[str, str]) -> Markup:
    """The shape of a kind, for the legend."""
    node = Node(kind, kind, kind, 1.0, 0.0, 0.0)
    return Markup(f'<svg class="key" viewBox="-9 -9 18 18" aria-hidden="true">{_mark(node, (0, 0), shapes, 4.0)}</svg>')


def _place(node: Node) -> tuple[int, int]:
    x, y = (min(max(v, 0.0), 1.0) for v in (node.x, node.y))
    return round(PAD_X + x * (WIDTH - 2 * PAD_X)), round(PAD_Y + y * (HEIGHT - 2 * PAD_Y))


def _radius(node: Node, heaviest: float) -> float:
    return 3.0 if node.kind == ACCOUNT else 4.5 + 5.0 * math.sqrt(max(node.weight, 0.0) / heaviest)


def _mark(node: Node, at: tuple[float, float], shapes: dict[str, str], heaviest: float) -> str:
    r = _radius(node, heaviest)
    if node.kind == ACCOUNT:
        return f'<path class="acc" d="M{trim(at[0])} {trim(at[1])}h0"/>'
    corners = " ".join(f"{trim(at[0] + r * x)},{trim(at[1] + r * y)}" for x, y in SHAPES[shapes[node.kind]])
    css = f"val v{list(shapes).index(node.kind) % 7}"
    return f'<polygon class="{css}" points="{corners}"/>'


def _labels(nodes: Sequence[Node], at: Sequence[tuple[int, int]], heaviest: float) -> list[str]:
    """Names of values, heaviest first, right of their mark or left of it, left out where they would lie on another."""
    taken = [
        (x - r, y - r, x + r, y + r)
        for n, (x, y) in zip(nodes, at)
        if n.kind != ACCOUNT
        for r in [_radius(n, heaviest)]
    ]
    out = []
    named = [i for i, n in enumerate(nodes) if n.kind != ACCOUNT or len(nodes) <= 14]
    for i in sorted(named, key=lambda i: -nodes[i].weight):
        words = visible(nodes[i].label, 30)
        wide, (x, y), r = 6.1 * len(words), at[i], _radius(nodes[i], heaviest) + 5
        for left, css in ((x + r, "name"), (x - r - wide, "name end")):
            box = (left, y - 6, left + wide, y + 6)
            if left >= 2 and left + wide <= WIDTH - 2 and not any(_overlap(box, t) for t in taken):
                taken.append(box)
                anchor = left if css == "name" else left + wide
                out.append(f'<text class="{css}" x="{trim(anchor)}" y="{trim(y + 4)}">{escape(words)}</text>')
                break
    return out


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _said(campaign: Campaign, shown: Drawn) -> str:
    kinds = ", ".join(f"{sum(n.kind == k for n in shown.nodes)} of kind {visible(k)}" for k in shown.shapes)
    return f"Picture of cluster {visible(campaign.campaign_id)}: {kinds}, joined by {len(shown.edges)} lines."
