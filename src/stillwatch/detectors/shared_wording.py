"""Accounts whose prompts are built from one wrapper, where those who use it also share something else.

Thousands of strangers use one agent's system text, one benchmark's head, one public kit's templates. A wording counts
where its users are also coherent in another family: paid with the same cards, seen on the same networks, opened in one
batch. The tie weighs by how rare the wording is among customers.
"""

from stillwatch.detectors import Detector, Example

_FARM = [row for a, card in zip("abcdef", "xxyyzz") for row in ((a, "wording", "w"), (a, "card", card))]
_CROWD = [(f"o{k}", "card", f"c{k // 2}") for k in range(400)]

DETECTOR = Detector(
    name="shared_wording",
    family="template",
    technique="AML.T0024.002",
    meaning="accounts whose prompts or system texts have one wrapper, and whose users share cards or networks too",
    shape="ties",
    needs=("exchanges.prompt",),
    params={"min_bits": 10, "min_cover": 0.15, "min_lift": 3},
    steps={
        "shared_wording_coherent": """
            SELECT kind, value, sum(bits) AS surplus FROM coherence
            WHERE kind IN ('wording', 'system')
              AND tied >= 2 AND tied >= $min_cover * holders AND tied >= $min_lift * expected
            GROUP BY kind, value
            HAVING sum(bits) >= $min_bits""",
        "shared_wording": """
            SELECT r.account AS account, r.kind AS kind, r.value AS value,
                   log2(p.customers * 1.0 / r.holders) AS bits, r.holders AS holders
            FROM shared_wording_coherent c
            JOIN rare r ON r.kind = c.kind AND r.value = c.value
            CROSS JOIN population p""",
    },
    examples=[
        Example(
            "one wrapper, cards in pairs",
            _FARM + _CROWD,
            {(a, b) for a in "abcdef" for b in "abcdef" if a < b},
        ),
        Example("strangers with one public template", [(a, "wording", "w") for a in "abcdef"] + _CROWD),
    ],
)
