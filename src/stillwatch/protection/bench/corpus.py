"""Texts to train on that every machine has and no licence forbids: the docstrings of the running Python's standard library.

They are read from the source by ``ast``; nothing is imported, run, or copied into the project. Where the library alone is too
small (a distribution without sources), docstrings of installed packages come after it. What is found is the same for
one interpreter and its packages, in any order of the file system, and ``Corpus.digest`` says so.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from stillwatch.errors import Terminal
from stillwatch.protection.bench.models import END

ENOUGH = 1_200_000
"""Characters below which installed packages are read too: some 400,000 tokens of a vocabulary of 1,024."""
LEAST = 300_000
"""Characters below which nothing is measured."""
SHORTEST = 40
LARGEST_SOURCE = 2_000_000
LEFT_OUT = ("test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__")
_SPACE = re.compile(r"[ \t\f\v]+")
_BLANK = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts by module, in order of the modules' names; ``parts`` deals the modules out, so that no two parts share one."""

    modules: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def characters(self) -> int:
        """How many characters all texts have."""
        return sum(len(text) for _, texts in self.modules for text in texts)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hex: two machines with equal ones train on the same."""
        told = hashlib.sha256()
        for module, texts in self.modules:
            told.update("\0".join((module, *texts, "")).encode("utf-8", "surrogatepass"))
        return told.hexdigest()

    def parts(self, shares: Sequence[float], seed: int) -> list[tuple[str, ...]]:
        """The texts in one part for each share (they add up to at most 1), disjoint by module, every part its share of the
        characters to within a module; another ``seed`` deals otherwise."""
        order = sorted(self.modules, key=lambda m: hashlib.sha256(f"{seed}\0{m[0]}".encode()).digest())
        wanted = [share * self.characters for share in shares]
        parts: list[list[str]] = [[] for _ in shares]
        filled = [0.0] * len(shares)
        for _, texts in order:
            to = max(range(len(shares)), key=lambda i: (wanted[i] - filled[i]) / max(wanted[i], 1.0))
            if wanted[to] > filled[to]:
                parts[to].extend(texts)
                filled[to] += sum(map(len, texts))
        return [tuple(part) for part in parts]


@lru_cache(maxsize=2)
def corpus(enough: int = ENOUGH) -> Corpus:
    """Docstrings of the standard library, and of installed packages until there are ``enough`` characters. Terminal where
    there are too few to train on."""
    modules: list[tuple[str, tuple[str, ...]]] = []
    seen: set[str] = set()
    found = 0
    for name, file in _sources():
        if found >= enough and not name.startswith("stdlib:"):
            break
        texts = tuple(t for t in _docstrings(file) if not (t in seen or seen.add(t)))  # type: ignore[func-returns-value]
        if texts:
            modules.append((name, texts))
            found += sum(map(len, texts))
    made = Corpus(tuple(sorted(modules)))
    if made.characters < LEAST:
        raise Terminal(
            f"the bench found {made.characters:,} characters of docstrings to train on and needs {LEAST:,}",
            hint="run it with a Python that has its standard library as sources, not as bytecode alone",
        )
    return made


def rows(texts: Iterable[str], vocabulary: PreTrainedTokenizerFast, length: int) -> Tensor:
    """The texts one behind the other, each ended, cut into (n, length) of token ids; the last piece, if short, falls away."""
    end = vocabulary.convert_tokens_to_ids(END)
    stream = [token for text in texts for token in (*vocabulary(text)["input_ids"], end)]
    whole = len(stream) // length
    return torch.tensor(stream[: whole * length], dtype=torch.int64).reshape(whole, length)


def cleaned(text: str) -> str:
    """Without indentation and double spaces, in plain line ends and letters that print."""
    lines = (_SPACE.sub(" ", line).strip() for line in text.expandtabs().splitlines())
    kept = "".join(c for c in "\n".join(lines) if c == "\n" or c.isprintable())
    return _BLANK.sub("\n\n", kept).strip()


def _sources() -> Iterator[tuple[str, Path]]:
    """Every source with a name of its own: the standard library first, then packages by name."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if not set(inside.parts) & set(LEFT_OUT):
            yield f"stdlib:{inside.as_posix()}", path
    for package in sorted(distributions(), key=lambda d: (d.name or "").lower()):
        for file in sorted(package.files or (), key=str):
            if file.suffix == ".py" and not set(file.parts) & set(LEFT_OUT):
                yield f"{package.name}:{file.as_posix()}", Path(str(file.locate()))


def _docstrings(file: Path) -> Iterator[str]:
    """Cleaned docstrings of a source, in order; none where it cannot be read as one."""
    try:
        if file.stat().st_size > LARGEST_SOURCE:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escapes
            tree = ast.parse(file.read_text(encoding="utf-8"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        RecursionError,
    ):  # not ours to mend: it is left out, and the digest differs
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = cleaned(ast.get_docstring(node) or "")
            if len(text) >= SHORTEST:
                yield text
