"""Honest accounts: the classes, what each asks for, and how it is sent."""

from dataclasses import dataclass

import numpy as np

from . import groups
from .draft import Columns, Draft
from .network import AGENTS, OFFSETS
from .persona import equip, persona, reach
from .priors import DAY, HOUR, POPULATIONS
from .tempo import nightly, order_within, people, product, steady
from .text import rows_in, seeds, windows
from .wording import Wrapper, languages

CHAT = "hh_rlhf prompts_chat dstc8_service mtbench_vicuna alma_wmt mathematics_dataset mathdial banking77:chat fabric_patterns"
CODE = "aider polyglot_exercism prompts_chat:coding humaneval:coding aider bfcl sql_eval"
OFFICE = "sql_eval insight_bench prompts_chat:writing alma_wmt aider fabric_patterns xquad_rag ui_localisation"
GRADE = "deepeval_metrics llmbar_judging mtbench_vicuna:grading +prometheus +ultrafeedback:grading +pandalm"
KITS = "+distilabel +evol_instruct_wizardlm +self_instruct +evol_code +camel +raft"
HARNESS = "bbh gsm8k_test humaneval bfcl llmbar_judging xquad_rag mathematics_dataset +reasoning_teacher +xstest"


@dataclass(frozen=True, slots=True)
class Style:
    """How a class behaves. `wrap`: none, casual, own, row (the source's template), agent; width: rows of a subject."""

    sources: str
    persona: str = "private"
    tempo: str = "people"
    client: str = "any"
    reach: str = "home"
    wrap: str = "casual"
    width: tuple[int, int] = (4, 60)
    follow: float = 0.3
    channels: tuple[float, float, float] = (0.8, 0.2, 0.0)  # api, console, cloud
    group: tuple[int, int] = (1, 2)


STYLES: dict[str, Style] = {
    "chat_user": Style(CHAT, client="browser", channels=(0.25, 0.75, 0)),
    "coding_agent": Style(CODE, "developer", "agent", "agent", wrap="agent", follow=0.8, channels=(1, 0, 0)),
    "developer": Style(
        CODE + " insight_bench webvoyager llava_eval",
        "developer",
        client="sdk",
        reach="mixed",
        channels=(0.95, 0, 0.05),
    ),
    "product_backend": Style(
        "banking77 dstc8_service ui_localisation xquad_rag fabric_patterns prompts_chat",
        "firm",
        "product",
        "sdk",
        "cloud",
        "own",
        (40, 400),
        0.2,
        (0.8, 0, 0.2),
        (1, 4),
    ),
    "nightly_batch": Style(
        "banking77 ui_localisation alma_wmt sql_eval",
        "firm",
        "nightly",
        "sdk",
        "cloud",
        "own",
        (60, 600),
        0,
        (0.85, 0, 0.15),
    ),
    "benchmark_researcher": Style(HARNESS, "science", "steady", "sdk", "mixed", "row", (100, 1000), 0, (0.95, 0, 0.05)),
    "eval_vendor": Style(GRADE, "firm", "product", "sdk", "cloud", "row", (60, 600), 0, (0.85, 0, 0.15), (1, 3)),
    "synthetic_permitted": Style(KITS, "firm", "steady", "sdk", "cloud", "row", (200, 900), 0.05, (0.9, 0, 0.1)),
    "synthetic_solo": Style(
        KITS + " banking77", "developer", "steady", "sdk", "mixed", "own", (40, 300), 0.05, (1, 0, 0)
    ),
    "school_class": Style(
        "mathdial mathematics_dataset polyglot_exercism:education mtbench_vicuna",
        "student",
        client="browser",
        wrap="none",
        width=(6, 25),
        channels=(0.2, 0.8, 0),
        group=(12, 70),
    ),
    "hackathon": Style(
        "bfcl aider prompts_chat:coding insight_bench",
        "developer",
        client="sdk",
        wrap="own",
        channels=(1, 0, 0),
        group=(20, 160),
    ),
    "company_seats": Style(OFFICE, "firm", client="any", wrap="casual", channels=(0.6, 0.35, 0.05), group=(4, 90)),
    "undeclared_company": Style(
        OFFICE, "developer", client="sdk", wrap="own", width=(40, 300), channels=(0.95, 0, 0.05), group=(10, 120)
    ),
    "kit_user": Style(KITS, "developer", "mixed", "sdk", "mixed", "row", (20, 150), 0.05, (1, 0, 0)),
    "agency": Style(
        OFFICE + " banking77 dstc8_service",
        "firm",
        "product",
        "sdk",
        "cloud",
        "own",
        (20, 200),
        0.2,
        (0.95, 0, 0.05),
        (3, 13),
    ),
    "family": Style(CHAT, client="browser", channels=(0.2, 0.8, 0), group=(2, 6)),
    "router": Style(CHAT + " " + CODE, "firm", "product", "sdk", "cloud", "none", (900, 1800), 0.4, (1, 0, 0)),
    "vpn_user": Style(CHAT + " aider", reach="vpn", client="any", channels=(0.4, 0.6, 0)),
    "carrier_nat_user": Style(CHAT, reach="mobile", client="browser", channels=(0.25, 0.75, 0)),
    "privacy_relay_user": Style(CHAT, reach="relay", client="browser", channels=(0.2, 0.8, 0)),
    "first_day_migrator": Style(
        CODE + " mtbench_vicuna", "developer", client="sdk", reach="mixed", channels=(0.95, 0, 0.05), group=(1, 25)
    ),
    "viral_asker": Style(CHAT, client="browser", channels=(0.25, 0.75, 0)),
    "tutor": Style(
        "mathdial mathematics_dataset polyglot_exercism:education",
        "private",
        client="any",
        wrap="own",
        channels=(0.5, 0.5, 0),
    ),
    "rag_vendor": Style("xquad_rag", "firm", "product", "sdk", "cloud", "own", (100, 900), 0.1, (0.8, 0, 0.2), (1, 4)),
}


