"""The tables of ``docs/serving.md``, written from the code: routes, settings, figures, alarms, rights.

python -m stillwatch.serving.page docs/serving.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stillwatch.serving.access import MACHINES, PEOPLE, RIGHTS, Right, Role, meaning
from stillwatch.serving.app import ROUTES
from stillwatch.serving.metrics import ALARMS, METRICS
from stillwatch.serving.settings import MEANINGS, TABLES, Settings, shown

PLACE = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with what stands between ``<!-- name -->`` and ``<!-- end -->`` written anew. KeyError for an unknown name."""
    return PLACE.sub(lambda m: m[1] + "\n" + "\n".join(PARTS[m[2]]()) + "\n\n" + m[3], page)


def routes() -> Iterator[str]:
    """Every route: what it takes beside its body, and who may."""
    for route in ROUTES:
        method = "any" if route.method == "*" else route.method
        takes = [*(f"`{n}`: {t}" for n, t in route.fields.items()), *(f"`?{n}=`: {t}" for n, t in route.query.items())]
        right = f"`{route.right}`" if route.right else f"open: {route.open_because}"
        yield f"| {method} `{route.path.replace(':path', '')}` | {route.summary} | {'; '.join(takes)} | {right} |"


def rights() -> Iterator[str]:
    """Which role may what."""
    roles = (*PEOPLE, *MACHINES)
    for right in Right:
        yield f"| `{right}` | {meaning(right)} | {', '.join(_shortly(right, roles))} |"


def _shortly(right: Right, roles: Sequence[Role]) -> list[str]:
    return [str(role) for role in roles if right in RIGHTS[role]]


def settings() -> Iterator[str]:
    """Settings outside of tables, then those of each table."""
    usual = Settings()
    yield from _settings("", MEANINGS.items(), usual)
    for table, keys in TABLES.items():
        yield from _settings(f"[{table}] ", keys.items(), getattr(usual, table))


def _settings(where: str, keys: Iterable[tuple[str, str]], usual: object) -> Iterator[str]:
    for name, text in keys:
        value = shown(getattr(usual, name))
        yield f"| `{where}{name}` | {text} | {f'`{value}`' if value else ''} |"


def figures() -> Iterator[str]:
    """Every figure of /metrics."""
    for metric in METRICS:
        yield f"| `{metric.name}` | {metric.kind} | {metric.meaning} | {', '.join(f'`{n}`' for n in metric.labels)} |"


def alarms() -> Iterator[str]:
    """Every alarm, and what to do."""
    for name, text in ALARMS.items():
        yield f"| `{name}` | {text} |"


def _grid(head: str, rows: Iterable[str]) -> list[str]:
    return [f"| {head.replace('|', ' | ')} |", "|" + "---|" * (head.count("|") + 1), *rows]


PARTS = {
    "routes": lambda: _grid("route|what for|takes|right", routes()),
    "rights": lambda: _grid("right|to|roles", rights()),
    "settings": lambda: _grid("setting|meaning|default", settings()),
    "figures": lambda: _grid("figure|kind|meaning|labels", figures()),
    "alarms": lambda: _grid("alarm|meaning, and what to do", alarms()),
}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(filled(place.read_text(encoding="utf-8")), encoding="utf-8")
