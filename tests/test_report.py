"""The page a person reads: everything is there, nothing is loaded, nothing untrusted acts."""

import re
from dataclasses import replace
from functools import cached_property
from html.parser import HTMLParser

import pytest

import fixtures_findings as made
from stillwatch.findings import Findings
from stillwatch.report import LIMIT, page, picture, timeline, waterfall, words
from stillwatch.types import Alternative, Axis, Day, Exhibit, Node, Reason

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "rect", "circle", "polyline", "polygon"}


class Outline(HTMLParser):
    """Tags opened and not closed, headings, ids, links, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.targets.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @cached_property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def html() -> str:
    return page(made.few(), made.run())


@pytest.fixture(scope="module")
def outline(html: str) -> Outline:
    return Outline(html)


def test_the_page_is_well_formed(outline: Outline) -> None:
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {t[1:] for t in outline.targets} <= set(outline.ids), "a link leads nowhere"


def test_headings_go_down_one_step_at_a_time(outline: Outline) -> None:
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:]))


@pytest.mark.parametrize(
    "part",
    [
        "3 campaigns found, 1,915 accounts of 12,431",
        "1,204,331 exchanges of 12,431 accounts were judged",
        "412 accounts behind 41 cards ask one operator's list",
        "chains of thought", "82%",
        "27 active days, 2026-03-02 to 2026-03-28; busiest 2026-03-24",
        "330 of 331 holders in the log are in this cluster; chance would give 8.2.",
        "+31.4", "83.5 bits",
        "coordination 38.1 bits , about 290 billion to 1 that one operator runs these accounts",
        "Declared countries, sign-up addresses and working hours contradict each other.",
        "one paying customer rejected", "41 payment instruments of 9 issuers",
        "51% of its extraction within 24 hours (95% interval 40% to 62%)",
        "where honest accounts as busy had 6.4%: 33 to 56 points more",
        "and 362 more accounts; all are in accounts.parquet",
        "Worth a look", "R-77ac02",
        "Look-alikes let go", "first-day interest : Share after 24 h is 7%",
        "tls_reuse needs ja4, which no row holds",
        "time is no time: 'soon'", "log/day-03.ndjson:1841", "give RFC 3339",
        "in no row ja4 response end_user", "not understood x_region x_trace",
        "max_false_discovery", "1.3 GB of memory at most", "What it cannot see",
    ],
)  # fmt: skip
def test_the_page_says(outline: Outline, part: str) -> None:
    assert part in outline.text


def test_fifty_members_are_shown_and_the_rest_counted(outline: Outline) -> None:
    shown = set(outline.words)
    for campaign in made.few().campaigns:
        assert sum(m.account_id in shown for m in campaign.members) == min(50, len(campaign.members))


def test_nothing_is_loaded_and_nothing_runs(html: str, outline: Outline) -> None:
    csp = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'http-equiv="Content-Security-Policy" content="{csp}"' in html
    assert "<script" not in html and "@import" not in html
    assert all(t.startswith("#") for t in outline.targets)
    assert not [
        a for a in outline.attributes if a[1] in ("src", "srcset", "action", "data", "poster") or a[1].startswith("on")
    ]
    assert not re.search(r"url\((?!#)", html)
    assert "http://" not in html and "https://" not in html


def test_every_picture_has_words(html: str, outline: Outline) -> None:
    labels = re.findall(r'<svg[^>]*role="img" aria-label="([^"]+)"', html)
    hidden = html.count('aria-hidden="true"')
    assert len(labels) + len(re.findall(r"<svg[^>]*aria-hidden", html)) == html.count("<svg")
    assert hidden and min(map(len, labels)) > 20


def test_dark_print_and_narrow_are_thought_of(html: str) -> None:
    for query in (
        "prefers-color-scheme: dark",
        "@media print",
        "max-width: 46rem",
        "prefers-reduced-motion",
        "forced-colors",
    ):
        assert query in html


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=1>\x1b[31m\u202eevil\x00\n{{ 7*7 }}"


def poisoned() -> Findings:
    """A campaign in which every text that could come from a log is hostile."""
    c = made.campaign(made.SHAPES[2])
    member = replace(c.members[0], account_id=EVIL, reasons=(Reason(EVIL, 3.0, EVIL),))
    bad = replace(
        c,
        campaign_id=EVIL,
        members=(member,),
        summary=EVIL,
        models=(EVIL,),
        exhibits=(Exhibit(Axis.COORDINATION, "template", EVIL, 9.0, EVIL, 1, 2, 0.1),),
        alternatives=(Alternative(EVIL, True, EVIL),),
        nodes=(Node("k", EVIL, EVIL, 1.0, 0.5, 0.5), Node("a", "account", EVIL, 1.0, 0.1, 0.1)),
        edges=((0, 1),),
    )
    return Findings((bad,), (bad,), (bad,), made.findings([bad]).accounts)


def test_untrusted_text_is_shown_and_never_acts() -> None:
    run = made.run(
        blind={EVIL: EVIL}, coverage={EVIL: 0.5}, unknown_columns=(EVIL,), settings={EVIL: EVIL},
        timings={EVIL: made.TIMINGS["read"]}, rejects=(replace(made.REJECTS[0], reason=EVIL, place=EVIL, hint=EVIL),),
    )  # fmt: skip
    html = page(poisoned(), run)
    assert "<script" not in html and "<img" not in html and html.count("{{ 7*7 }}") > 15
    assert not set("\x1b\u202e\x00") & set(html)
    assert html.count("&lt;script&gt;") > 15
    outline = Outline(html)
    assert outline.open == []
    assert not [a for a in outline.attributes if a[1].startswith("on")]


def test_a_clean_log_has_a_page_of_its_own() -> None:
    outline = Outline(page(made.none(), made.run()))
    assert "No campaign found" in outline.text
    assert "nothing was coordinated, extracting and concealed all at once" in outline.text
    assert "2 detectors could not work on this log" in outline.text
    assert outline.text.count("tls_reuse") == 2
    assert "c1" not in outline.ids and "review" not in outline.ids


def test_an_empty_log_without_times_has_a_page() -> None:
    counts = replace(made.run().counts, exchanges_read=0, exchanges_kept=0, accounts=0, first_time=None, last_time=None)
    run = made.run(counts=counts, blind={}, rejects=(), coverage={}, unknown_columns=(), settings={}, timings={})
    text = Outline(page(made.findings([], honest=0), run)).text
    assert "Every detector had the columns it needs." in text
    assert "No cluster was large or close enough to need an explanation." in text
    assert "Every row that was read could be judged." in text


def test_a_campaign_of_which_little_is_known_has_a_section() -> None:
    c = made.campaign(made.SHAPES[2])
    bare = replace(
        c, exhibits=(), alternatives=(), days=(), nodes=(), edges=(), evidence={}, capabilities={}, bits={}, models=()
    )
    text = Outline(page(made.findings([bare]), made.run())).text
    assert "not judged" in text and "not recorded" in text and "No days recorded" not in text


def test_three_hundred_campaigns_stay_small() -> None:
    html = page(made.many(300, 20_000), made.run())
    assert len(html.encode()) < 5_000_000
    outline = Outline(html)
    assert outline.open == [] and "c300" in outline.ids
    assert re.search(r"each shows at most \d+ members", outline.text)


def test_long_texts_cannot_blow_up_the_page() -> None:
    found = made.many(120, 2400)
    long = tuple(
        replace(c, summary="x" * 100_000, exhibits=tuple(replace(e, text="y" * 9000) for e in c.exhibits * 20))
        for c in found.campaigns
    )
    html = page(replace(found, campaigns=long), made.run())
    assert len(html) <= LIMIT
    assert "…" in html


class TestCharts:
    def test_quiet_days_are_filled_in(self) -> None:
        days = timeline.filled([Day("2026-02-27", 5, 1, 1), Day("2026-03-02", 7, 2, 1)])
        assert [d.day for d in days] == ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]
        assert [d.exchanges for d in days] == [5, 0, 0, 7]

    def test_bins_lose_no_exchange(self) -> None:
        days = [Day(f"2026-03-{d:02d}", d, d // 2, d % 7) for d in range(1, 32)]
        bins = timeline.binned(days, 10)
        assert len(bins) <= 10
        assert sum(b.exchanges for b in bins) == sum(range(1, 32))
        assert max(b.accounts for b in bins) == 6

    def test_one_day_is_a_chart_too(self) -> None:
        c = replace(made.campaign(made.SHAPES[2]), days=(Day("2026-03-02", 0, 0, 0),))
        assert "nan" not in timeline.chart(c) and "nan" not in timeline.spark(c)

    @pytest.mark.parametrize(("value", "top"), [(0, 1), (1, 1), (11_119, 12_000), (23, 25), (999, 1000), (3.1, 4)])
    def test_scales_end_on_a_round_number(self, value: float, top: float) -> None:
        assert timeline.round_top(value) == pytest.approx(top)

    def test_the_waterfall_adds_up_to_the_evidence(self) -> None:
        c = made.campaign(made.SHAPES[0])
        steps = waterfall(c)
        assert [s.family for s in steps] == ["template", "identity", "tempo", "content", "network"]
        assert steps[-1].start + steps[-1].bits == pytest.approx(sum(c.evidence.values()))
        assert all(e.axis != Axis.CONCEALMENT for s in steps for e in s.exhibits)


class TestPicture:
    def test_a_large_cluster_is_thinned_and_says_so(self) -> None:
        c = made.campaign(made.SHAPES[1])
        shown = picture.drawn(c, nodes=60, edges=50)
        assert len(shown.nodes) == 60 and len(shown.edges) <= 50
        assert shown.left_out == len(c.nodes) - 60
        assert {n.kind for n in shown.nodes} == {"account", "payment", "wording", "address", "tools"}
        assert all(a < 60 and b < 60 for a, b in shown.edges)

    def test_each_kind_has_a_shape_of_its_own(self) -> None:
        shown = picture.drawn(made.campaign(made.SHAPES[0]))
        assert len(set(shown.shapes.values())) == len(shown.shapes) == 5

    def test_labels_do_not_lie_on_each_other(self) -> None:
        nodes = tuple(
            Node(f"v{i}", "payment", "a long label of a value", 1.0 + i, 0.5, 0.5 + i / 1000) for i in range(10)
        )
        c = replace(made.campaign(made.SHAPES[0]), nodes=nodes, edges=())
        assert picture.cluster(c, picture.drawn(c)).count('class="name') <= 2


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.share(0.9996), "> 99.9%"), (words.share(1.0), "100%"), (words.share(0.0004), "< 0.1%"),
        (words.share(0.064), "6.4%"), (words.share(0.5), "50%"),
        (words.q_text(0), "< 0.000001"), (words.q_text(0.0004), "0.0004"), (words.q_text(0.00002), "0.00002"),
        (words.q_text(0.0087), "0.0087"), (words.q_text(0.32), "0.32"),
        (words.odds(0), "even odds"), (words.odds(-3), "1 to about 8"), (words.odds(10), "about 1 thousand to 1"),
        (words.odds(6.2), "about 74 to 1"), (words.odds(500), "more than a trillion to 1"),
        (words.expected_text(0), "none"), (words.expected_text(0.0001), "fewer than one in a thousand"),
        (words.expected_text(30.4), "30"), (words.bits_text(-7.24), "−7.2"),
        (words.duration(0.94), "0.9 s"), (words.duration(75), "1 min 15 s"), (words.duration(7500), "2 h 5 min"),
        (words.size(1_310_000_000), "1.3 GB"), (words.counted(1, "account"), "1 account"),
        (words.visible("a\u202eb\x1bc\nd"), "a\\u202eb\\u001bc\\u000ad"), (words.visible("x" * 50, 4), "xxxx…"),
        (words.visible("Zürich 北京"), "Zürich 北京"),
    ],
)  # fmt: skip
def test_numbers_and_texts_read_well(shown: str, expected: str) -> None:
    assert shown == expected
