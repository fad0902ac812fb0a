"""Files and folders in, bytes out: decompressed by their first bytes, whatever their name, never without bound."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from stillwatch.adapters.intake.report import Limits, Report, label
from stillwatch.errors import InputRejected

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
HEAD_BYTES = 64 << 10
LONG_HEAD_BYTES = 16 << 20
STDIN = Path("-")


def fault(path: Path, reason: str, hint: str = "") -> InputRejected:
    """What is wrong with a whole file, named as messages name it."""
    return InputRejected(f"{label(path)}: {reason}", hint=hint)


def listed(path: Path) -> list[Path]:
    """The file itself, or all files below a folder by name; hidden ones and Spark's marks left out."""
    if path == STDIN:
        return [path]
    if not path.exists():
        raise fault(path, "no such file or folder", "give the log's file or folder, or - for standard input")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise fault(path, "neither a file nor a folder", "pipe it in instead, and give - as the log")
    files = sorted(p for p in _below(path) if not _is_hidden(p.relative_to(path)))
    if not files:
        raise fault(path, "the folder holds no files", "give a folder with Parquet, NDJSON or CSV files")
    return files


def _below(folder: Path) -> Iterator[Path]:
    """Files under a folder, each folder once even where links run in circles."""
    known: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        stat = os.stat(root)
        if (stat.st_dev, stat.st_ino) in known:
            folders.clear()
            continue
        known.add((stat.st_dev, stat.st_ino))
        yield from (p for name in names if (p := Path(root) / name).is_file() or p.is_symlink())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def size_of(path: Path) -> int:
    """Bytes on disk; 0 where that cannot be known."""
    try:
        return 0 if path == STDIN else path.stat().st_size
    except OSError:
        return 0


class Stream:
    """Decompressed bytes of a file, read forward. Stops with InputRejected where a file inflates beyond the limits."""

    def __init__(self, raw: BinaryIO, name: str, limits: Limits) -> None:
        self._raw, self._name, self._limits = raw, name, limits
        self._head = _read_fully(raw, 4)
        self._packed = _codec(self._head)
        self._taken, self.bytes_out = 0, 0
        self._source: BinaryIO = self._opened() if self._packed else raw

    def _opened(self) -> BinaryIO:
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(_Counted(self), mode="r"), self._packed))

    def take(self, size: int) -> bytes:
        """Compressed bytes for the codec, the four that were looked at first."""
        head, self._head = self._head[:size], self._head[size:]
        data = head + self._raw.read(size - len(head))
        self._taken += len(data)
        return data

    @property
    def bytes_in(self) -> int:
        """Bytes read from the disk so far."""
        return self._taken if self._packed else self.bytes_out

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty at the end."""
        if not self._packed and self._head:
            data, self._head = self._head + _read_fully(self._raw, max(size - 4, 0)), b""
        else:
            data = _read_fully(self._source, size)
        self.bytes_out += len(data)
        self._check()
        return data

    def _check(self) -> None:
        limits = self._limits
        if self.bytes_out > limits.file_bytes:
            raise InputRejected(
                f"{self._name}: holds more than {limits.file_bytes:,} bytes; the rest was not read",
                hint="split the file, or raise the limit `file_bytes`",
            )
        inflated = self._packed and self.bytes_out > limits.ratio_from_bytes
        if inflated and self.bytes_out > limits.max_ratio * self._taken:
            raise InputRejected(
                f"{self._name}: inflates to over {limits.max_ratio:g} times its size, like a decompression bomb; "
                "the rest was not read",
                hint="unpack it by hand if you trust it, or raise the limit `max_ratio`",
            )


class _Counted:
    """The raw side of a Stream, in the shape Arrow's codecs read from."""

    closed = False

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.take(size if size >= 0 else 1 << 20)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing to flush: Arrow asks when it lets go."""

    def close(self) -> None:
        self.closed = True


class _Rejoined:
    """A stream that was looked into: its head, then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._rest.read(size)


@contextmanager
def opened(path: Path, report: Report) -> Iterator[Stream]:
    """The file's bytes, decompressed; faults of the file come out as InputRejected with its name."""
    with faults_of(path):
        if path == STDIN:
            head, rest = report.stdin or (b"", sys.stdin.buffer)
            yield _watched(Stream(cast(BinaryIO, _Rejoined(head, rest)), label(path), report.limits), report)
        else:
            with path.open("rb") as raw:
                yield _watched(Stream(raw, label(path), report.limits), report)


def _watched(stream: Stream, report: Report) -> Stream:
    report.bytes_in_file = lambda: stream.bytes_in
    return stream


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """What the system or a codec says of this file, in our words."""
    try:
        yield
    except PermissionError as e:
        raise fault(path, "no permission to read it", "check the file's owner and mode") from e
    except FileNotFoundError as e:
        raise fault(path, "no such file") from e
    except (OSError, pa.ArrowInvalid) as e:
        what = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise fault(path, f"cannot be read on: {what}", "it looks cut off or damaged; write or copy it again") from e


def head_of(path: Path, report: Report) -> bytes:
    """The first decompressed bytes: at least 64 KB or the whole file, and longer until a first line is complete."""
    if path == STDIN and report.stdin is None:
        report.stdin = (_first_line(sys.stdin.buffer), sys.stdin.buffer)
    with opened(path, report) as stream:
        return _first_line(cast(BinaryIO, stream))


def _first_line(stream: BinaryIO) -> bytes:
    head = _read_fully(stream, HEAD_BYTES)
    # One pretty-printed document needs a longer look than lines do.
    wanted = 1 << 20 if head.lstrip()[:2].strip() in (b"[", b"{") else 0
    while len(head) < LONG_HEAD_BYTES and (b"\n" not in head or len(head) < wanted):
        more = stream.read(HEAD_BYTES)
        if not more:
            break
        head += more
    return head


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    while data and len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _codec(head: bytes) -> str:
    return "gzip" if head.startswith(GZIP) else "zstd" if head == ZSTD else ""
