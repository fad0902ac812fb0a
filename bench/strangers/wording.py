"""Wordings: wrappers made by a grammar, wrappers said anew each time, and the small talk of people.

Honest tools and operators draw from one grammar, so that no phrase of it is a sign of either.
"""

from __future__ import annotations

import random
import re

ROLE = (
    "You are {a} {field} {post} who {joins} {virtue} with {virtue2}.",
    "Act as {a} {field} {post} known for {virtue}.",
    "Take the part of {a} {post} in {field}, with {virtue} and {virtue2}.",
    "Answer as {a} {field} {post} would, with {virtue}.",
    "Assume the reader relies on your {virtue} as {a} {field} {post}.",
    "Imagine {a} {field} {post} whose colleagues praise the {virtue}.",
)
AIM = (
    "{do} the {thing} {below} and {give} {adj} {result}.",
    "Your {job} is to {do2} the {thing} {below} {manner}.",
    "{below2} there is {a} {thing}; {do2} it {manner}.",
    "We need {adj} {result} for the {thing} {below}.",
    "Please {do2} this {thing} {manner} and {give} {adj} {result}.",
    "For the {thing} {below}, {give} {adj} {result}.",
)
WAY = (
    "{show} every {step} {before} the {end}.",
    "{begin} with what is {known}, then {show2} how each {step} follows.",
    "Do not skip {a} {step}, however {small} it seems.",
    "{show} your {thought} {manner}, {step} by {step}.",
    "Weigh at least two {paths} {before} you settle on the {end}.",
    "Where you {doubt}, say so and {show2} why.",
    "Check the {end} against the {known} facts and {fix} what fails.",
)
FORM = (
    "Put the {end} in {box}.",
    "Return {format} only.",
    "Use {format} with {fields}.",
    "Keep it {size} and avoid {noise}.",
    "Close with a line that holds the {end} in {box}.",
    "No {noise}, no {noise2}.",
)
PARTS = (ROLE, AIM, WAY, FORM)
SLOTS: dict[str, tuple[str, ...]] = {
    "a": ("a seasoned", "a careful", "a senior", "an expert", "a thoughtful", "a patient", "a well-read", "a skilled"),
    "field": ("data", "software", "research", "policy", "teaching", "systems", "writing", "science", "quality", "support",
              "operations", "product", "finance", "language"),
    "post": ("analyst", "engineer", "reviewer", "specialist", "adviser", "editor", "planner", "assistant", "examiner",
             "practitioner", "consultant", "lead"),
    "joins": ("combines", "pairs", "unites", "matches", "blends", "couples"),
    "virtue": ("rigour", "plain speech", "attention to detail", "deep knowledge", "sound judgement", "patience", "candour",
               "sharp reasoning", "clean structure", "thorough checking"),
    "virtue2": ("brevity", "domain sense", "care for the reader", "honest doubt", "good taste", "steady method",
                "practical experience", "fair balance"),
    "do": ("Work through", "Consider", "Examine", "Handle", "Solve", "Process", "Study", "Treat", "Tackle", "Go over"),
    "do2": ("work through", "answer", "handle", "resolve", "examine", "respond to", "complete", "deal with", "look into"),
    "thing": ("task", "request", "question", "input", "item", "problem", "case", "text", "entry", "material", "matter"),
    "below": ("below", "that follows", "given here", "underneath", "in this message", "at the end", "shown next"),
    "below2": ("Below", "In what follows", "Underneath", "Next", "At the end of this message", "Further down"),
    "give": ("write", "produce", "return", "deliver", "supply", "prepare", "hand back", "draft"),
    "adj": ("a complete", "a precise", "a full", "a clear", "a reliable", "an exact", "a detailed", "a useful", "a polished"),
    "result": ("answer", "solution", "reply", "response", "result", "write-up", "treatment", "output"),
    "job": ("job", "assignment", "role", "goal", "aim", "duty", "purpose"),
    "manner": ("with care", "in full", "methodically", "without haste", "in plain words", "as thoroughly as you can",
               "from first principles", "to a high standard", "in good order", "line by line"),
    "show": ("Show", "Write out", "Explain", "Lay out", "Set down", "Spell out", "Record", "Describe"),
    "show2": ("show", "make plain", "explain", "note", "tell", "state"),
    "step": ("step", "inference", "decision", "move", "stage", "point", "calculation"),
    "before": ("before", "ahead of", "prior to"),
    "end": ("conclusion", "final answer", "result", "verdict", "outcome", "closing answer"),
    "begin": ("Begin", "Start", "Open", "Set out"),
    "known": ("known", "given", "certain", "stated", "established"),
    "small": ("small", "obvious", "minor", "routine", "trivial"),
    "thought": ("reasoning", "working", "thinking", "line of thought", "notes", "analysis"),
    "paths": ("approaches", "options", "readings", "routes", "alternatives", "strategies"),
    "doubt": ("are unsure", "have doubts", "lack facts", "must guess", "see a gap"),
    "fix": ("repair", "redo", "correct", "mend", "revise"),
    "box": ("square brackets", "one short paragraph", "the last line", "a fenced block", "a field called answer",
            "double quotes", "its own section"),
    "format": ("JSON", "Markdown", "plain text", "a numbered list", "a short table", "bullet points", "XML tags"),
    "fields": ("a title and a body", "one entry for each point", "keys in lower case", "two sections", "short headings"),
    "size": ("short", "under a page", "to the point", "as long as it must be", "compact", "complete"),
    "noise": ("apologies", "filler", "greetings", "repetition", "boasts", "disclaimers"),
    "noise2": ("small talk", "preamble", "hedging", "emoji", "summary of the request"),
}  # fmt: skip
FOLLOW = (
    "{do} that again {manner}.", "Can you {do2} it {manner}?", "Why is that the {end}?", "Make it {size}, please.",
    "And as {format}?", "What about the second {thing}?", "I {doubt}, {show2} the {step} again.", "Now {give} {adj} {result}.",
    "ok, but without {noise}", "thanks! one more {thing}", "that {step} looks wrong", "{fix} it and {give} only the {end}",
)  # fmt: skip
OPEN = (
    "hi, ", "Hello! ", "quick question: ", "so ", "Please help: ", "I have {a} {thing} here. ", "for work: ", "hey ",
    "Could you {do2} this {manner}? ", "my {job} today: ", "", "", "", "", "",
)  # fmt: skip
SHOP = (
    "Larch",
    "Nimbus",
    "Olive",
    "Petra",
    "Quill",
    "Rowan",
    "Sable",
    "Tern",
    "Umber",
    "Vale",
    "Wren",
    "Yarrow",
    "Zephyr",
)
GOODS = ("shoes", "tea", "lamps", "books", "tools", "bikes", "plants", "toys", "cheese", "yarn", "paint", "watches")
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
DIGITS = re.compile(r"\d+")


