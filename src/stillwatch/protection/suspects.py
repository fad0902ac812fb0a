"""What a suspect is: a folder with its weights, or a file of what it wrote. Read as data, never run.

A folder is what transformers' ``save_pretrained`` writes. Weights are safetensors alone (a pickle runs what its writer
wants), and a model that brings code of its own is refused. The SHA-256 of a suspect is over every byte that is tested, so
that what was registered and what is tested are the same thing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.errors import InputRejected, Reject, UsageError
from stillwatch.store.state import sha256_of

TEXTS = (".txt", ".jsonl", ".parquet")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FORMS = "a folder with config.json and *.safetensors, or a file of texts: .txt, .jsonl or .parquet"


class Form(StrEnum):
    """How a suspect is at hand: its WEIGHTS, or TEXT that it wrote. TOKENIZER: what texts are read in, never a suspect."""

    WEIGHTS = "weights"
    TEXT = "text"
    TOKENIZER = "tokenizer"


@dataclass(frozen=True, slots=True)
class Material:
    """A folder or file that takes part in a test, by what is in it. ``name`` is its last part, for people."""

    name: str
    form: Form
    sha256: str

    def to_dict(self) -> dict[str, str]:
        """As JSON values."""
        return {"name": self.name, "form": str(self.form), "sha256": self.sha256}


def material(path: Path) -> Material:
    """What lies at ``path``, with its hash. UsageError where it is no suspect, InputRejected where it must not be loaded."""
    if path.is_dir():
        check_folder(path)
        return Material(path.resolve().name, Form.WEIGHTS, folder_hash(path))
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file or folder", hint=FORMS)
    if path.suffix.lower() not in TEXTS:
        raise UsageError(f"{path}: neither weights nor texts", hint=FORMS)
    return Material(path.name, Form.TEXT, file_hash(path))


def tokenizer_material(folder: Path) -> Material:
    """The folder of a tokenizer (``tokenizer.json``), with its hash; UsageError where there is none."""
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(f"{folder}: no tokenizer.json in it", hint="save it with save_pretrained, as a fast tokenizer")
    return Material(folder.resolve().name, Form.TOKENIZER, folder_hash(folder))


def check_folder(folder: Path) -> None:
    """InputRejected, with all that is wrong, where the folder holds no model that can be loaded without running its code."""
    faults = list(_faults(folder))
    if faults:
        raise InputRejected("\n".join(faults), hint="save it with transformers' save_pretrained, as safetensors")


def _faults(folder: Path) -> Iterator[str]:
    config = folder / "config.json"
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except OSError as e:
        yield f"{config}: cannot be read: {e.strerror}"
    except (ValueError, RecursionError):
        yield f"{config}: not JSON"
    else:
        if not isinstance(told, dict) or not isinstance(told.get("model_type"), str):
            yield f"{config}: names no model_type"
        elif "auto_map" in told:
            yield f"{config}: the model brings code of its own (auto_map), which is not run"
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if not any(folder.glob("*.safetensors")):
        yield f"{folder}: no weights (*.safetensors){', only ' + ', '.join(pickles) if pickles else ''}"


def folder_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of all files below the folder, in the order of their names."""
    whole = hashlib.sha256(b"stillwatch folder 1\n")
    for path in sorted(_files(folder), key=lambda p: p.relative_to(folder).as_posix().encode()):
        whole.update(json.dumps([path.relative_to(folder).as_posix(), file_hash(path)]).encode() + b"\n")
    return whole.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder, followlinks=False):
        for name in (*names, *folders):
            path = Path(at, name)
            # A model hub's cache links files out of the folder: their bytes count. A linked folder is not walked.
            if path.is_symlink() and path.is_dir():
                raise InputRejected(f"{path}: a link to a folder", hint="copy what it points at into the folder")
            if name in names:
                yield path


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    try:
        return sha256_of(path)
    except OSError as e:
        raise InputRejected(f"{path}: cannot be read: {e.strerror}", hint="check the path and its rights") from e


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the prompt before it, as strings; or as ``tokens`` where the log has those. A prompt is never scored."""

    text: str = ""
    prompt: str = ""
    tokens: tuple[int, ...] | None = None
    prompt_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Texts:
    """The distinct texts of a file in their order, how many stood there more than once (``repeated``), and what was left out."""

    rows: tuple[Text, ...]
    repeated: int
    rejects: tuple[Reject, ...]


def texts(path: Path) -> Texts:
    """The texts in a file: ``.txt`` one a line; ``.jsonl`` and Parquet with ``text`` and perhaps ``prompt``, or with ``tokens``
    and perhaps ``prompt_tokens``. Rows that cannot be read are counted and left out; InputRejected where none can be."""
    read = {".txt": _lines, ".jsonl": _objects, ".parquet": _columns}.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"{path}: not a file of texts", hint="one of " + ", ".join(TEXTS))
    found: dict[Text, int] = {}
    wrong: dict[str, list[str]] = {}
    try:
        for place, told in read(path):
            row = told if isinstance(told, str) else _row(told)
            if isinstance(row, Text):
                found[row] = found.get(row, 0) + 1
            else:
                wrong.setdefault(row, []).append(place)
    except (OSError, pa.ArrowException) as e:
        raise InputRejected(f"{path}: cannot be read: {e}", hint="is it whole, and what its name says?") from e
    rejects = tuple(Reject(why, len(places), places[0]) for why, places in wrong.items())
    if not found:
        raise InputRejected("\n".join([f"{path}: no text in it", *map(str, rejects)]), hint=f"{FORMS}")
    return Texts(tuple(found), sum(found.values()) - len(found), rejects)


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """(place, row, or what is wrong with it)."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}:{number}"
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                yield place, "not UTF-8"
                continue
            if text.strip():
                yield place, {"text": text}


def _objects(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    for place, line in _lines(path):
        if isinstance(line, str):
            yield place, line
            continue
        try:
            told = json.loads(line["text"])
        except (ValueError, RecursionError):
            yield place, "not JSON"
            continue
        yield place, told if isinstance(told, dict) else "not an object"


def _columns(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    file = pq.ParquetFile(path)
    held = [c for c in ("text", "prompt", "tokens", "prompt_tokens") if c in file.schema_arrow.names]
    number = 0
    for batch in file.iter_batches(columns=held):
        for row in batch.to_pylist():
            number += 1
            yield f"{path}:{number}", row


def _row(told: Mapping[str, Any]) -> Text | str:
    """The text, or what is wrong with it."""
    tokens, before = told.get("tokens"), told.get("prompt_tokens")
    if tokens is not None:
        if not _are_tokens(tokens) or not _are_tokens(before or []):
            return "tokens are not a list of whole numbers"
        return Text(tokens=tuple(tokens), prompt_tokens=tuple(before or ())) if tokens else "no text"
    text, prompt = told.get("text"), told.get("prompt") or ""
    if not isinstance(text, str) or not text:
        return "no text"
    if not isinstance(prompt, str):
        return "the prompt is no text"
    try:
        (text + prompt).encode()
    except UnicodeEncodeError:
        return "a text holds half a character"
    return Text(text, prompt)


def _are_tokens(found: Iterable[Any]) -> bool:
    return isinstance(found, list) and all(type(t) is int and 0 <= t < 1 << 31 for t in found)
