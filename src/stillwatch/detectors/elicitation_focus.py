"""An account much of whose traffic reads like training data being made.

Of an account's exchanges, ``marked`` read like traces, rubrics, generated tasks or rewrites (``elicitation`` of at least
``mark``). The bits are the binomial log-likelihood ratio of that share against everybody's. Evaluation vendors and
students of machine learning show this too: alone it accuses nobody.
"""

from stillwatch.detectors import Detector, Example


def _facts(account: str, marked: int, plain: int) -> list[dict[str, object]]:
    return [{"account": account, "elicitation": 0.9} for _ in range(marked)] + [
        {"account": account, "elicitation": 0.0} for _ in range(plain)
    ]


DETECTOR = Detector(
    name="elicitation_focus",
    family="content",
    technique="AML.T0024.002",
    meaning="an account much of whose traffic reads like training data being made",
    shape="signals",
    needs=("exchanges.prompt",),
    params={"mark": 0.5, "min_share": 0.15, "min_bits": 3},
    steps={
        "elicitation_focus_counts": """
            SELECT a.customer AS account, count(*) AS exchanges,
                   sum(CASE WHEN f.elicitation >= $mark THEN 1 ELSE 0 END) AS marked
            FROM facts f JOIN accounts a ON a.account = f.account
            WHERE f.elicitation IS NOT NULL
            GROUP BY a.customer""",
        "elicitation_focus_base": """
            SELECT least(0.5, greatest(0.001, avg(marked * 1.0 / exchanges))) AS share
            FROM elicitation_focus_counts""",
        "elicitation_focus_bits": """
            SELECT c.account AS account, c.marked AS marked, c.exchanges AS exchanges,
                   c.marked * log2(c.marked * 1.0 / c.exchanges / b.share)
                   + CASE WHEN c.marked < c.exchanges
                     THEN (c.exchanges - c.marked) * log2((1 - c.marked * 1.0 / c.exchanges) / (1 - b.share))
                     ELSE 0 END AS bits
            FROM elicitation_focus_counts c CROSS JOIN elicitation_focus_base b
            WHERE c.marked > b.share * c.exchanges""",
        "elicitation_focus": """
            SELECT account, bits,
                   concat(CAST(marked AS VARCHAR), ' of ', CAST(exchanges AS VARCHAR),
                          ' exchanges read like training data being made') AS exhibit
            FROM elicitation_focus_bits
            WHERE bits >= $min_bits AND marked >= $min_share * exchanges""",
    },
    examples=[
        Example(
            "nine of ten",
            [],
            {"a"},
            tables={"facts": _facts("a", 9, 1) + [f for k in range(30) for f in _facts(f"o{k}", 0, 10)]},
        ),
        Example(
            "one of ten",
            [],
            tables={"facts": _facts("a", 1, 9) + [f for k in range(30) for f in _facts(f"o{k}", 0, 10)]},
        ),
    ],
)
