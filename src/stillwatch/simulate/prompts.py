"""The grammar of a world: our own texts, and where a folder of real prompts is given, those woven in.

Honest people do not repeat each other word for word, and a folder holds thousands of texts, not millions: texts of
people are spliced (head of one, tail of another), their digits varied, and surrounded by sentences of our own. Lists
that really are public, benchmark questions and a generation kit's seeds, repeat as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.errors import UsageError
from stillwatch.simulate.grammar import Rules, escape, read_rules

LONGEST = 2400
"""Characters kept of one real text."""
FEWEST = 12
"""Rows a template needs to serve as a wrapper."""
TASKS = {
    "chat": "ask.chat", "writing": "ask.writing", "coding": "ask.coding", "agentic_coding": "ask.agentic_coding",
    "tool_use": "ask.tool_use", "data_analysis": "ask.data_analysis", "math_reasoning": "ask.math",
    "education": "ask.education", "translation": "ask.translation", "vision": "ask.vision",
    "computer_use": "ask.computer_use", "roleplay": "ask.roleplay", "rag": "ask.rag", "classification": "record",
}  # fmt: skip
"""Where benign texts of a task go."""
SLOTS = {
    "math_reasoning": "slot.math", "coding": "slot.code", "data_analysis": "slot.data", "vision": "slot.vision",
    "sensitive_rewrite": "slot.sensitive", "chat": "slot.open", "cot_elicitation": "slot.open",
}  # fmt: skip
"""Where texts of generation pipelines go, as questions."""
WRAPS = {
    "math_reasoning": "math", "cot_elicitation": "cot", "grading": "grading", "sensitive_rewrite": "rewrite",
    "agentic_coding": "agentic", "tool_use": "tool", "coding": "coding", "data_analysis": "data",
    "computer_use": "computer", "vision": "vision",
}  # fmt: skip
"""Where their templates go, as ``real.wrap.X`` beside our ``wrap.X``."""
KITS = ("self-instruct", "alpaca", "WizardLM", "magpie")
"""Sources that stand for public kits: strangers send these wrappers and seeds, so no campaign is built on them."""
_HOLE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{[a-zA-Z_][\w .]*\}", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?。！？\n])\s*")


def own_rules() -> Rules:
    """All sections of the texts that ship with the package."""
    rules: Rules = {}
    for path in sorted(files(__package__).joinpath("texts").iterdir(), key=lambda p: p.name):
        for section, alternatives in read_rules(path.read_text("utf-8"), path.name).items():
            rules.setdefault(section, []).extend(alternatives)
    return rules


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a folder of prompts."""

    source: str
    benign: bool
    task: str
    template: str
    prompt: str


def read_samples(folder: Path) -> list[Sample]:
    """All rows of all Parquet files of the folder, cut to ``LONGEST``. Raises ``UsageError`` if there are none."""
    samples: list[Sample] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = pq.read_table(path, columns=["source", "kind", "task", "template", "prompt"])
        except (OSError, pa.ArrowInvalid) as fault:
            raise UsageError(f"{path}: not a file of prompts: {fault}") from fault
        for source, kind, task, template, prompt in zip(*(c.to_pylist() for c in table.columns)):
            text = _clean(prompt or "")
            samples.append(Sample(source, kind == "benign", task, _clean(template or ""), text))
    if not samples:
        raise UsageError(
            f"no prompts in {folder}", hint="a folder of Parquet files with source, kind, task, template, prompt"
        )
    return samples


def _is_kit(sample: Sample) -> bool:
    return any(kit.lower() in sample.source.lower() for kit in KITS)


def _clean(text: str) -> str:
    return text[:LONGEST].replace("\0", "").strip()


def woven_rules(folder: Path) -> Rules:
    """Our rules with the folder's texts woven in."""
    rules, samples = own_rules(), read_samples(folder)
    for task, section in TASKS.items():
        _weave(rules, section, [s.prompt for s in samples if s.benign and s.task == task and s.prompt])
    for task, section in SLOTS.items():
        _weave_slot(rules, section, [s.prompt for s in samples if not s.benign and s.task == task and s.prompt])
    questions = [escape(s.prompt) for s in samples if s.task == "eval_harness" and s.prompt]
    rules["bench.item"] = questions or rules["bench.item"]
    _public_templates(rules, [s for s in samples if s.benign and s.template])
    made = [s for s in samples if not s.benign]
    _kits(rules, [s for s in made if _is_kit(s)])
    operators = [s for s in made if not _is_kit(s)]
    for task, name in WRAPS.items():
        _wraps(rules, f"real.wrap.{name}", [s for s in operators if s.task == task and s.prompt])
    return rules


