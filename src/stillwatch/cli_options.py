"""Options that verbs of every file have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Flag = Annotated[bool, Parameter(negative="", show_default=False)]
JsonFlag = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Paths = Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="", show_default=False)]


def on_a_line(text: str) -> str:
    """The text as JSON writes it, without the quotes: no control character of a name reaches the terminal."""
    return json.dumps(text)[1:-1]
