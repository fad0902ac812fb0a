"""The kinds of value an account can be seen with: where each comes from, its family, and how common it may be.

``OBSERVATIONS`` is one long table ``(account, kind, value, ...)``, so that one static query can link on every kind. A kind
is *rare evidence* (``cap`` > 0) where sharing a value that few others hold says something about who is behind the
accounts: a card, a home network, a wording. Other kinds only describe (which client, which settings) and never link.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of observation.

    ``table`` and ``column`` say where it is folded from; ``family`` whose evidence it is; ``cap`` is the largest share of
    all customers that may hold a value before it counts as infrastructure instead of identity; 0 marks kinds
    that most accounts have in common with many others, which only describe. ``tested`` says how it takes part in the test
    of coherence: its values are asked about (``anchor``), only count as what else is shared (``other``), or neither.
    """

    name: str
    family: str
    table: str
    column: str
    cap: float
    meaning: str
    noun: str
    tested: str = ""


KINDS = {
    k.name: k
    for k in (
        Kind("card", "identity", "accounts", "card", 0.01, "payment instrument", "a payment instrument", "anchor"),
        Kind("phone", "identity", "accounts", "phone", 0.01, "phone number", "a phone number", "anchor"),
        Kind("signup_day", "identity", "accounts", "signup_day", 0.05, "day of sign-up", "a sign-up day", "other"),
        Kind("slot", "tempo", "facts", "slot", 0.0, "quarters of a day it was active in", "hours of activity"),
        Kind(
            "signup_net", "network", "accounts", "signup_net", 0.01, "network at sign-up", "a sign-up network", "anchor"
        ),
        Kind("net", "network", "facts", "net", 0.01, "network requests came from (/24 or /48)", "a network", "anchor"),
        Kind("address", "network", "facts", "address", 0.005, "address requests came from", "an address"),
        Kind(
            "wording", "template", "facts", "wording", 0.5, "fixed wrapper of its prompts", "a prompt wording", "anchor"
        ),
        Kind("system", "template", "facts", "system", 0.5, "wording of its system text", "a system text", "anchor"),
        Kind("prompt", "content", "facts", "prompt", 0.002, "a prompt asked word for word", "a prompt, word for word"),
        Kind("tools", "template", "facts", "tools", 0.05, "set of tools offered", "a tool set", "anchor"),
        Kind("client", "template", "facts", "client", 0.0, "client software", "a client"),
        Kind("settings", "template", "facts", "settings", 0.0, "request settings taken together", "request settings"),
        Kind("tls", "network", "facts", "tls", 0.0, "TLS client fingerprint", "a TLS fingerprint"),
        Kind("mail_domain", "identity", "accounts", "mail_domain", 0.0, "mail domain", "a mail domain"),
        Kind(
            "signup_tls", "identity", "accounts", "signup_tls", 0.0, "TLS fingerprint at sign-up", "a TLS fingerprint"
        ),
        Kind("referrer", "identity", "accounts", "referrer", 0.0, "where the sign-up came from", "a referrer"),
    )
}
"""Every kind, by name; plug-ins may emit these and no others."""