def _weave(rules: Rules, section: str, texts: list[str]) -> None:
    """Seven in ten of this section's prompts are now real ones, spliced and surrounded."""
    if not texts:
        return
    whole, head, tail = (f"real.{section}.{part}" for part in ("whole", "head", "tail"))
    rules[whole] = ["~" + escape(t) for t in texts]
    halves = [h for h in map(_halves, texts) if h]
    rules[head] = ["~" + escape(h) for h, _ in halves] or rules[whole]
    rules[tail] = ["~" + escape(t) for _, t in halves] or rules[whole]
    forms = [f"<hi><{head}> <{tail}><bye>", f"<{whole}> <on>", f"<on> <{whole}><bye>", f"<{head}> <{tail}> <on>",
             f"<sentence> <{whole}>"]  # fmt: skip
    rules[section] = rules[section] + forms * max(1, round(len(rules[section]) * 7 / 3 / len(forms)))


def _halves(text: str) -> tuple[str, str] | None:
    parts = [p for p in _SENTENCE.split(text) if p]
    middle = len(parts) // 2
    return (" ".join(parts[:middle]), " ".join(parts[middle:])) if middle else None


def _weave_slot(rules: Rules, section: str, texts: list[str]) -> None:
    """Questions of an operator's list: real ones with their digits varied, some spliced."""
    if texts:
        name = f"real.{section}"
        rules[name] = ["~" + escape(t) for t in texts]
        halves = [h for h in map(_halves, texts) if h]
        if halves:
            rules[f"{name}.head"] = ["~" + escape(h) for h, _ in halves]
            rules[f"{name}.tail"] = ["~" + escape(t) for _, t in halves]
        spliced = [f"<{name}.head> <{name}.tail>"] if halves else []
        rules[section] = rules[section] + [f"<{name}>", *spliced] * len(rules[section])


def _by_template(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.template].append(sample)
    return {template: rows for template, rows in groups.items() if template}


def frame(template: str, prompt: str) -> tuple[str, str]:
    """What stands before and after the prompt in its template; nothing where the prompt is the filled template."""
    parts = _HOLE.split(template)
    before = parts[0].strip()
    if len(parts) > 1 and (not before or prompt.startswith(before[:30])):
        return "", ""
    return (parts[0], parts[1]) if len(parts) == 2 else (before + "\n\n", "")


def _framed(rules: Rules, name: str, rows: list[Sample]) -> str:
    """A section of these rows' prompts, and the alternative that wraps it in their template."""
    rules[name] = ["~" + escape(s.prompt) for s in rows]
    before, after = frame(rows[0].template, rows[0].prompt)
    return f"{escape(before)}<{name}>{escape(after)}"


def _wraps(rules: Rules, section: str, samples: list[Sample]) -> None:
    """Wrappers that pipelines sent, each around its own prompts; some behind a sentence of the operator's own."""
    alternatives: list[str] = []
    for number, (_, rows) in enumerate(_by_template(samples).items()):
        if len(rows) >= FEWEST:
            wrapped = _framed(rules, f"{section}.{number}", rows)
            alternatives += [wrapped, f"<w.role@o> {wrapped}", f"{wrapped}\\n<w.form@o>"]
    if alternatives:
        rules[f"{section}@o"] = alternatives


def _kits(rules: Rules, samples: list[Sample]) -> None:
    kits = [_framed(rules, f"real.kit.{i}", rows) for i, rows in enumerate(_by_template(samples).values())
            if len(rows) >= FEWEST]  # fmt: skip
    if kits:
        rules["ask.kit"] = kits


def _public_templates(rules: Rules, samples: list[Sample]) -> None:
    """Pattern libraries and graders that strangers share, around material of their own."""
    for task, section in (("grading", "ask.evaluation@o"), ("writing", "ask.writing")):
        for number, (template, rows) in enumerate(_by_template(s for s in samples if s.task == task).items()):
            before, after = frame(template, rows[0].prompt)
            if before.strip():
                inner = f"real.{task}.{number}"
                rules[inner] = ["~" + escape(s.prompt) for s in rows]
                rules[section].append(f"{escape(before)}<{inner}>\\n<sentence>{escape(after)}")
    agents = _by_template(s for s in samples if s.task == "agentic_coding")
    rules["harness"] = rules["harness"] + [escape(_HOLE.sub("", t)) for t, rows in agents.items() if len(rows) >= 50]


def load_rules(folder: Path | None) -> Rules:
    return own_rules() if folder is None else woven_rules(folder)
