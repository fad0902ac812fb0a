"""The prompt library, and how a request's text is made from it.

A `Style` says how one kind of text is produced; the traffic only carries (style, item, salt) per
exchange, and the words appear when a part is written. Every rendering is a pure function of those three.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .wording import CLOSERS, CONSTRAINTS, FRAMES, NAMES, OPENERS, compose, listed, paraphrase

CHAT = ("benign_hh_rlhf", "benign_mtbench_vicuna", "benign_prompts_chat", "benign_dstc8_service", "benign_llava_eval")
CODE = ("benign_aider", "benign_polyglot_exercism", "benign_humaneval")
SUPPORT = (
    "benign_banking77",
    "benign_dstc8_service",
    "benign_fabric_patterns",
    "benign_xquad_rag",
    "benign_insight_bench",
)
LESSONS = ("benign_mathdial", "benign_mathematics_dataset", "benign_polyglot_exercism")
HARNESS = listed(
    "benign_bbh benign_gsm8k_test benign_humaneval benign_bfcl benign_mtbench_vicuna benign_webvoyager "
    "benign_sql_eval distill_reasoning_teacher distill_xstest"
)
JUDGING = listed(
    "benign_deepeval_metrics benign_llmbar_judging distill_prometheus distill_pandalm distill_ultrafeedback "
    "benign_mtbench_vicuna"
)
GENERATION = listed(
    "distill_self_instruct distill_alpaca distill_evol_instruct_wizardlm distill_distilabel distill_camel "
    "distill_evol_code distill_raft distill_magpie"
)
AGENT_TOOLS = (
    ("read_file", "write_file", "run_shell", "search_code"),
    ("bash", "edit", "glob", "grep", "todo"),
    ("execute_command", "apply_diff", "list_files", "ask_followup"),
    ("click", "type", "scroll", "goto", "screenshot"),
    ("get_weather", "http_get", "calendar_lookup"),
)
SOURCES: dict[str, tuple[str, ...]] = {
    "agentic_coding": ("distill_swe_smith",),
    "tool_use": ("distill_gorilla_apibench", "distill_toolbench", "distill_distilabel"),
    "coding": ("distill_evol_code", "distill_openthoughts_skyt1", "distill_camel"),
    "data_analysis": ("distill_omnisql",),
    "computer_use": ("distill_nnetnav",),
    "vision": ("distill_llava",),
    "math_reasoning": ("distill_reasoning_teacher", "distill_openthoughts_skyt1", "distill_distilabel"),
    "cot_elicitation": ("distill_reasoning_teacher", "distill_openthoughts_skyt1"),
    "grading": ("distill_prometheus", "distill_pandalm", "distill_ultrafeedback", "distill_distilabel"),
    "sensitive_rewrite": ("distill_cvalues", "distill_safety_prompts", "distill_xstest"),
    "other": (
        "distill_self_instruct",
        "distill_evol_instruct_wizardlm",
        "distill_raft",
        "distill_alpaca",
        "distill_camel",
    ),
}
OTHER_TASKS = ("chat", "classification", "rag", "roleplay", "translation")
SPOKEN = {
    "math_reasoning": ("distill_reasoning_teacher", "distill_openthoughts_skyt1", "distill_distilabel"),
    "cot_elicitation": ("distill_reasoning_teacher",),
    "coding": ("distill_evol_code", "distill_openthoughts_skyt1"),
    "tool_use": ("distill_gorilla_apibench",),
    "computer_use": ("distill_nnetnav",),
    "sensitive_rewrite": ("distill_xstest", "distill_cvalues"),
    "other": ("distill_self_instruct",),
}
LONGEST_PROMPT = 4000
LONGEST_TEMPLATE = 2600
SENTENCE = re.compile(r"(?<=[.!?。？])\s+|\n+")
NUMBER = re.compile(r"\b\d{1,3}\b")
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{[\w .,|'-]*\}")
CAPITAL = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,9}\b")


@dataclass(frozen=True, slots=True)
class Style:
    """One way of writing requests; `pool` holds item numbers of the library."""

    kind: str  # plain, varied, frame, inline, as_system, kit, wrapped, filled, paraphrased
    pool: np.ndarray
    system: str | None = None
    heads: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    conversation: str = "none"  # none, single, session
    history: float = 0.0  # tokens that each earlier turn adds
    image_share: float = 0.0
    capability: str | None = None


@dataclass(slots=True)
class Library:
    """All prompts read at run time, with fragments of honest text for slots."""

    template: list[str]
    prompt: list[str]
    task: np.ndarray
    source: np.ndarray
    language: np.ndarray
    fragments: list[str] = field(default_factory=list)
    _sentences: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, rng: np.random.Generator) -> Library:
        """Read every prompt file of a folder; rows without any text are dropped."""
        template, prompt, task, source, language = [], [], [], [], []
        for path in sorted(folder.glob("*.parquet")):
            table = pq.read_table(path, columns=["template", "prompt", "task", "language"])
            for row in table.to_pylist():
                wrapper, text = row["template"] or "", row["prompt"] or ""
                if not text:
                    wrapper, text = "", wrapper
                if not text.strip():
                    continue
                template.append(PLACEHOLDER.sub("", wrapper)[:LONGEST_TEMPLATE].strip())
                prompt.append(text[:LONGEST_PROMPT])
                task.append(row["task"])
                source.append(path.stem)
                language.append(row["language"])
        if not prompt:
            raise ValueError(f"{folder}: no prompt files")
        lib = cls(template, prompt, np.array(task), np.array(source), np.array(language))
        lib.fragments = lib._cut_fragments(rng, 40_000)
        return lib

    def _cut_fragments(self, rng: np.random.Generator, n: int) -> list[str]:
        """Runs of 2-7 plain words out of honest English text."""
        english = np.flatnonzero((self.language == "en") & np.char.startswith(self.source, "benign"))
        words = [re.findall(r"[A-Za-z][a-z'-]+", self.prompt[i][:900]) for i in english[::2]]
        words = [w for w in words if len(w) > 9]
        which = rng.integers(0, len(words), n)
        length = rng.integers(2, 8, n)
        place = rng.random(n)
        cut = []
        for w, k, u in zip(which, length, place, strict=True):
            start = int(u * (len(words[w]) - k))
            cut.append(" ".join(words[w][start : start + k]).lower())
        return cut

    def pool(self, *sources: str, task: str | None = None, english: bool = False) -> np.ndarray:
        """Item numbers of the named files; falls back to all honest text if there are none."""
        keep = np.isin(self.source, sources)
        if task:
            keep &= self.task == task
        if english:
            keep &= self.language == "en"
        if not keep.any():
            keep = np.char.startswith(self.source, "benign")
        return np.flatnonzero(keep).astype(np.int32)

    def planted(self, sources: Sequence[str], tasks: Sequence[str], english: bool) -> np.ndarray:
        """Item numbers of the named files and tasks; may be empty."""
        keep = np.isin(self.source, list(sources)) & np.isin(self.task, list(tasks))
        return np.flatnonzero(keep & (self.language == "en") if english else keep).astype(np.int32)

    def bare(self, item: int) -> bool:
        """Whether the item stands without its template: a question, not the middle of a longer prompt."""
        source, text = self.source[item], self.prompt[item]
        rendered = source in ("distill_self_instruct", "distill_evol_code") and bool(self.template[item])
        return not rendered and "#Rewritten" not in text and not text.startswith("1. ")

    def sentences(self, item: int) -> list[str]:
        """The item's sentences, cut once."""
        found = self._sentences.get(item)
        if found is None:
            found = [s for s in SENTENCE.split(self.prompt[item]) if s] or [self.prompt[item]]
            self._sentences[item] = found
        return found

    def slots(self, text: str, salt: int) -> str:
        """Fill {f}, {g}, {n}, {p} with honest fragments, a number and a first name."""
        if "{" not in text:
            return text
        pieces = self.fragments
        return (
            text.replace("{f}", pieces[salt % len(pieces)])
            .replace("{g}", pieces[(salt >> 17) % len(pieces)])
            .replace("{n}", str(2 + (salt >> 9) % 900))
            .replace("{p}", NAMES[(salt >> 23) % len(NAMES)])
        )

    def mutate(self, item: int, salt: int) -> str:
        """A version of the item with other numbers, another name and perhaps a condition."""
        text = self.prompt[item]
        if len(text) < 1800:
            text = NUMBER.sub(lambda m: str(int(m[0]) + (salt + m.start()) % 23), text)
        text = CAPITAL.sub(lambda m: NAMES[(salt + len(m[0])) % len(NAMES)], text, count=2)
        if salt % 3:
            text += "\n" + self.slots(CONSTRAINTS[(salt >> 4) % len(CONSTRAINTS)], salt * 2654435761)
        return text

    def vary(self, item: int, salt: int) -> str:
        """What a person makes of the item: some of its sentences, other figures, words around it."""
        parts = self.sentences(item)
        if len(parts) > 3 and salt % 8:
            start = (salt >> 3) % (len(parts) - 1)
            parts = parts[start : start + 1 + (salt >> 11) % 4]
        text = (" " if salt & 32 else "\n").join(parts)[:1500]
        if salt & 64 and len(text) < 900:
            text = NUMBER.sub(lambda m: str(int(m[0]) + (salt >> 7) % 19), text)
        if (salt >> 13) % 5 > 1:
            text = f"{self.slots(OPENERS[(salt >> 16) % len(OPENERS)], salt >> 5)} {text}"
        if (salt >> 21) % 5 > 1:
            text = f"{text} {self.slots(CLOSERS[(salt >> 25) % len(CLOSERS)], salt >> 8)}"
        return text

    def frame(self, salt: int) -> str:
        """A short question of a person, around fragments of honest text."""
        text = self.slots(FRAMES[salt % len(FRAMES)], salt >> 6)
        return text[0].upper() + text[1:] if salt & 1024 else text

    def render(self, style: Style, item: int, salt: int, variant: int) -> tuple[str | None, str]:
        """System text and last user turn of one exchange."""
        kind, system = style.kind, style.system
        if kind == "frame":
            text = self.frame(salt)
        elif kind == "varied":
            text = self.vary(item, salt)
        elif kind == "paraphrased":
            text = paraphrase(self.prompt[item], style.capability or "other", salt)
        elif kind in ("kit", "filled"):
            text = self.vary(item, salt >> 2)
        else:
            text = self.prompt[item] if variant == 0 else self.mutate(item, variant * 7919 + item)
        if kind == "as_system":
            system = self.template[item] or system
        elif kind in ("inline", "kit") and self.template[item]:
            text = f"{self.template[item]}\n\n{text}"
        elif kind in ("wrapped", "filled"):
            text = self._wrap(style, text, salt)
        return system, text

    def _wrap(self, style: Style, body: str, salt: int) -> str:
        """The body within a head and a tail of the style; an honest head may hold slots."""
        head = style.heads[salt % len(style.heads)] if style.heads else ""
        tail = style.tails[(salt >> 10) % len(style.tails)] if style.tails else ""
        if style.capability is None:
            head, tail = self.slots(head, salt >> 3), self.slots(tail, salt >> 5)
        return "\n".join(piece for piece in (head, body, tail) if piece)


