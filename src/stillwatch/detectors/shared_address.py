"""Accounts that come from one network, where those who do also share something else.

A carrier's NAT, a VPN exit and a campus put strangers behind one network, so sharing it is no evidence by itself. A
network counts where its users are also coherent in another family (``coherence`` in ``folds.py``): cards, wordings,
sign-up. Networks that more than 1 % of all customers use are infrastructure and never counted.
"""

from stillwatch.detectors import Detector, Example

_POOL = [row for a, card in zip("abcdef", "xxyyzz") for row in ((a, "net", "n"), (a, "card", card))]
_CROWD = [row for k in range(400) for row in ((f"o{k}", "net", f"m{k // 2}"), (f"o{k}", "card", f"c{k // 2}"))]

DETECTOR = Detector(
    name="shared_address",
    family="network",
    technique="AML.T0008.005",
    meaning="accounts behind one network whose users also share cards, wordings or sign-ups",
    shape="ties",
    needs=("exchanges.ip",),
    params={"min_bits": 8, "min_cover": 0.25, "min_lift": 4},
    steps={
        "shared_address_coherent": """
            SELECT kind, value, sum(bits) AS surplus FROM coherence
            WHERE kind IN ('net', 'signup_net')
              AND tied >= 2 AND tied >= $min_cover * holders AND tied >= $min_lift * expected
            GROUP BY kind, value
            HAVING sum(bits) >= $min_bits""",
        "shared_address": """
            SELECT r.account AS account, r.kind AS kind, r.value AS value,
                   log2(p.customers * 1.0 / r.holders) AS bits, r.holders AS holders
            FROM shared_address_coherent c
            JOIN rare r ON r.kind = c.kind AND r.value = c.value
            CROSS JOIN population p""",
    },
    examples=[
        Example(
            "one network, cards in pairs",
            _POOL + _CROWD,
            {(a, b) for a in "abcdef" for b in "abcdef" if a < b},
        ),
        Example("one network, nothing else in common", [(a, "net", "n") for a in "abcdef"] + _CROWD),
    ],
)