def populate(draft: Draft, accounts: int, exchanges: int) -> dict[str, int]:
    """All honest classes; returns how many accounts each has."""
    rng = draft.rng
    shares = {name: rng.uniform(low, high) for name, (low, high, _, _) in POPULATIONS.items()}
    total = sum(shares.values())
    sizes = {name: max(2, round(accounts * share / total)) for name, share in shares.items()}
    sizes["chat_user"] += accounts - sum(sizes.values())
    volumes = {name: POPULATIONS[name][2] * rng.lognormal(0, 0.3) for name in sizes}
    scale = exchanges / sum(sizes[name] * volumes[name] for name in sizes)
    draft.agent_texts = _agents(draft)
    draft.kits = list(rng.choice(KITS.split(), int(rng.integers(1, 3)), replace=False))
    draft.viral_row = int(rng.choice(draft.corpus.rows("benign_mtbench_vicuna", "writing")))
    for name, n in sizes.items():
        _populate_class(draft, name, n, scale * volumes[name])
    return sizes


def _populate_class(draft: Draft, name: str, n: int, mean: float) -> None:
    """One class: its accounts, their times and their texts."""
    style, rng = STYLES[name], draft.rng
    group = groups.numbers(rng, n, style.group)
    country = groups.countries(rng, group) if style.group[1] > 2 else None
    columns = persona(draft, n, style.persona, name, country)
    reach(draft, columns, style.reach)
    agent = np.minimum(rng.geometric(0.35, n) - 1, len(draft.agent_texts) - 1)
    equip(draft, columns, "any" if style.client == "agent" else style.client)
    if style.client == "agent":
        for number in range(len(draft.agent_texts)):
            mine = agent == number
            columns["client"][mine] = draft.client(f"agent{number}", int(mine.sum()))
            columns["client2"][mine] = draft.client(f"agent{number}", int(mine.sum()))
    _channels(draft, columns, style)
    if name in groups.SHAPES:
        groups.SHAPES[name](draft, columns, group)
    sigma = draft.settings.rates["volume_sigma"]
    raw = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    counts = np.clip(np.round(raw), 1, 4_000).astype(np.int64)
    account = draft.open(columns)
    time, first = times(draft, columns, counts, style)
    _write(draft, name, style, group, account, counts, time, first, agent)


def _channels(draft: Draft, columns: Columns, style: Style) -> None:
    """The way in of each account."""
    clouds = np.array(["cloud:altus", "cloud:meridian"], dtype=object)
    n = len(columns["created"])
    kind = draft.rng.choice(3, n, p=style.channels)
    columns["channel"] = np.select([kind == 0, kind == 1], ["api", "console"], clouds[draft.rng.integers(0, 2, n)])