class Book:
    """Registers styles; makes the honest ones."""

    def __init__(self, lib: Library, rng: np.random.Generator) -> None:
        """Start with the styles that unconnected people share."""
        self.lib, self.rng, self.random = lib, rng, random.Random(int(rng.integers(1 << 50)))
        self.styles: list[Style] = []
        chat = lib.pool(*CHAT)
        asked = {"conversation": "session", "history": 260.0}
        self.chat = [self.add("frame", chat, **asked), self.add("varied", chat, **asked, image_share=0.14)]
        self.chat += [self.add("frame", chat, conversation="single"), self.add("plain", chat, conversation="single")]
        self.agents = self._public_agents()
        self.tutor = [self.add("varied", lib.pool(*LESSONS), **asked), self.add("inline", lib.pool("benign_mathdial"))]
        self.translate = [
            self.add("varied", lib.pool("benign_alma_wmt")),
            self.add("as_system", lib.pool("benign_ui_localisation")),
        ]
        self.support = lib.pool(*SUPPORT)

    def add(self, kind: str, pool: np.ndarray, **traits: object) -> int:
        """Register a style and return its number."""
        self.styles.append(Style(kind, pool, **traits))
        return len(self.styles) - 1

    def _public_agents(self) -> list[int]:
        """Popular agents: the same system text and tools at every user."""
        lib, made = self.lib, []
        for source, items in (
            ("benign_aider", CODE),
            ("distill_swe_smith", CODE),
            ("benign_webvoyager", ("benign_webvoyager",)),
        ):
            texts = sorted({lib.template[i] for i in lib.pool(source) if len(lib.template[i]) > 80})
            for k in range(min(3, len(texts))):
                tools = AGENT_TOOLS[3] if source == "benign_webvoyager" else AGENT_TOOLS[k]
                traits = {"tools": tools, "conversation": "session", "history": 3500.0}
                traits["image_share"] = 0.5 if source == "benign_webvoyager" else 0.02
                made.append(self.add("varied", lib.pool(*items), system=texts[k], **traits))
        return made or self.chat

    def chatty(self) -> list[int]:
        """Styles of one person."""
        return [self.chat[k] for k in self.rng.choice(4, 5, p=[0.48, 0.37, 0.1, 0.05])]

    def coder(self) -> list[int]:
        """Styles of one developer."""
        agent = self.agents[int(self.rng.integers(len(self.agents)))]
        return [agent, agent, agent, self.chat[int(self.rng.integers(2))], agent]

    def toolbox(self) -> tuple[str, ...]:
        """A popular agent's tools, or some of one's own choice."""
        if self.random.random() < 0.5:
            return self.random.choice(AGENT_TOOLS)
        names = [name for box in AGENT_TOOLS for name in box]
        return tuple(self.random.sample(names, self.random.randint(1, 5)))

    def house(self, brand: str, n: int, bank: str = "work") -> list[int]:
        """Internal prompt templates of one customer."""
        made = []
        for _ in range(n):
            head, tail = compose(self.random, bank if self.random.random() < 0.8 else "lore", brand)
            pool = self.support if self.random.random() < 0.7 else self.lib.pool(*CHAT, *CODE)
            tools = self.toolbox() if self.random.random() < 0.3 else ()
            if self.random.random() < 0.5:
                made.append(self.add("varied", pool, system=f"{head}\n{tail}", conversation="single", tools=tools))
            else:
                made.append(self.add("filled", pool, heads=(head,), tails=(tail,) if tail else (), tools=tools))
        return made

    def source(self, kind: str, name: str, part: float = 1.0, **traits: object) -> int:
        """A style on (part of) one file, e.g. a harness with a subset of its items."""
        pool = self.lib.pool(name)
        if part < 1:
            pool = self.rng.choice(pool, max(int(len(pool) * part), 4), replace=False)
        return self.add(kind, pool, **traits)
