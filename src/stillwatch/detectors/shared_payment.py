"""Accounts that pay with one card, or were opened with one phone.

A card held by h of N customers says log2(N / h) bits about its holders. Families, agencies and resold virtual cards
share them too, so this proposes; what the holders have in common besides is asked later. A value held by more than
``max_holders`` is a reseller's or a test card, not an identity.
"""

from stillwatch.detectors import Detector, Example

DETECTOR = Detector(
    name="shared_payment",
    family="identity",
    technique="AML.T0021",
    meaning="accounts paid for with one payment instrument, or opened with one phone",
    shape="ties",
    needs=("accounts.payment_hash",),
    params={"max_holders": 400},
    steps={
        "shared_payment": """
            SELECT o.account AS account, o.kind AS kind, o.value AS value,
                   log2(p.customers * 1.0 / h.holders) AS bits, h.holders AS holders
            FROM observations o
            JOIN holders h ON h.kind = o.kind AND h.value = o.value
            CROSS JOIN population p
            WHERE o.kind IN ('card', 'phone') AND h.holders <= $max_holders""",
    },
    examples=[
        Example("one card", [("a", "card", "x"), ("b", "card", "x"), ("c", "card", "y")], {("a", "b")}),
        Example("one phone", [("a", "phone", "x"), ("b", "phone", "x"), ("c", "phone", "y")], {("a", "b")}),
        Example(
            "own cards, one network", [("a", "card", "x"), ("b", "card", "y"), ("a", "net", "n"), ("b", "net", "n")]
        ),
    ],
)
