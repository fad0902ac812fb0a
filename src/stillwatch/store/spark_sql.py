"""A step's text as Spark reads it: the one place that knows Spark's SQL.

The text is parsed as the embedded engine's dialect, what would mean something else on Spark is rewritten in the tree,
and parameters enter it as typed literals. Each rewrite has its line in the tests, where both engines must agree on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlglot
from sqlglot import exp

from stillwatch.store.engine import Params, Value


def translate(sql: str, params: Params) -> str:
    """The SELECT in Spark's dialect, its ``$name`` filled in. KeyError where one has no value."""
    tree = sqlglot.parse_one(sql, read="duckdb")
    for node in reversed(list(tree.walk())):  # leaves first: what is rewritten keeps what was rewritten inside it
        if isinstance(node, exp.Placeholder):
            node.replace(_literal(params[node.name]))
        elif type(node) in _REWRITES:
            node.replace(_REWRITES[type(node)](node))
    return str(tree.sql(dialect="spark", identify=True))


def _literal(value: Value) -> Any:
    """A parameter as a literal of its type; nothing a value holds can become SQL."""
    if isinstance(value, datetime):
        text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return exp.cast(exp.Literal.string(text), "timestamptz")
    if isinstance(value, float):
        return _double(repr(value))
    return exp.convert(value)


def _double(text: str) -> Any:
    return exp.cast(exp.Literal.string(text), "double")


def _number(node: Any) -> Any:
    """Numbers with places are doubles: Spark's decimals lose digits when divided, the embedded engine's do not."""
    return node.copy() if node.is_string or node.name.isdigit() else _double(node.name)


def _function(node: Any) -> Any:
    return exp.func("unix_micros", *node.expressions) if node.name.lower() == "epoch_us" else node.copy()


def _epoch(node: Any) -> Any:
    """Seconds with their fraction; whole ones, as Spark counts, have made a join find nothing."""
    return exp.Paren(this=exp.Div(this=exp.func("unix_micros", node.this), expression=_double("1e6")))


def _difference(node: Any) -> Any:
    """The borders of a unit that are crossed, not the whole units that have passed."""
    start, end = (
        exp.TimestampTrunc(this=node.args[side], unit=node.args["unit"].copy()) for side in ("expression", "this")
    )
    return exp.DateDiff(this=end, expression=start, unit=node.args["unit"])


def _iso_weekday(time: Any) -> Any:
    return exp.Extract(this=exp.var("DOW_ISO"), expression=time)


def _weekday(time: Any) -> Any:
    """From Sunday = 0, not 1."""
    return exp.Paren(this=exp.Mod(this=_iso_weekday(time), expression=exp.Literal.number(7)))


def _extract(node: Any) -> Any:
    days = {"ISODOW": _iso_weekday, "DOW": _weekday, "DAYOFWEEK": _weekday}
    part = node.name.upper()
    return days[part](node.expression) if part in days else node.copy()


def _concat(node: Any) -> Any:
    """A null is no text, whatever its type."""
    return exp.Concat(**{**node.args, "expressions": [exp.cast(part, "text") for part in node.expressions]})


def _value_at(node: Any) -> Any:
    """Of the rows that have a value, the one at the extreme."""
    has_value = exp.Not(this=exp.Is(this=node.this.copy(), expression=exp.Null()))
    return type(node)(this=node.this, expression=exp.Case(ifs=[exp.If(this=has_value, true=node.expression)]))


def _quantile(node: Any) -> Any:
    return exp.Anonymous(this="percentile", expressions=[node.this, node.expression])


_REWRITES: Mapping[type, Callable[[Any], Any]] = {
    exp.Literal: _number,
    exp.Anonymous: _function,
    exp.TimeToUnix: _epoch,
    exp.DateDiff: _difference,
    exp.Extract: _extract,
    exp.DayOfWeek: lambda node: _weekday(node.this),
    exp.DayOfWeekIso: lambda node: _iso_weekday(node.this),
    exp.Concat: _concat,
    exp.PercentileCont: _quantile,
    exp.ArgMax: _value_at,
    exp.ArgMin: _value_at,
}