def times(draft: Draft, columns: Columns, counts: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times, and where conversations may begin, under the tempo of a style."""
    rng, begin, end = draft.rng, columns["begin"], columns["until"]
    if style.tempo in ("people", "agent", "mixed"):
        working = np.full(len(counts), style.persona in ("developer", "firm", "science")) & (
            rng.random(len(counts)) < 0.7
        )
        gaps, length = (draft.traces.think_s, 15.0) if style.tempo == "agent" else (None, 3.0)
        time, session = people(rng, counts, begin, end, OFFSETS[columns["home"]], working, gaps, length)
        first = np.diff(session, prepend=-1) != 0
        own_clock = {"mixed": 0.5, "people": 0.25 if style.client == "sdk" else 0.0}.get(style.tempo, 0.0)
        even = steady(rng, counts, begin, end)
        time = np.where(np.repeat(rng.random(len(counts)) < own_clock, counts), even, time)
        return time, first | (rng.random(len(first)) > style.follow)
    if style.tempo == "steady":
        hours = rng.exponential(10 * HOUR, len(counts)) + HOUR
        last = np.where(rng.random(len(counts)) < 0.5, np.minimum(begin + hours, end), end)
        time = steady(rng, counts, begin, last, 0.9)
    elif style.tempo == "nightly":
        time = nightly(rng, counts, begin, end)
    else:
        time = product(rng, draft.traces, counts, begin, end)
    return time, (order_within(counts) == 0) | (rng.random(len(time)) > style.follow)


def source_rows(draft: Draft, sources: str) -> list[np.ndarray]:
    """Row numbers of the named sources; `+` marks those made for generation, `:` a task."""
    found = []
    for source in sources.split():
        file, _, task = source.partition(":")
        file = f"distill_{file[1:]}" if file.startswith("+") else f"benign_{file}"
        rows = draft.corpus.rows(file, task or None)
        rows = rows[[not draft.corpus.prompts[r].startswith("# Diffs") for r in rows]]  # one project's own commits
        if len(rows) >= 20:
            found.append(rows)
    return found


def _write(
    draft: Draft, name: str, style: Style, group: np.ndarray, account: np.ndarray, counts: np.ndarray, time: np.ndarray,
    first: np.ndarray, agent: np.ndarray,
) -> None:  # fmt: skip
    """The texts of a class's exchanges, and the exchanges themselves."""
    rng = draft.rng
    who = np.repeat(np.arange(len(counts)), counts)
    pools = source_rows(draft, " ".join(draft.kits) if name == "kit_user" else style.sources)
    topics = windows(rng, pools, int(group.max()) + 1 if style.group[1] > 2 else len(counts), style.width)
    topic = topics[group[who]] if style.group[1] > 2 else topics[who]
    in_order = style.tempo in ("steady", "nightly")
    place = order_within(counts) if in_order else rng.integers(0, 1 << 20, len(who))
    rows = rows_in(pools, topic, place)
    conversation, turn = draft.conversation_numbers(first)
    later = (turn > 0) & (rng.random(len(who)) < 0.6)
    framed = style.wrap == "row" or style.tempo == "nightly"
    vary = np.full(len(who), round(100 * draft.settings.rates["swap"]) * (1 if framed else -1))
    seed = seeds(account[who], np.arange(len(who)), 5)
    if name in ("benchmark_researcher", "eval_vendor"):
        verbatim = rng.random(len(counts)) < (0.9 if name == "benchmark_researcher" else 0.3)
        vary = np.where(verbatim[who], 0, vary)
    if name == "school_class":  # the same exercise sheet; some copy it word for word, some retell it
        seed = np.where(rng.random(len(who)) < 0.6, seeds(topic[:, 1], rows, 6), seed)
        later &= rng.random(len(who)) < 0.8
    wrap, system, tools = _wrapping(draft, style, group, rows, who, agent)
    users = np.where(rng.random(len(counts)) < 0.35, rng.integers(3, 400, len(counts)), 0) * (style.tempo == "product")
    end_user = np.where(
        users[who] > 0, account[who] * 1000 + rng.integers(0, 1000, len(who)) % np.maximum(users[who], 1), -1
    )
    draft.send(
        account[who], time, row=np.where(later, -1, rows), vary=vary, seed=seed, wrap=np.where(later, -1, wrap), system=system,
        tools=tools, conversation=conversation, turn=turn, images=_images(draft, rows), task=rows, end_user=end_user,
        batch=np.full(len(who), style.tempo == "nightly") & (rng.random(len(counts)) < 0.5)[who],
    )  # fmt: skip
    if name in ("viral_asker", "chat_user", "vpn_user", "carrier_nat_user"):
        _viral(draft, account, 1.0 if name == "viral_asker" else 0.03)


def _wrapping(
    draft: Draft, style: Style, group: np.ndarray, rows: np.ndarray, who: np.ndarray, agent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(wrapper, system text, tools) of each exchange."""
    rng, blank = draft.rng, np.full(len(rows), -1)
    if style.wrap == "agent":
        tools = np.array([t for _, t in draft.agent_texts])[agent]
        return blank, np.array([s for s, _ in draft.agent_texts])[agent][who], tools[who]
    offered = np.full(len(group), -1)
    some = rng.random(len(group)) < (0.25 if style.client in ("sdk", "any") else 0.05)
    offered[some] = [draft.toolset(int(rng.integers(1, 8))) for _ in range(int(some.sum()))]
    tools = offered[who]
    if style.wrap == "none":
        return blank, blank, tools
    if style.wrap == "casual":
        casual = np.array([draft.text(Wrapper(reworded=languages(rng))) for _ in range(6)])
        return np.where(rng.random(len(rows)) < 0.2, casual[group[who] % 6], -1), blank, tools
    if style.wrap == "row":
        mine = draft.row_wrappers()[rows]
    else:
        holders = int(group.max()) + 1
        several = draft.composed(holders), draft.composed(holders)
        mine = np.where(rng.random(len(rows)) < 0.75, several[0][group[who]], several[1][group[who]])
        mine = np.where((rng.random(len(group)) < (0.25 if style.group[1] > 15 else 0.03))[who], -1, mine)
    in_system = (rng.random(int(group.max()) + 1) < 0.5)[group[who]] & (mine >= 0)
    return np.where(in_system, -1, mine), np.where(in_system, mine, -1), tools


def _images(draft: Draft, rows: np.ndarray) -> np.ndarray:
    """One image or two with questions about images."""
    seen = np.char.find(draft.corpus.file.astype(str), "llava")[rows] >= 0
    return np.where(seen, draft.rng.integers(1, 3, len(rows)), -1)


def _agents(draft: Draft) -> list[tuple[int, int]]:
    """(system text, tools) of four to eight public coding agents."""
    corpus, rng = draft.corpus, draft.rng
    known = [t for f in ("benign_aider", "benign_webvoyager") for t in corpus.wrappers(corpus.rows(f))]
    found = []
    for number in range(int(rng.integers(4, 9))):
        before, after = known[number] if number < len(known) else ("", "")
        if not before.strip():
            wrapper = draft.texts[int(draft.composed(1, "agentic_coding")[0])]
            before, after = wrapper.before, wrapper.after
        name = f"You are {AGENTS[number]}, a coding agent in a terminal. "
        found.append((draft.text(Wrapper(name + before, after)), draft.toolset(int(rng.integers(5, 15)))))
    return found


def _viral(draft: Draft, account: np.ndarray, share: float) -> None:
    """The prompt of the week: copied word for word by most, with a word of their own by others."""
    rng, settings = draft.rng, draft.settings
    who = account[rng.random(len(account)) < share]
    peak = settings.start + (settings.end - settings.start) * 0.3
    time = np.clip(peak + rng.exponential(2.5 * DAY, len(who)), settings.start, settings.end - 1).astype(np.int64)
    opened = np.concatenate([c["created"] for c in draft.accounts])[who]
    late = opened >= time
    time = np.where(late, np.minimum(opened + rng.integers(1, 12, len(who)) * HOUR, settings.end - 1), time)
    same = rng.random(len(who)) < 0.75
    draft.send(
        who, time, row=draft.viral_row, vary=np.where(same, 0, 15), seed=seeds(who, 3), task=draft.viral_row,
        conversation=draft.conversation_numbers(np.ones(len(who), bool))[0],
    )  # fmt: skip


assert set(STYLES) == set(POPULATIONS)
