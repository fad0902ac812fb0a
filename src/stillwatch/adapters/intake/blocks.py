"""A text file as blocks of whole records, so that one broken record costs its block a second look and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillwatch.adapters.intake.files import Stream
from stillwatch.adapters.intake.report import Report, place

Cut = Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records, the last one ended by a newline; ``line`` is the number of the first line, from 1."""

    text: bytes
    line: int


def after_last_line(text: bytes) -> int:
    """Where the last whole line ends."""
    return text.rfind(b"\n") + 1


def blocks(stream: Stream, path: Path, report: Report, cut: Cut = after_last_line) -> Iterator[Block]:
    """The file's blocks, each of about ``block_bytes``; a record over ``line_bytes`` is left out and counted."""
    carry, line, first = b"", 1, True
    while data := stream.read(report.limits.block_bytes):
        if first:
            data, first = data.removeprefix(b"\xef\xbb\xbf"), False
        carry += data
        end = cut(carry)
        if end:
            yield Block(carry[:end], line)
            line += carry.count(b"\n", 0, end)
            carry = carry[end:]
        elif len(carry) > report.limits.line_bytes:
            skipped, carry = _next_line(carry, stream, report)
            report.rows_read += 1
            report.reject(f"a record over {report.limits.line_bytes:,} bytes", 1, place(path, line))
            line += skipped
    if carry.strip():
        yield Block(carry if carry.endswith(b"\n") else carry + b"\n", line)


def _next_line(carry: bytes, stream: Stream, report: Report) -> tuple[int, bytes]:
    """Reads on to the end of the first line in ``carry``: lines passed, and what follows."""
    while b"\n" not in carry:
        carry = stream.read(report.limits.block_bytes)
        if not carry:
            return 0, b""
    return 1, carry[carry.find(b"\n") + 1 :]
