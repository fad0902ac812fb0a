"""The prompt sets, read at run time, and new prompts after their pattern.

A variant keeps the frame of a row and exchanges numbers and words for others of the same ending and length from the
same source. Honest people and campaigns go through the same exchange, so its traces tell nothing.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .priors import mix

LONGEST_PROMPT = 800
LONGEST_TEMPLATE = 1_500
CAPABILITIES = [
    "agentic_coding",
    "tool_use",
    "coding",
    "data_analysis",
    "computer_use",
    "vision",
    "math_reasoning",
    "cot_elicitation",
    "grading",
    "sensitive_rewrite",
    "other",
]
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{\w+\}", re.S)
AROUND = re.compile(
    r"^(?:Q|Question|#The Given Prompt#)\s*:\s*|\s*\n\s*(?:A|Answer)\s*:.*$|\s*#Rewritten [\w ]+#.*$", re.S
)
CORE = re.compile(r"[^\W\d_]{4,}")
FREQUENT = 60  # words of a source that hold its sentences together and stay as they are
FRAME = 6  # a run of so many words that many rows of a source have is its frame, not its content
NUMBER = re.compile(r"\d+")
POOL = 1 << 20
Tokens = tuple[list[str], list[tuple[int, str, list[str] | None, str]], set[int]]


class Corpus:
    """All rows of the prompt folder, tokenised on first use."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.prompts: list[str] = []
        self.templates: list[str] = []
        files, tasks, kinds, languages = [], [], [], []
        for path in sorted(folder.glob("*.parquet")):
            table = pq.read_table(path, columns=["kind", "task", "template", "prompt", "language"]).to_pydict()
            for kind, task, template, prompt, language in zip(*table.values()):
                if not prompt.strip():
                    continue
                self.prompts.append(_cut(AROUND.sub("", prompt).strip() or prompt.strip()))
                self.templates.append(template)
                files.append(path.stem)
                tasks.append(task)
                kinds.append(kind)
                languages.append(language)
        self.file, self.task = np.array(files), np.array(tasks)
        self.kind, self.language = np.array(kinds), np.array(languages)
        self.dice: list[int] = rng.integers(0, 1 << 30, POOL).tolist()
        self._tokens: dict[int, Tokens] = {}
        self._classes: dict[str, tuple[dict[tuple, list[str]], set[str], set[tuple]]] = {}
        self._clauses: dict[str, list[str]] = {}

    def rows(self, file: str, task: str | None = None) -> np.ndarray:
        """Row numbers of one file, or of one task in it."""
        chosen = self.file == file
        return np.flatnonzero(chosen if task is None else chosen & (self.task == task))

    def sources(self, capability: str) -> list[str]:
        """Files that hold distillation rows of a capability."""
        tasks = [capability] if capability != "other" else ["chat", "rag", "roleplay", "classification"]
        chosen = (self.kind == "distill") & np.isin(self.task, tasks)
        names, counts = np.unique(self.file[chosen], return_counts=True)
        return [str(name) for name, count in zip(names, counts) if count >= 100]

    def target_rows(self, capability: str, file: str) -> np.ndarray:
        """Rows of a file that serve a capability."""
        tasks = [capability] if capability != "other" else ["chat", "rag", "roleplay", "classification"]
        return np.flatnonzero((self.file == file) & np.isin(self.task, tasks))

    def wrappers(self, rows: np.ndarray) -> list[tuple[str, str]]:
        """The distinct templates of rows as (before, after) the query, longest use first."""
        names, counts = np.unique([self.templates[r] for r in rows], return_counts=True)
        return [split_template(str(names[i])) for i in np.argsort(-counts) if names[i].strip()]

    def vary(self, row: int, share: int, seed: int) -> str:
        """The prompt of a row with about `share` per cent of its content words exchanged.

        0 is word for word. Below zero, the frame that the rows of a source have in common is left out as well: nobody
        writes it who asks in words of his own.
        """
        if share == 0:
            return self.prompts[row]
        if self.language[row] == "zh":
            return self._vary_clauses(row, seed)
        tokens, slots, frame = self._tokens.get(row) or self._tokenise(row)
        out, dice, at = tokens.copy(), self.dice, seed % (POOL - 1400)
        limit = (abs(share) << 30) // 100
        for position, before, words, after in slots:
            at += 2
            if words is None:
                out[position] = NUMBER.sub(lambda m, d=dice[at]: _number(m.group(), d), out[position])
            elif dice[at] < limit:
                out[position] = before + words[dice[at + 1] % len(words)] + after
        if share < 0 and frame:
            out = [t for position, t in enumerate(out) if position not in frame]
        return " ".join(out)

    def _vary_clauses(self, row: int, seed: int) -> str:
        """Chinese: the row after a clause of another row, or with its last clause replaced."""
        clauses = self._clauses.get(self.file[row])
        if clauses is None:
            texts = [self.prompts[r] for r in self.rows(self.file[row])]
            clauses = self._clauses[self.file[row]] = [
                c for t in texts for c in re.split(r"[，。？！\n]", t) if len(c) > 3
            ]
        mine = re.split(r"(?<=[，。？！\n])", self.prompts[row])
        at = seed % (POOL - 4)
        one, two = (clauses[self.dice[at + i] % len(clauses)] for i in (0, 1))
        if len(mine) > 2 and self.dice[at + 2] % 2:
            mine[self.dice[at + 3] % len(mine)] = two + "，"
        return one + "，" + "".join(mine)

    def _tokenise(self, row: int) -> Tokens:
        """Words of a row, what may stand in place of each, and the positions of its frame."""
        source = f"{self.file[row]}/{self.language[row]}"
        if source not in self._classes:
            self._classify(source)
        classes, frequent, runs = self._classes[source]
        tokens = self.prompts[row].split(" ")
        slots: list[tuple[int, str, list[str] | None, str]] = []
        for position, token in enumerate(tokens[:400]):
            core = CORE.search(token)
            if core and core.group().lower() not in frequent:
                words = classes.get(_class(core.group()), [])
                if len(words) >= 5:
                    slots.append((position, token[: core.start()], words, token[core.end() :]))
                    continue
            if NUMBER.search(token):
                slots.append((position, "", None, ""))
        frame = {
            i + j for i in range(len(tokens) - FRAME + 1) if tuple(tokens[i : i + FRAME]) in runs for j in range(FRAME)
        }
        self._tokens[row] = tokens, slots, frame if len(tokens) - len(frame) >= 6 else set()
        return self._tokens[row]

    def _classify(self, source: str) -> None:
        """Words of a file in one language by ending, length and capital; its commonest words; its frame."""
        file, _, language = source.partition("/")
        rows = np.flatnonzero((self.file == file) & (self.language == language))
        found: dict[tuple, set[str]] = {}
        words: Counter[str] = Counter()
        runs: Counter[tuple] = Counter()
        for row in rows:
            tokens = self.prompts[row].split(" ")
            runs.update({tuple(tokens[i : i + FRAME]) for i in range(len(tokens) - FRAME + 1)})
            for core in CORE.findall(self.prompts[row]):
                words[core.lower()] += 1
                found.setdefault(_class(core), set()).add(core)
        frequent = {w for w, _ in words.most_common(FREQUENT)}
        classes = {key: sorted(w for w in held if w.lower() not in frequent) for key, held in found.items()}
        least = max(3, len(rows) // 200)
        self._classes[source] = classes, frequent, {run for run, n in runs.items() if n >= least}


def split_template(template: str) -> tuple[str, str]:
    """What stands before and after the query; further placeholders are dropped."""
    hole = PLACEHOLDER.search(template)
    if hole is None:
        return template[:LONGEST_TEMPLATE].rstrip() + "\n\n", ""
    before, after = template[: hole.start()], PLACEHOLDER.sub("", template[hole.end() :])
    return before[-LONGEST_TEMPLATE:], after[: max(0, LONGEST_TEMPLATE - len(before))]


def windows(rng: np.random.Generator, pools: list[np.ndarray], n: int, width: tuple[int, int]) -> np.ndarray:
    """For each of n holders, the rows of its own narrow subject: an index (pool, start, width) a row."""
    pool = rng.integers(0, len(pools), n)
    sizes = np.array([len(p) for p in pools])[pool]
    return np.stack([pool, rng.integers(0, sizes), np.minimum(rng.integers(*width, n), sizes)], axis=1)


def rows_in(pools: list[np.ndarray], topic: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The row at a position (taken modulo the width) of each exchange's subject."""
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pools])])
    sizes = np.diff(offsets)[topic[:, 0]]
    # A multiplicative step scatters the subject over the file, so that neighbours in it are not one template.
    place = (topic[:, 1] + (position % topic[:, 2]) * 7) % sizes
    return np.concatenate(pools)[offsets[topic[:, 0]] + place]


def seeds(*parts: np.ndarray | int) -> np.ndarray:
    """Seeds for `vary`, never negative."""
    return (mix(*parts) >> np.uint64(2)).astype(np.int64)


def _class(core: str) -> tuple:
    return core[:1].isupper(), core[-2:], min(len(core), 11) // 3


def _cut(text: str) -> str:
    """A long prompt without its middle: the question often stands at the end."""
    return (
        text
        if len(text) <= LONGEST_PROMPT
        else text[: LONGEST_PROMPT * 5 // 8] + " ... " + text[-LONGEST_PROMPT * 3 // 8 :]
    )


def _number(digits: str, die: int) -> str:
    top = 10 ** min(len(digits), 6)
    return str(die % top or 7) if len(digits) < 5 else digits
