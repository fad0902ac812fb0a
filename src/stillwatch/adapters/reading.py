"""Which adapters read a log: the user's own maps first, then formats with a mark, then the canonical ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from stillwatch.adapters.fieldmap import map_adapter
from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.files import listed
from stillwatch.adapters.intake.report import Limits
from stillwatch.adapters.intake.source import Source
from stillwatch.errors import UsageError
from stillwatch.plugins import discover


def read_exchanges(
    path: Path,
    *,
    adapter: str | None = None,
    maps: Sequence[Path] = (),
    progress: Callable[[Source], None] | None = None,
    limits: Limits | None = None,
    now: datetime | None = None,
) -> Source:
    """The log at a path: a file, a folder of files in any mix of formats, or ``-`` for standard input.

    ``adapter`` forces one format by name; ``maps`` are field maps (TOML) tried before the built-in formats.
    ``progress`` is called after each batch. ``now`` is what "in the future" is measured by. InputRejected if there is
    nothing to read, UsageError if an adapter or a map is wrong.
    """
    path = Path(path)
    chosen = _chosen(adapter, [map_adapter(Path(m)) for m in maps])
    return Source(path, listed(path), chosen, limits or Limits(), now, progress)


def _chosen(name: str | None, own: list[Adapter]) -> list[Adapter]:
    built_in = sorted(discover("adapters").values(), key=lambda a: (a.general, a.name))
    every = own + [a for a in built_in if a.name not in {o.name for o in own}]
    if name is None:
        return every
    named = [a for a in every if a.name == name]
    if not named:
        raise UsageError(f"no adapter named {name!r}", hint=f"adapters are {', '.join(a.name for a in every)}")
    return named