def said(pattern: str, pick: random.Random) -> str:
    """The pattern with every slot filled by a drawn choice."""
    return re.sub(r"\{(\w+)\}", lambda m: pick.choice(SLOTS[m[1]]), pattern)


def wrapper(pick: random.Random, sentences: int) -> list[str]:
    """Patterns of a wrapper: an aim, and others of the parts, in a drawn order."""
    others = [pick.choice(part) for part in pick.choices(PARTS, k=max(0, sentences - 1))]
    patterns = [pick.choice(AIM), *dict.fromkeys(others)]
    pick.shuffle(patterns)
    return patterns


def fixed(pick: random.Random, sentences: int) -> str:
    """One wrapper, said once."""
    return " ".join(said(p, pick) for p in wrapper(pick, sentences))


def varied(pick: random.Random, sentences: int, count: int) -> list[str]:
    """One wrapper's patterns in several sayings: part of the slots stays, part changes."""
    patterns = wrapper(pick, sentences)
    keep = pick.random() * 0.7
    half = [
        re.sub(r"\{(\w+)\}", lambda m: pick.choice(SLOTS[m[1]]) if pick.random() < keep else m[0], p) for p in patterns
    ]
    return [" ".join(said(p, pick) for p in half) for _ in range(count)]


def anew(patterns: list[str], pick: random.Random) -> str:
    """Some of these patterns in another order, every slot drawn again."""
    chosen = pick.sample(patterns, min(len(patterns), 1 + pick.randrange(4)))
    return " ".join(said(p, pick) for p in chosen)


def follow_up(pick: random.Random) -> str:
    """What a person says on in a conversation."""
    return said(pick.choice(FOLLOW), pick)


def own_words(text: str, other: str, pick: random.Random) -> str:
    """A person's own request: a real one cut, joined with another or with other figures."""
    how = pick.random()
    if how < 0.35:
        return text
    parts = SENTENCE.split(text)
    if how < 0.65 and len(parts) > 1:
        first = pick.randrange(len(parts))
        text = " ".join(parts[first : first + 2 + pick.randrange(12)])
    elif how < 0.85:
        text = f"{text[: pick.randrange(60, 900)]} {pick.choice(SENTENCE.split(other))}"
    if pick.random() < 0.6:
        text = DIGITS.sub(lambda m: str(pick.randrange(10 ** len(m[0]))) if len(m[0]) < 6 else m[0], text)
    return f"{said(pick.choice(OPEN), pick)}{text.strip()}"


def reworded(text: str, pick: random.Random) -> str:
    """A machine's paraphrase of an item: sentences in another order, some dropped, words of slots between."""
    parts = [p for p in SENTENCE.split(text) if p]
    if len(parts) > 2:
        at = pick.randrange(1, len(parts))
        parts = parts[at:] + parts[:at]
    words = " ".join(parts).split(" ")
    every = pick.randrange(5, 9)
    fill = ("then", "here", "also", "in this case", "as given", "that is", "now", "indeed", "for instance", "so")
    pieces = (words[i : i + every] for i in range(0, len(words), every))
    return " ".join(
        " ".join((*piece, pick.choice(fill))) if pick.random() < 0.6 else " ".join(piece) for piece in pieces
    )
