"""Accounts that ask several of the same prompts, word for word, which hardly anybody else asks.

An operator divides a list among accounts and re-asks what failed elsewhere; honest people do not repeat each other. A
prompt that more than ``max_holders`` customers ask is public (a benchmark, a kit's seeds, a greeting), and pairs are only
counted on rarer ones, which bounds the join. Two accounts must share at least ``min_shared`` of them.
"""

from stillwatch.detectors import Detector, Example

_SAME = [(a, "prompt", p) for a in "ab" for p in "xyz"]
_CROWD = [(f"o{k}", "net", "n") for k in range(12)]

DETECTOR = Detector(
    name="prompt_list",
    family="content",
    technique="AML.T0024.002",
    meaning="accounts that ask several of the same rare prompts, word for word",
    shape="ties",
    needs=("exchanges.prompt",),
    params={"max_holders": 6, "min_shared": 2},
    steps={
        "prompt_list_rare": """
            SELECT o.account AS account, o.value AS value, h.holders AS holders
            FROM observations o JOIN holders h ON h.kind = o.kind AND h.value = o.value
            WHERE o.kind = 'prompt' AND h.holders <= $max_holders""",
        "prompt_list_pairs": """
            SELECT l.account AS left_account, r.account AS right_account
            FROM prompt_list_rare l JOIN prompt_list_rare r ON r.value = l.value AND l.account < r.account
            GROUP BY l.account, r.account
            HAVING count(*) >= $min_shared""",
        "prompt_list": """
            SELECT DISTINCT s.account AS account, 'prompt' AS kind, s.value AS value,
                   log2(n.customers * 1.0 / s.holders) AS bits, s.holders AS holders
            FROM prompt_list_rare s
            JOIN prompt_list_rare t ON t.value = s.value AND t.account <> s.account
            JOIN prompt_list_pairs p
              ON p.left_account = least(s.account, t.account) AND p.right_account = greatest(s.account, t.account)
            CROSS JOIN population n""",
    },
    examples=[
        Example("three prompts in common", _SAME + _CROWD, {("a", "b")}),
        Example("one greeting in common", [("a", "prompt", "x"), ("b", "prompt", "x"), *_CROWD]),
        Example("a public list", [(f"o{k}", "prompt", p) for k in range(12) for p in "xyz"]),
    ],
)
