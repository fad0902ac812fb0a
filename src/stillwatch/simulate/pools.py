"""What all accounts, honest or not, draw from: clients, TLS prints, settings, mail domains, countries, networks.

The one rule: a pool has no corner reserved for operators. Whatever a campaign uses, honest accounts use in quantity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

COUNTRIES = ("US", "DE", "IN", "GB", "FR", "BR", "JP", "SG", "CA", "NL", "PL", "VN", "ID", "TR", "KR", "HK", "AU", "NG")
COUNTRY_SHARES = np.array([24, 8, 9, 7, 5, 6, 5, 5, 4, 3, 3, 4, 4, 3, 3, 4, 2, 1], float)
UTC_OFFSETS = np.array([-6, 1, 5, 0, 1, -3, 9, 8, -5, 1, 1, 7, 7, 3, 9, 8, 10, 1])

CONSOLE, API, AGENT = 0, 1, 2
"""How an account reaches the models: the provider's own pages, code of its own, a coding agent."""

_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/139.0", "Mozilla/5.0 (Macintosh; Intel Mac OS X) Safari/18.4",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/141.0", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5) Mobile",
    "Mozilla/5.0 (Linux; Android 15) Chrome/138.0 Mobile", "Mozilla/5.0 (X11; Linux x86_64) Chrome/139.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Edg/139.0", "Mozilla/5.0 (Macintosh; Intel Mac OS X) Chrome/139.0",
)  # fmt: skip
_KITS = (
    "sdk-python/1.58.2", "sdk-python/1.61.0", "sdk-python/1.64.1", "sdk-python/1.40.0", "sdk-node/5.8.1",
    "sdk-node/5.11.0", "sdk-go/0.9.4", "sdk-java/2.3.0", "python-requests/2.32.3", "python-httpx/0.28.1",
    "aiohttp/3.12", "axios/1.9.0", "node-fetch/3.3", "curl/8.9.1", "okhttp/4.12.0", "Go-http-client/2.0",
    "langkit-python/0.3.19", "gateway-proxy/1.74", "gateway-proxy/1.71", "reqwest/0.12",
)  # fmt: skip
_AGENTS = (
    "ferrycode/1.14", "ferrycode/1.15", "lathe-cli/0.62", "openloom/0.9.3", "tinkerbell/3.1", "scaffold-vscode/4.20",
    "patchwright/0.71",
)  # fmt: skip
CLIENTS = _BROWSERS + _KITS + _AGENTS
_POOLS = (
    (0, np.array([26, 16, 9, 14, 15, 6, 8, 10.0])),
    (len(_BROWSERS), np.array([14, 13, 10, 6, 9, 8, 3, 3, 6, 6, 4, 4, 3, 3, 2, 3, 5, 5, 3, 2.0])),
    (len(_BROWSERS) + len(_KITS), np.array([18, 20, 15, 12, 9, 14, 12.0])),
)
JA4_PER_CLIENT = 4
HARNESSES = 6
"""Public coding agents in the world; each client of an agent belongs to one of them."""

CHANNELS = ("console", "api", "cloud:east", "cloud:north", "reseller:alpha", "reseller:beta", "reseller:gamma")
_CHANNEL_SHARES = np.array([0, 78, 7, 5, 5, 3, 2.0])

MAIL_FREE = ("mailbird.example", "postino.example", "letterbox.example", "quickmail.example", "nimbus-mail.example")
MAIL_THROWAWAY = tuple(
    f"{a}{b}.example" for a in ("tmp", "drop", "ten-min", "burn", "spam") for b in ("box", "post", "in")
)
ISSUERS = ("northbank", "meridian", "unionpay-like", "plastico", "cardlane", "virtucard", "swiftvirtual", "banca-verde")
_ISSUER_SHARES = np.array([24, 20, 10, 12, 10, 10, 7, 7.0])
REFERRERS = ("search", "none", "docs", "friend", "ad", "social", "conference", "partner")
VERIFICATIONS = ("none", "email", "phone", "card", "domain", "id", "contract")
PLANS = ("free", "payg", "enterprise")
PROGRAMMES = ("none", "education", "research", "startup")
MODELS = (("cedar-2", -310), ("cedar-2-mini", -290), ("cedar-2-code", -120), ("cedar-3", 0))
"""Models and their age in days at the world's own release, ``cedar-3``."""

TOOLSETS = (
    (), ("read_file", "edit_file", "run_command", "search_files"), ("view", "str_replace", "bash"),
    ("open", "apply_patch", "shell", "list_dir", "grep"), ("search", "fetch_page"), ("get_order", "create_ticket"),
    ("query_database",), ("calendar_find", "calendar_book", "send_mail"), ("click", "type", "scroll", "screenshot"),
    ("get_weather", "find_flights", "book_hotel"), ("plan", "edit", "exec"), ("code_interpreter",),
)  # fmt: skip


def choose(rng: np.random.Generator, shares: F64, size: int) -> I64:
    """Indices drawn by these shares."""
    edges = np.cumsum(shares) / shares.sum()
    return np.minimum(np.searchsorted(edges, rng.random(size), side="right"), len(shares) - 1)


def clients_for(rng: np.random.Generator, interface: I64) -> I64:
    """A client for each account that goes with its interface; one in twelve API users drives a browser, and so on."""
    interface = np.where(rng.random(len(interface)) < 0.08, rng.integers(0, 3, len(interface)), interface)
    out = np.zeros(len(interface), np.int64)
    for kind, (base, shares) in enumerate(_POOLS):
        here = interface == kind
        out[here] = base + choose(rng, shares, int(here.sum()))
    return out


def channels_for(rng: np.random.Generator, interface: I64) -> I64:
    return np.where(interface == CONSOLE, 0, choose(rng, _CHANNEL_SHARES, len(interface)))


def issuers(rng: np.random.Generator, size: int) -> I64:
    return choose(rng, _ISSUER_SHARES, size)


@dataclass(frozen=True, slots=True)
class Settings:
    """Request settings that go together; -1 and NaN stand for not asked for."""

    max_tokens: I64
    temperature: F64
    n: I64
    logprobs: npt.NDArray[np.bool_]
    thinking: npt.NDArray[np.bool_]
    stream: npt.NDArray[np.bool_]


def settings_profiles(rng: np.random.Generator, size: int = 160) -> Settings:
    """The profiles of this world; accounts and programs pick among them, the first ones more often."""
    limits = np.array([-1, 256, 512, 1000, 1024, 2000, 2048, 4000, 4096, 8000, 8192, 16000, 16384, 32000, 64000])
    limit = choose(rng, np.array([20, 2, 3, 3, 6, 4, 7, 6, 12, 7, 9, 6, 7, 5, 3.0]), size)
    warmth = np.array([np.nan, 0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    return Settings(
        limits[limit], warmth[choose(rng, np.array([34, 14, 4, 7, 5, 4, 4, 11, 4, 2, 11.0]), size)],
        choose(rng, np.array([0, 94, 3, 1, 2.0]), size), rng.random(size) < 0.05, rng.random(size) < 0.35,
        rng.random(size) < 0.6,
    )  # fmt: skip
