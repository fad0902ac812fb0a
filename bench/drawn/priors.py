"""Every number that a world or a campaign draws, with the range it is drawn from and why."""

from dataclasses import dataclass

import numpy as np

DAY = 86_400_000_000  # microseconds
HOUR = DAY // 24


@dataclass(frozen=True, slots=True)
class Prior:
    """A range: `uniform`, `log` (log-uniform), `int`, `logint`, or `chance` (true with probability `low`)."""

    kind: str
    low: float
    high: float
    why: str


PRIORS: dict[str, Prior] = {
    # the world
    "accounts": Prior("logint", 12_000, 30_000, "a slice of a provider that one machine can judge in minutes"),
    "exchanges": Prior("logint", 300_000, 800_000, "about 25 an account, as in mixed free and paid traffic"),
    "days": Prior("int", 14, 35, "published campaigns ran two weeks to three months"),
    "release_at": Prior("uniform", 0.35, 0.65, "one release in the middle, so that both sides can be seen"),
    "uptake": Prior("uniform", 0.15, 0.6, "share of honest accounts that ever move to the new model in the log"),
    "uptake_days": Prior("log", 2, 12, "mean delay of those who move"),
    "new_accounts": Prior("uniform", 0.3, 0.5, "share of honest accounts opened inside the log, a growing service"),
    "card_sharing": Prior("log", 0.005, 0.05, "honest people on a friend's card, outside families and agencies"),
    "virtual_cards": Prior("log", 0.04, 0.2, "privacy cards are ordinary in some countries"),
    "vpn": Prior("log", 0.03, 0.15, "surveys put consumer VPN use between a few and twenty per cent"),
    "mobile": Prior("uniform", 0.1, 0.4, "share of people who sometimes come from a carrier NAT"),
    "borders": Prior("log", 0.02, 0.08, "honest emigrants and travellers: card, phone and network disagree"),
    "no_ja4": Prior("chance", 0.25, 0, "TLS is often ended by a load balancer that does not pass it on"),
    "no_phone": Prior("chance", 0.2, 0, "many providers never ask"),
    "few_user_agents": Prior("chance", 0.2, 0, "gateways that strip headers"),
    "no_responses": Prior("chance", 0.3, 0, "providers who do not keep answers"),
    "no_issuer": Prior("chance", 0.15, 0, "payment processors that give a token only"),
    "swap": Prior("uniform", 0.5, 0.65, "share of content words that differ between two prompts after the same source"),
    "volume_sigma": Prior("uniform", 0.9, 1.5, "spread of log volume: the tail is heavy in every public trace"),
    # how many campaigns, and what they share
    "campaigns": Prior("int", 4, 8, "every class in most worlds, so that twenty worlds hold each ten times"),
    "campaign_accounts": Prior("uniform", 0.15, 0.4, "cap on campaign accounts, far above life, to bound the size"),
    "shares_accounts": Prior("logint", 50, 3_000, "hundreds of accounts (Feb 2026) to thousands at peak (Sep 2026)"),
    "proxy_accounts": Prior("logint", 200, 2_500, "one network ran 20,000; scaled to the world"),
    "four_accounts": Prior("logint", 1_000, 4_000, "over 4,000 users in two days in the July 2026 case"),
    "purpose_accounts": Prior("logint", 60, 800, "the largest that hand-kept sticky accounts are likely to reach"),
    "public_accounts": Prior("logint", 60, 1_000, "as above, less careful"),
    "small_accounts": Prior("int", 6, 14, "below what any population test can see for sure"),
    "share_wording": Prior("chance", 0.65, 0, "each trait drawn alone; at least one is kept"),
    "share_cards": Prior("chance", 0.5, 0, "shared payment methods are named by every advisory"),
    "share_addresses": Prior("chance", 0.5, 0, "pools of proxies against one sticky address each"),
    "accounts_per_card": Prior("logint", 2, 20, "4 to 6 in the prototypes, more for virtual cards"),
    "addresses_per_account": Prior("log", 0.05, 2.5, "size of the pool against the accounts"),
    "pool_with_residents": Prior("uniform", 0.0, 0.6, "addresses of a residential proxy that honest people hold too"),
    "wrappers": Prior("logint", 3, 40, "templates in variations"),
    "jitter": Prior("uniform", 0.05, 0.3, "share of words reworded by a light jitter"),
    "camouflage": Prior("uniform", 0.0, 0.6, "share of the exchanges that is ordinary text"),
    "purpose_camouflage": Prior("uniform", 0.5, 0.7, "the careful operator"),
    "customers": Prior("uniform", 0.6, 0.8, "share of a proxy's exchanges that are its real customers'"),
    "requests": Prior(
        "log", 0.2, 1.6, "median exchanges an account, against the world's mean: campaigns keep to the plans"
    ),
    "requests_four": Prior("uniform", 3, 6, "about four requests a user"),
    "requests_sigma": Prior("uniform", 0.3, 1.1, "operators level their load less or more"),
    "targets": Prior("int", 1, 4, "volume concentrated in few capabilities"),
    "source_template": Prior("chance", 0.4, 0, "half-public templates; otherwise a wrapper of their own"),
    "in_system": Prior("chance", 0.4, 0, "wrapper in the system text or in the turn"),
    "generations": Prior("int", 2, 5, "bans answered by new heads"),
    "bans": Prior("chance", 0.5, 0, "half of the campaigns that are large enough to be banned"),
    "same_pool": Prior("chance", 0.3, 0, "two operators behind one proxy network, Sep 2026"),
    # how they behave
    "span": Prior("uniform", 0.35, 1.0, "part of the log in which the campaign is active"),
    "aged": Prior("uniform", 0.15, 0.6, "accounts bought or opened long before"),
    "pivot": Prior("uniform", 0.0, 0.3, "of the queries in the 24 h after a release, where the operator is slow"),
    "pivot_hard": Prior("uniform", 0.4, 0.6, "nearly half within a day, as published for one lab"),
    "pivots": Prior("chance", 0.34, 0, "one in three moves hard"),
    "reask": Prior("uniform", 0.0, 0.08, "same prompt through another account, for voting or by fault"),
    "follow": Prior("log", 0.01, 0.3, "second turns: check, continue, repair"),
    "curriculum": Prior("chance", 0.3, 0, "the list is walked in order of source or difficulty"),
    "crossing": Prior("uniform", 0.0, 0.35, "accounts whose card, phone or network is of another country"),
    "clouds": Prior("chance", 0.35, 0, "also through a cloud or a reseller"),
    "tools": Prior("chance", 0.3, 0, "offers tools where the target has none of its own"),
    "temperature": Prior("chance", 0.35, 0, "fixed for all accounts; otherwise each as its client has it"),
    "logprobs": Prior("chance", 0.1, 0, "soft labels, where the interface gives them"),
    "several_answers": Prior("chance", 0.1, 0, "n above one, for voting"),
    "thinking": Prior("uniform", 0.05, 0.6, "share of the queries with thinking on"),
    "passes": Prior("uniform", 1.0, 3.0, "answers wanted for each item of a public list"),
    "run": Prior("log", 1.0, 8.0, "requests an account takes in a row where a queue deals them out"),
    "run_gap_s": Prior("log", 10, 150, "seconds between them"),
    "tools_sent": Prior(
        "uniform", 0.2, 0.9, "share of tool and agent queries that offer tools in the request, not the text"
    ),
    "virtual": Prior("uniform", 0.05, 0.5, "share of the accounts on virtual cards"),
}

