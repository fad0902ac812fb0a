"""Columns of any type to the canonical type, column by column; a value that does not fit is marked, not guessed.

``cast`` returns the column in the wanted type, null where a value failed, and the mask of those that did.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.adapters.intake.times import to_utc

Mask = npt.NDArray[np.bool_]

EXPECTED = {"string": "text", "bool": "true or false", "list<item: string>": "a list of names"}
_TRUE, _FALSE = ["true", "1", "yes", "t", "on"], ["false", "0", "no", "f", "off"]
_WHOLE = r"^\s*[+-]?\d{1,18}(\.0*)?\s*$"
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*$"


def expected(kind: pa.DataType) -> str:
    """What a value of this type is called in messages."""
    if pa.types.is_timestamp(kind):
        return "a time"
    if pa.types.is_integer(kind):
        return f"a whole number that fits {kind.bit_width} bits"
    return EXPECTED.get(str(kind), "a number" if pa.types.is_floating(kind) else str(kind))


def cast(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    """The column as ``kind`` and which of its values could not be read as such."""
    column = _plain(column)
    if column.type == kind:
        return column, _none(column)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind), _none(column)
    if pa.types.is_string(kind):
        return _to_text(column)
    if pa.types.is_list(kind):
        return _to_names(column)
    return _to_value(_blank_as_null(column), kind)


def _to_value(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    if pa.types.is_timestamp(kind):
        return to_utc(column)
    return _to_bool(column) if pa.types.is_boolean(kind) else _to_number(column, kind)


def _plain(column: pa.Array) -> pa.Array:
    """Without chunks, dictionaries, views, extensions and raw bytes: the text or number itself."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return _unchecked_text(column)
    # Views of text know no cast that keeps broken UTF-8; the checked one is right for whole text.
    return column.cast(pa.large_string()) if str(column.type) in ("string_view", "binary_view") else column


def _unchecked_text(column: pa.Array) -> pa.Array:
    large = pa.types.is_large_binary(column.type)
    return column.view(pa.large_string() if large else pa.string())


def _none(column: pa.Array) -> Mask:
    return np.zeros(len(column), bool)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _numpy(column: pa.Array) -> Any:
    return column.to_numpy(zero_copy_only=False)


def _blank_as_null(column: pa.Array) -> pa.Array:
    """Text that is empty says nothing where a number or a time belongs."""
    if not _is_text(column.type):
        return column
    return pc.if_else(pc.equal(pc.binary_length(column), 0), pa.scalar(None, column.type), column)


def _failed(column: pa.Array, good: pa.Array) -> Mask:
    mask: Mask = _numpy(pc.and_(column.is_valid(), pc.invert(good.fill_null(False))))
    return mask


def _to_text(column: pa.Array) -> tuple[pa.Array, Mask]:
    if pa.types.is_nested(column.type):
        return pa.nulls(len(column), pa.string()), _numpy(column.is_valid())
    if pa.types.is_large_string(column.type):
        # Not `cast`: that would check the UTF-8, which is cleaned later, not refused.
        narrow = column.view(pa.large_binary()).cast(pa.binary())
        return narrow.view(pa.string()), _none(column)
    if pa.types.is_floating(column.type):
        whole = pc.equal(pc.floor(column), column)
        if pc.all(whole).as_py() and (pc.max(pc.abs(column)).as_py() or 0) < 2**53:
            column = column.cast(pa.int64())
    return column.cast(pa.string()), _none(column)


def _to_bool(column: pa.Array) -> tuple[pa.Array, Mask]:
    if _is_text(column.type):
        low = pc.utf8_lower(pc.utf8_trim_whitespace(_ascii(column)))
        true = pc.is_in(low, pa.array(_TRUE, low.type))
        good = pc.or_(true, pc.is_in(low, pa.array(_FALSE, low.type)))
        return pc.if_else(pc.and_(good, column.is_valid()), true, pa.scalar(None, pa.bool_())), _failed(column, good)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return pc.not_equal(column, pa.scalar(0, column.type)), _none(column)
    return pa.nulls(len(column), pa.bool_()), _numpy(column.is_valid())


