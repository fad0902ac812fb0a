"""How every page of ours is made: what is put in is escaped, and a name that a template lacks is an error."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment_of(package: str) -> Environment:
    """For the templates that lie in a package of ours; filters are for the caller to add."""
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def tightened(page: str) -> str:
    """The page without empty lines and indents."""
    return re.sub(r"\n\s+", "\n", page)
