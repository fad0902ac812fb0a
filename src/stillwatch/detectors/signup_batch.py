"""Accounts opened in one hour with one more trait in common: a network, a mail domain, a TLS print, a referrer.

If sign-ups in an hour and holders of a trait were independent, ``hour x trait / N`` accounts would meet in a cell. The
bits are the Poisson log-likelihood ratio of the number that did. A launch day fills the hour and a popular mail
provider the trait, so both are in the expectation.
"""

from stillwatch.detectors import Detector, Example

_BATCH = [(name, "mail_domain", "d") for name in "abcdef"]
_TIMES = [{"account": name, "created_at": 30 + k} for k, name in enumerate("abcdef")]
_OTHERS = [{"account": f"o{k}", "created_at": 600 * k + 300} for k in range(60)]

DETECTOR = Detector(
    name="signup_batch",
    family="identity",
    technique="AML.T0021",
    meaning="accounts opened within one hour with another sign-up trait in common, more than chance gives",
    shape="ties",
    needs=("accounts.created_at",),
    params={"min_accounts": 4, "min_bits": 12, "min_lift": 4},
    steps={
        "signup_batch_hours": """
            SELECT customer AS account, date_trunc('hour', min(created_at)) AS slot
            FROM accounts WHERE created_at IS NOT NULL GROUP BY customer""",
        "signup_batch_slots": "SELECT slot, count(*) AS opened FROM signup_batch_hours GROUP BY slot",
        "signup_batch_cells": """
            SELECT s.slot AS slot, o.kind AS kind, o.value AS trait, count(*) AS met, max(n.opened) AS opened,
                   max(h.holders) AS trait_holders,
                   max(n.opened) * 1.0 * max(h.holders) / max(p.customers) AS expected
            FROM signup_batch_hours s
            JOIN signup_batch_slots n ON n.slot = s.slot
            JOIN observations o ON o.account = s.account
            JOIN holders h ON h.kind = o.kind AND h.value = o.value
            CROSS JOIN population p
            WHERE o.kind IN ('mail_domain', 'signup_net', 'signup_tls', 'referrer')
            GROUP BY s.slot, o.kind, o.value
            HAVING count(*) >= $min_accounts""",
        "signup_batch_rare": """
            SELECT slot, kind, trait, met, row_number() OVER (ORDER BY slot, kind, trait) AS number,
                   met * log2(met / expected) - (met - expected) * 1.4426950408889634 AS surplus
            FROM signup_batch_cells
            WHERE met >= $min_lift * expected
              AND met * log2(met / expected) - (met - expected) * 1.4426950408889634 >= $min_bits""",
        "signup_batch": """
            SELECT s.account AS account, 'signup_batch' AS kind, r.number AS value,
                   r.surplus / r.met AS bits, r.met AS holders
            FROM signup_batch_rare r
            JOIN signup_batch_hours s ON s.slot = r.slot
            JOIN observations o ON o.account = s.account AND o.kind = r.kind AND o.value = r.trait""",
    },
    examples=[
        Example(
            "six accounts of one mail domain in one hour",
            _BATCH,
            {(a, b) for a in "abcdef" for b in "abcdef" if a < b},
            tables={"accounts": _TIMES + _OTHERS},
        ),
        Example(
            "one mail domain, months apart",
            _BATCH,
            tables={"accounts": [{"account": a, "created_at": 50_000 * k} for k, a in enumerate("abcdef")] + _OTHERS},
        ),
    ],
)
