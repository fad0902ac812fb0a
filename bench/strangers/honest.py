"""Honest customers: individuals, and the groups that resemble a campaign in one way or several."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from strangers import wording
from strangers.people import DAY, Block, World, burst, cards, people, tokens, use_pool, window
from strangers.streams import Stream

CODE = ("benign_aider", "benign_polyglot_exercism", "benign_humaneval")
TALK = ("benign_hh_rlhf", "benign_prompts_chat", "benign_mtbench_vicuna", "benign_dstc8_service")
EXAMS = (
    "benign_bbh",
    "benign_gsm8k_test",
    "benign_humaneval",
    "benign_bfcl",
    "benign_mtbench_vicuna",
    "benign_llmbar_judging",
)


def ordinary_plans(w: World) -> None:
    """Mixtures of one to four kinds of everyday requests; people choose among them, some far more than others."""
    names = w.corpus.benign
    each = [
        w.stream(Stream(w.corpus.of(n), personal=True, by_taste=True, template=False, place=i))
        for i, n in enumerate(names)
    ]
    liked = w.rng.dirichlet(np.full(len(each), 0.8))
    for _ in range(int(w.rng.integers(60, 140))):
        k = int(w.rng.integers(1, 5))
        some = w.rng.choice(len(each), k, replace=False, p=(liked + 0.01) / (liked + 0.01).sum())
        w.plan([each[i] for i in some], list(w.rng.dirichlet(np.ones(k)) + 0.02))
    w.knobs["ordinary"] = len(w.plans)


def ordinary(w: World, n: int) -> np.ndarray:
    """A plan of everyday requests for each account."""
    return (w.rng.beta(0.8, 1.8, n) * w.knobs["ordinary"]).astype(int)


def blend(w: World, stream: int, share: float, plans: int, by_row: bool) -> np.ndarray:
    """Numbers of plans that hold this stream to that share and everyday requests for the rest."""
    made = []
    for plan in ordinary(w, plans):
        streams, edges, _ = w.plans[plan]
        weights = np.diff(edges, prepend=0.0) * max(1e-9, 1 - share)
        made.append(w.plan([stream, *streams.tolist()], [share, *weights.tolist()], by_row))
    return np.array(made)


def choose(w: World, stream: int, share: float, n: int) -> np.ndarray:
    """Blended plans for n accounts."""
    return w.rng.choice(blend(w, stream, share, int(w.rng.integers(2, 9)), w.rng.random() < 0.3), n)


def worded(w: World, kind: str) -> dict[str, Any]:
    """Wrappers of this kind, as fields of a stream."""
    pick, sentences = random.Random(int(w.rng.integers(1 << 40))), int(w.rng.integers(1, 6))
    if kind == "fixed":
        return {"wrappers": [wording.fixed(pick, sentences + 1)]}
    if kind == "several":
        return {"wrappers": [wording.fixed(pick, sentences + 1) for _ in range(int(w.rng.integers(2, 25)))]}
    if kind == "grammar":
        return {"wrappers": wording.varied(pick, sentences + 1, int(10 ** w.rng.uniform(1, 2.8)))}
    if kind == "paraphrase":
        return {"patterns": [p for _ in range(int(w.rng.integers(2, 6))) for p in wording.wrapper(pick, 4)]}
    return {}


def systems(w: World, kind: str) -> list[str]:
    """System texts: one, several or none."""
    count = {"shared": 1, "varied": int(w.rng.integers(3, 60))}.get(kind, 0)
    return [wording.fixed(random.Random(int(w.rng.integers(1 << 40))), int(w.rng.integers(1, 6))) for _ in range(count)]


def some(w: World, names: Any, least: int = 1, most: int = 3) -> np.ndarray:
    """The items of a few of these sources."""
    k = min(len(names), int(w.rng.integers(least, most + 1)))
    return w.corpus.of(*w.rng.choice(np.array(names), k, replace=False).tolist())


def tool(w: World, names: Any, kinds: tuple[str, ...] = ("fixed", "several", "grammar"), **more: Any) -> int:
    """A program many call: its wording and its system text over items of these sources."""
    system = systems(w, str(w.rng.choice(("shared", "none", "shared")))) if "system" not in more else more.pop("system")
    kind = str(w.rng.choice(kinds))
    stream = Stream(some(w, names), system=system, place=int(w.rng.integers(0, 6)), **worded(w, kind), **more)
    stream.personal = bool(more.get("personal", w.rng.random() < 0.5))
    return w.stream(stream)


def same_client(w: World, block: Block, share: float) -> None:
    """Let this share of the accounts use one client."""
    mine = w.rng.random(len(block["client"])) < share
    block["client"][mine] = w.rng.choice(len(w.net.clients), p=w.net.popularity)
    block["client2"][mine] = block["client"][mine]


def office(w: World, block: Block, share: float, narrow: bool = True) -> None:
    """Give the group addresses of its own, of a home provider or a datacentre."""
    providers = w.net.homes if w.rng.random() < 0.6 else w.net.centres
    size = int(w.rng.integers(1, 40))
    use_pool(w, block, w.net.pool(w.rng, w.rng.choice(providers, 1), size, narrow), share)


def near(w: World, block: Block) -> None:
    """Put the group into one country, most of it."""
    mine = w.rng.random(len(block["home"])) < 0.85
    block["home"][mine] = w.rng.integers(0, 12)


def company(w: World, n: int, name: str) -> Block:
    """Employees with cards and addresses of their own; one internal tool; the organisation is not declared."""
    b = people(w, n, name)
    if w.rng.random() < 0.6:
        b["email_domain"][:] = f"{tokens('d', w.ids(1))[0]}.example"
    if w.rng.random() < 0.5:
        office(w, b, w.rng.uniform(0.1, 0.7), narrow=False)
    b["plan_no"] = choose(w, tool(w, w.corpus.benign), w.rng.uniform(0.4, 0.98), n)
    b["kind"] = np.where(w.rng.random(n) < w.rng.uniform(0, 0.5), w.rng.integers(1, 4, n), b["kind"])
    same_client(w, b, w.rng.uniform(0.3, 1))
    return b


def declared(w: World, n: int, name: str) -> Block:
    """A company that declares its organisation and pays by few cards."""
    b = company(w, n, name)
    b["org_id"][:] = f"org-{w.ids(1)[0]}"
    cards(w, b, w.rng.uniform(5, 200))
    b["plan"][:], b["verification"][:] = "enterprise", w.rng.choice(("domain", "contract"))
    return b


def agency(w: World, n: int, name: str) -> Block:
    """An agency whose staff share cards, and templates for their clients' work."""
    b = people(w, n, name)
    cards(w, b, w.rng.uniform(4, 60))
    if w.rng.random() < 0.6:
        office(w, b, w.rng.uniform(0.3, 0.9))
    stream = tool(w, ("benign_fabric_patterns", "benign_prompts_chat", "benign_ui_localisation"))
    b["plan_no"] = choose(w, stream, w.rng.uniform(0.3, 0.95), n)
    return b