def _ascii(column: pa.Array) -> pa.Array:
    """Text that Arrow's text functions may read: a value with broken UTF-8 becomes a question mark."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([v if _decodes(v) else "?" for v in column.cast(pa.binary()).to_pylist()], column.type)
    return column


def _decodes(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode() or True)
    except UnicodeDecodeError:
        return False


def _to_number(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    if _is_text(column.type):
        return _text_to_number(_ascii(column), kind)
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int8()).cast(kind), _none(column)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return pa.nulls(len(column), kind), _numpy(column.is_valid())
    return _fitted(column, kind)


def _text_to_number(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    pattern = _NUMBER if pa.types.is_floating(kind) else _WHOLE
    good = pc.match_substring_regex(column, pattern)
    trimmed = pc.ascii_trim_whitespace(pc.if_else(good, column, pa.scalar(None, column.type)))
    numbers, unfit = _fitted(pc.cast(trimmed, pa.float64()), kind)
    return numbers, _failed(column, good) | unfit


def _fitted(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask]:
    if pa.types.is_floating(kind):
        values = column.cast(pa.float64(), safe=False)
        finite = pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
        return finite.cast(kind, safe=False), _none(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    low, high = np.iinfo(kind.to_pandas_dtype()).min, np.iinfo(kind.to_pandas_dtype()).max
    values = column.cast(pa.float64(), safe=False)
    good = pc.and_(
        pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)), pc.equal(values, pc.floor(values))
    )
    fitting = pc.if_else(good, column, pa.scalar(None, column.type))
    return fitting.cast(kind), _failed(column, good)


def _to_names(column: pa.Array) -> tuple[pa.Array, Mask]:
    if _is_text(column.type):
        return _listed_names(column)
    if not _is_list(column.type):
        return pa.nulls(len(column), pa.list_(pa.string())), _numpy(column.is_valid())
    if pa.types.is_struct(column.type.value_type):
        return pa.array([_names(v) for v in column.to_pylist()], pa.list_(pa.string())), _none(column)
    try:
        return column.cast(pa.list_(pa.string())), _none(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(column), pa.list_(pa.string())), _numpy(column.is_valid())


def _is_list(kind: pa.DataType) -> bool:
    return any(
        test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, _is_list_view)
    )


def _is_list_view(kind: pa.DataType) -> bool:
    return str(kind).startswith(("list_view", "large_list_view"))


def _listed_names(column: pa.Array) -> tuple[pa.Array, Mask]:
    """Names from text: a JSON list, or names between commas. Tool lists repeat, so each distinct one is read once."""
    encoded = _ascii(column).dictionary_encode()
    lists = [names_in(text) for text in encoded.dictionary.to_pylist()]
    read = pa.array(lists, pa.list_(pa.string())).take(encoded.indices)
    return read, _numpy(pc.and_(column.is_valid(), read.is_null()))


def names_in(text: str) -> list[str] | None:
    """The names a text lists; None where it is broken JSON or JSON of another shape."""
    text = text.strip()
    if not text.startswith(("[", "{")):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return _names(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _names(value: Any) -> list[str] | None:
    """Names of tools in any provider's shape: text, {name}, {function: {name}}, {type}."""
    if value is None or not isinstance(value, list | tuple):
        return None
    return [name for name in map(tool_name, value) if name]


def tool_name(tool: Any) -> str:
    """The name of one offered tool, or its type where it has none; half of a surrogate pair in it is a question mark."""
    name = _tool_name(tool)
    # Sent by escape or as broken UTF-8, it cannot be written down.
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def _tool_name(tool: Any) -> str:
    if isinstance(tool, str):
        return tool
    if not isinstance(tool, dict):
        return ""
    inner = tool.get("function")
    name = tool.get("name") or (inner.get("name") if isinstance(inner, dict) else None) or tool.get("type")
    return name if isinstance(name, str) else ""
