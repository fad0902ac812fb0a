"""Wrappers: composed, jittered, or reworded anew for each prompt; and what follows in a conversation."""

import re
from dataclasses import dataclass, field
from random import Random

import numpy as np

from .grammar import CLOSINGS, DEMANDS, FOLLOW_UPS, FORMATS, LABELS, PREAMBLES, PRODUCTS, REWORDED

CHOICE = re.compile(r"\{([^{}]*)\}")
SYNONYMS: dict[str, tuple[str, ...]] = {}
for _group in [
    "answer response reply result",
    "explain describe clarify detail",
    "task request item problem",
    "give provide return supply",
    "write state record note",
    "step stage part point",
    "full complete whole entire",
    "use apply employ take",
    "check verify confirm",
    "following next given present",
    "must should shall needs",
    "careful exact precise rigorous",
    "question query prompt input",
    "solution outcome output conclusion",
    "reason argument ground basis",
    "instruction direction rule order",
    "begin start open",
    "final last closing ultimate",
    "text passage content message",
    "good sound strong suitable",
    "please kindly do",
]:
    for _word in _group.split():
        SYNONYMS[_word] = tuple(w for w in _group.split() if w != _word)


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What stands around a query. `jitter` rewords that share of the words; `reworded` weighs languages instead."""

    before: str = ""
    after: str = ""
    jitter: float = 0.0
    reworded: dict[str, float] = field(default_factory=dict)

    def around(self, query: str, seed: int) -> str:
        """The prompt as sent."""
        if self.reworded:
            return reword(query, self.reworded, Random(seed))
        if self.jitter:
            dice = Random(seed)
            return jitter(self.before, self.jitter, dice) + query + jitter(self.after, self.jitter, dice)
        return self.before + query + self.after


def expand(phrase: str, dice: Random) -> str:
    """One reading of a phrase with nested choices."""
    while "{" in phrase:
        phrase = CHOICE.sub(lambda m: dice.choice(m.group(1).split("|")), phrase)
    return phrase


def compose(dice: Random, capability: str | None) -> tuple[str, str]:
    """A new fixed wrapper; without a capability, a product's. Both use the same phrases."""
    pieces = [expand(dice.choice(PREAMBLES), dice)]
    demands = DEMANDS[capability] if capability else PRODUCTS[:5] if dice.random() < 0.75 else PRODUCTS
    pieces += [expand(d, dice) for d in dice.sample(demands, k=min(len(demands), dice.choice([1, 2])))]
    pieces += [expand(f, dice) for f in dice.sample(FORMATS, k=dice.choice([1, 2, 3]))]
    pieces += [expand(c, dice) for c in dice.sample(CLOSINGS, k=dice.choice([0, 1, 2]))]
    if dice.random() < 0.5:
        first, rest = pieces[:1], pieces[1:]
        dice.shuffle(rest)
        pieces = first + rest
    label = dice.choice(LABELS)
    gap = dice.choice(["\n", "\n\n", " "])
    if dice.random() < 0.25:
        return pieces[0] + gap + label + "\n", "\n\n" + gap.join(pieces[1:])
    return gap.join(pieces) + "\n\n" + label + dice.choice([" ", "\n"]), {"[[": "]]", "<input>": "</input>"}.get(
        label, ""
    )


def jitter(text: str, share: float, dice: Random) -> str:
    """The text with some words replaced by near words, some dropped case or marks."""
    words = text.split(" ")
    for i, word in enumerate(words):
        core = word.strip(".,:;\n").lower()
        if core in SYNONYMS and dice.random() < 3 * share:
            words[i] = word.lower().replace(core, dice.choice(SYNONYMS[core]))
        elif len(core) > 3 and dice.random() < share / 3:
            words[i] = dice.choice(
                [word + ",", word.lower(), word.capitalize(), dice.choice(["really", "just", "also"]) + " " + word]
            )
    return " ".join(words)


def reword(query: str, languages: dict[str, float], dice: Random) -> str:
    """The query within sentences drawn for this prompt alone: which, in what order, where, and in what language."""
    language = dice.choices(list(languages), list(languages.values()))[0]
    grammar = REWORDED[language]
    kinds = [k for k, chance in (("open", 0.6), ("want", 0.95), ("form", 0.5), ("end", 0.35)) if dice.random() < chance]
    if dice.random() < 0.4:
        dice.shuffle(kinds)
    end = "。" if language == "zh" else "."
    said = [_sentence(expand(dice.choice(grammar[k]), dice), end, dice) for k in kinds]
    at = dice.randint(0, len(said))
    gap = dice.choice(["\n", "\n\n", " "])
    return gap.join([s for s in (" ".join(said[:at]), query, " ".join(said[at:])) if s])


def follow_up(seed: int) -> str:
    """A short second turn."""
    dice = Random(seed)
    return " ".join(expand(dice.choice(FOLLOW_UPS), dice).replace("#", str(dice.randint(1, 60))).split())


def languages(rng: np.random.Generator) -> dict[str, float]:
    """How often each language is used by one rewording operator."""
    others = rng.dirichlet([0.5, 0.5, 0.5]) * rng.uniform(0.05, 0.5)
    return {"en": 1 - float(others.sum()), **{k: float(v) for k, v in zip(("de", "es", "zh"), others)}}


def _sentence(text: str, end: str, dice: Random) -> str:
    text = " ".join(text.split()).replace(" ,", ",")
    if dice.random() < 0.7:
        text = text[:1].upper() + text[1:]
    return text if text[-1:] in "?:,-？" else text + dice.choice([end, end, "", "!"])