def class_(w: World, n: int, name: str) -> Block:
    """A university class with one assignment: new accounts, few items, campus addresses, one fortnight."""
    b = people(w, n, name, programme=w.rng.choice(("education", "none")))
    day = w.rng.uniform(0, w.days * 0.7)
    near(w, b)
    office(w, b, w.rng.uniform(0.2, 0.8))
    burst(w, b, day - 2, 1.5)
    window(w, b, day, min(w.days, day + w.rng.uniform(2, 16)))
    source = w.corpus.of(str(w.rng.choice(("benign_mathdial", "benign_polyglot_exercism", "benign_mathematics_dataset",
                                           "distill_reasoning_teacher", "benign_sql_eval"))))  # fmt: skip
    few = w.rng.choice(source, int(w.rng.integers(3, 40)))
    kind = str(w.rng.choice(("none", "fixed")))
    b["plan_no"] = choose(
        w, w.stream(Stream(few, personal=w.rng.random() < 0.5, **worded(w, kind))), w.rng.uniform(0.5, 0.95), n
    )
    b["volume"] *= 0.5
    return b


def hackathon(w: World, n: int, name: str) -> Block:
    """Two or three days at one venue, on a sponsor's starter kit and its credits."""
    b = people(w, n, name, programme=w.rng.choice(("startup", "none", "research")), referrer="partner")
    day = w.rng.uniform(0, w.days * 0.85)
    office(w, b, w.rng.uniform(0.5, 1))
    burst(w, b, day, 0.4)
    window(w, b, day, min(w.days, day + w.rng.uniform(1.5, 3.5)))
    b["plan_no"] = choose(w, tool(w, w.corpus.benign), w.rng.uniform(0.2, 0.8), n)
    same_client(w, b, w.rng.uniform(0.3, 0.9))
    b["volume"] *= 1.5
    return b