# Share of honest accounts (low, high), mean relative volume, why it is here.
POPULATIONS: dict[str, tuple[float, float, float, str]] = {
    "chat_user": (0.16, 0.28, 9, "private people; the bulk"),
    "coding_agent": (0.08, 0.16, 40, "strangers behind the same few open-source agents"),
    "developer": (0.06, 0.12, 25, "own scripts on the plain interface"),
    "product_backend": (0.015, 0.03, 200, "own template, high volume"),
    "nightly_batch": (0.008, 0.02, 150, "the clock, one template"),
    "benchmark_researcher": (0.008, 0.02, 150, "public harness prompts, word for word"),
    "eval_vendor": (0.004, 0.01, 250, "grading with rubrics all day"),
    "synthetic_permitted": (0.002, 0.006, 350, "data generation under contract or programme"),
    "synthetic_solo": (0.005, 0.015, 90, "one person, one small classifier, nothing declared"),
    "school_class": (0.04, 0.09, 10, "one NAT, one hour of sign-up, the same homework"),
    "hackathon": (0.02, 0.05, 20, "burst, referrer, starter template"),
    "company_seats": (0.05, 0.1, 22, "declared organisation"),
    "undeclared_company": (0.04, 0.08, 28, "one template and one rhythm without a declared organisation"),
    "kit_user": (0.02, 0.04, 50, "strangers with the same public generation kit"),
    "agency": (0.01, 0.02, 60, "one card for several clients"),
    "family": (0.02, 0.05, 10, "card and address shared"),
    "router": (0.0008, 0.002, 900, "one account, many end users"),
    "vpn_user": (0.02, 0.05, 10, "shared egress"),
    "carrier_nat_user": (0.03, 0.07, 9, "shared egress"),
    "privacy_relay_user": (0.01, 0.03, 9, "shared egress"),
    "first_day_migrator": (0.02, 0.05, 30, "moves on the day of the release, alone or as a company"),
    "viral_asker": (0.02, 0.06, 6, "the prompt of the week, copied by thousands"),
    "tutor": (0.006, 0.015, 40, "worked solutions all day"),
    "rag_vendor": (0.003, 0.008, 220, "long context, one template"),
}


def draw(rng: np.random.Generator, name: str) -> float | int | bool:
    """One value from the named prior."""
    prior = PRIORS[name]
    if prior.kind == "chance":
        return bool(rng.random() < prior.low)
    if prior.kind == "uniform":
        return round(float(rng.uniform(prior.low, prior.high)), 4)
    if prior.kind == "int":
        return int(rng.integers(int(prior.low), int(prior.high) + 1))
    value = float(np.exp(rng.uniform(np.log(prior.low), np.log(prior.high))))
    return round(value) if prior.kind == "logint" else round(value, 4)


def pick(rng: np.random.Generator, options: dict[str, float], n: int | None = None) -> str | np.ndarray:
    """One option, or an array of `n`, with the given weights."""
    names = np.array(list(options), dtype=object)
    weights = np.array(list(options.values()), dtype=float)
    return rng.choice(names, size=n, p=weights / weights.sum())


def mix(*parts: np.ndarray | int) -> np.ndarray:
    """A 64-bit hash of whole numbers, elementwise; the same input gives the same draw anywhere in the world."""
    with np.errstate(over="ignore"):
        state = np.uint64(0x9E3779B97F4A7C15)
        for part in parts:
            state = (state ^ np.asarray(part).astype(np.int64).view(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def unit(hashed: np.ndarray) -> np.ndarray:
    """Hashes as floats in [0, 1)."""
    return (hashed >> np.uint64(11)).astype(np.float64) / float(1 << 53)