def one_roof(w: World, n: int, name: str) -> Block:
    """Unrelated people behind the same addresses: a coworking space, or the exits of a private network."""
    b = people(w, n, name, plan_no=ordinary(w, n))
    if name == "vpn_users":
        use_pool(w, b, int(w.rng.choice(w.net.shared)), w.rng.uniform(0.4, 0.95))
        b["rotating"] = w.rng.random(n) < 0.6
    else:
        near(w, b)
        office(w, b, w.rng.uniform(0.4, 0.9))
    return b


def carrier(w: World, n: int, name: str) -> Block:
    """Users of a region behind the few addresses of one mobile carrier."""
    b = people(w, n, name, plan_no=ordinary(w, n), home=int(w.rng.integers(0, len(w.net.carriers) // 2)))
    b["mobile"] = w.rng.beta(5, 1.5, n)
    return b


def open_tool(w: World, n: int, name: str) -> Block:
    """Strangers who use one popular program: the same system text, wording and client."""
    b = people(w, n, name)
    stream = tool(
        w,
        w.rng.choice((*CODE, "benign_fabric_patterns", "benign_webvoyager", "benign_xquad_rag"), 2),
        ("fixed", "several"),
    )
    b["plan_no"] = choose(w, stream, w.rng.uniform(0.3, 0.98), n)
    same_client(w, b, w.rng.uniform(0.5, 1))
    return b


def kit_users(w: World, n: int, name: str) -> Block:
    """Strangers who run a public kit for synthetic data: generation templates, on cards of their own."""
    b = people(w, n, name)
    items = some(w, w.corpus.distill, 1, 2)
    kind = str(w.rng.choice(("none", "none", "fixed", "grammar", "paraphrase")))
    stream = Stream(
        items,
        place=int(w.rng.integers(0, 6)),
        **worded(w, kind),
        template=bool(w.rng.random() < 0.6),
        reword=w.rng.uniform(0, 0.5) * (w.rng.random() < 0.4),
    )
    b["plan_no"] = choose(w, w.stream(stream), w.rng.uniform(0.2, 0.9), n)
    b["kind"] = np.where(w.rng.random(n) < 0.5, w.rng.integers(1, 4, n), b["kind"])
    same_client(w, b, w.rng.uniform(0.2, 0.9))
    return b


def evaluators(w: World, n: int, name: str) -> Block:
    """People who run public benchmarks, item after item, each on the models of the day."""
    b = people(w, n, name, kind=w.rng.integers(1, 4, n))
    stream = Stream(
        some(w, EXAMS, 1, 2),
        template=bool(w.rng.random() < 0.6),
        order=str(w.rng.choice(("line", "random"))),
        place=int(w.rng.integers(0, 6)),
    )
    b["plan_no"] = choose(w, w.stream(stream), w.rng.uniform(0.5, 0.98), n)
    b["temperature"] = np.zeros(n)
    b["volume"] *= w.rng.uniform(1, 4)
    return b


def permitted(w: World, n: int, name: str) -> Block:
    """Makers of synthetic data who declared it and have a contract."""
    b = kit_users(w, n, name)
    b["org_id"][:] = f"org-{w.ids(1)[0]}"
    b["verification"][:], b["plan"][:] = "contract", "enterprise"
    cards(w, b, max(2, n))
    office(w, b, w.rng.uniform(0.5, 1))
    b["volume"] *= 2
    return b


def mill(w: World, n: int, name: str) -> Block:
    """A content mill: some templates, round the clock, few cards."""
    b = people(w, n, name, kind=w.rng.integers(0, 4, n))
    cards(w, b, w.rng.uniform(2, 30))
    stream = tool(
        w,
        ("benign_prompts_chat", "benign_fabric_patterns", "benign_ui_localisation"),
        ("several", "grammar"),
        template=False,
    )
    b["plan_no"] = choose(w, stream, w.rng.uniform(0.6, 0.99), n)
    b["volume"] *= w.rng.uniform(1, 4)
    return b


def shop_bots(w: World, n: int, name: str) -> Block:
    """Support bots of many shops, made by one vendor: one system text but for the name, one cloud, many end users."""
    b = people(w, n, name, kind=2, crowd=True)
    use_pool(
        w, b, w.net.pool(w.rng, w.rng.choice(w.net.centres, 1), int(w.rng.integers(2, 60)), True), w.rng.uniform(0.7, 1)
    )
    stream = tool(w, ("benign_dstc8_service", "benign_banking77", "benign_hh_rlhf"), ("none",), template=False,
                  system=systems(w, "shared"), named=True, personal=True)  # fmt: skip
    b["plan_no"] = choose(w, stream, w.rng.uniform(0.9, 0.999), n)
    b["users"] = w.rng.geometric(0.01, n)
    same_client(w, b, 1)
    return b


def translators(w: World, n: int, name: str) -> Block:
    """A translation bureau with its instruction and its staff's hours."""
    b = people(w, n, name)
    if w.rng.random() < 0.5:
        cards(w, b, w.rng.uniform(2, 40))
    stream = tool(w, ("benign_alma_wmt", "benign_ui_localisation"), ("fixed", "several"))
    b["plan_no"] = choose(w, stream, w.rng.uniform(0.6, 0.98), n)
    return b


def graders(w: World, n: int, name: str) -> Block:
    """Researchers who grade outputs by rubrics."""
    b = people(w, n, name, programme=w.rng.choice(("research", "education", "none"), n))
    sources = (
        "benign_llmbar_judging",
        "benign_deepeval_metrics",
        "distill_prometheus",
        "distill_pandalm",
        "distill_ultrafeedback",
    )
    b["plan_no"] = choose(w, tool(w, sources, ("none", "fixed"), personal=False), w.rng.uniform(0.4, 0.95), n)
    b["kind"] = w.rng.integers(0, 4, n)
    return b


def founders(w: World, n: int, name: str) -> Block:
    """Members of a programme for startups: made in one intake, credits, virtual cards."""
    b = people(w, n, name, programme="startup", plan_no=ordinary(w, n), referrer="partner")
    burst(w, b, w.rng.uniform(-30, w.days * 0.6), w.rng.uniform(0.5, 6))
    mine = w.rng.random(n) < 0.7
    b["payment_issuer"][mine] = w.rng.choice(w.knobs["virtual"])
    if w.rng.random() < 0.6:
        b["plan_no"] = choose(w, tool(w, w.corpus.benign), w.rng.uniform(0.1, 0.6), n)
    return b


def families(w: World, n: int, name: str) -> Block:
    """Households of two to five: a card, a phone, a line."""
    b = people(w, n, name, plan_no=ordinary(w, n), pool=-1, pool_share=0)
    which = w.rng.integers(0, max(1, n // 3), n)
    firsts = np.unique(which, return_index=True)[1]
    back = np.zeros(which.max() + 1, dtype=int)
    back[which[firsts]] = firsts
    for column in ("payment_hash", "payment_issuer", "phone_hash", "phone_country", "billing_country", "home", "keys"):
        b[column] = b[column][back[which]]
    return b


def developers(w: World, n: int, name: str) -> Block:
    """Heavy developers alone with a coding agent."""
    b = open_tool(w, n, name)
    b["volume"] *= w.rng.lognormal(1.2, 0.7, n)
    b["style"], b["fresh"] = np.zeros(n, dtype=int), b["fresh"] * 0.2
    return b


def early(w: World, n: int, name: str) -> Block:
    """People, or a whole company, who move to a new model on its first day."""
    b = company(w, n, name) if name == "early_company" else people(w, n, name, plan_no=ordinary(w, n))
    release = w.rng.choice([r for r in w.releases if r > 0])
    b["switch"] = release + w.rng.uniform(0, 1, n) * DAY
    b["moved"] = w.rng.beta(6, 1.5, n)
    return b


def tutors(w: World, n: int, name: str) -> Block:
    """Tutors and their pupils on a teaching program."""
    b = people(w, n, name, programme=w.rng.choice(("education", "none"), n))
    sources = ("benign_mathdial", "benign_mathematics_dataset", "benign_polyglot_exercism", "distill_reasoning_teacher")
    b["plan_no"] = choose(w, tool(w, sources), w.rng.uniform(0.3, 0.9), n)
    return b


def players(w: World, n: int, name: str) -> Block:
    """A roleplay community that passes prompts on."""
    b = people(w, n, name, referrer=w.rng.choice(("forum", "friend")))
    sources = ("benign_prompts_chat", "distill_camel", "benign_hh_rlhf")
    b["plan_no"] = choose(w, tool(w, sources, ("several", "grammar")), w.rng.uniform(0.3, 0.9), n)
    return b


def etl(w: World, n: int, name: str) -> Block:
    """Batch jobs that label or extract, each night or all day."""
    b = people(w, n, name, kind=w.rng.choice((1, 3), n))
    sources = ("benign_banking77", "benign_xquad_rag", "benign_sql_eval", "benign_insight_bench", "distill_omnisql")
    b["plan_no"] = choose(w, tool(w, sources, personal=False), w.rng.uniform(0.8, 0.99), n)
    b["batch"] = w.rng.beta(1, 1, n)
    b["volume"] *= w.rng.uniform(1, 5)
    return b


def safety(w: World, n: int, name: str) -> Block:
    """Testers of safety, and app makers who check how sensitive questions are met."""
    b = people(w, n, name)
    sources = ("distill_xstest", "distill_cvalues", "distill_safety_prompts", "benign_hh_rlhf")
    b["plan_no"] = choose(w, tool(w, sources, ("none", "fixed", "several")), w.rng.uniform(0.3, 0.9), n)
    return b


def routed(w: World, n: int, name: str) -> Block:
    """Resale that is allowed: keys of a router's customers, all from its datacentre."""
    b = people(w, n, name, plan_no=ordinary(w, n), channel=int(w.rng.integers(5, 7)), crowd=True)
    use_pool(w, b, w.net.pool(w.rng, w.rng.choice(w.net.centres, 1), int(w.rng.integers(4, 80)), True), 0.97)
    same_client(w, b, w.rng.uniform(0.6, 1))
    return b


CLASSES: dict[str, tuple[Callable[[World, int, str], Block], float, int]] = {
    "undeclared_company": (company, 120, 4), "declared_organisation": (declared, 120, 3), "agency": (agency, 25, 5),
    "university_class": (class_, 60, 4), "hackathon": (hackathon, 70, 3), "coworking": (one_roof, 50, 4),
    "vpn_users": (one_roof, 120, 2), "regional_carrier": (carrier, 160, 2), "open_source_tool": (open_tool, 700, 2),
    "synthetic_kit_users": (kit_users, 120, 3), "benchmark_evaluators": (evaluators, 60, 3),
    "permitted_synthetic_data": (permitted, 25, 2), "content_mill": (mill, 25, 3), "shop_bots": (shop_bots, 90, 2),
    "translation_bureau": (translators, 35, 3), "rubric_researchers": (graders, 40, 3), "startup_programme": (founders, 110, 2),
    "families": (families, 150, 1), "solo_developers": (developers, 120, 1), "early_adopters": (early, 120, 1),
    "early_company": (early, 80, 1), "tutors": (tutors, 70, 2), "roleplay_community": (players, 90, 2),
    "batch_jobs": (etl, 50, 2), "safety_testers": (safety, 40, 2), "router_customers": (routed, 100, 2),
}  # fmt: skip
"""Builder, typical size, most instances of each class."""


def fill(w: World, accounts: int) -> None:
    """Honest accounts to this number: a drawn part in look-alike groups, individuals for the rest."""
    share = w.rng.uniform(0.3, 0.6)
    sizes = [
        (name, int(np.clip(typical * w.rng.lognormal(0, 0.9), 4, 5_000)))
        for name, (_, typical, most) in CLASSES.items()
        for _ in range(int(w.rng.integers(1, most + 1)))
    ]
    factor = min(1.0, accounts * share / sum(n for _, n in sizes))
    for name, n in sizes:
        w.blocks.append(CLASSES[name][0](w, max(4, round(n * factor)), name))
    rest = accounts - sum(max(4, round(n * factor)) for _, n in sizes)
    b = people(w, rest, "individual")
    b["plan_no"] = ordinary(w, rest)
    w.blocks.append(b)
