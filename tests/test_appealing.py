"""The page behind the link of a refusal: who sees it, what is on it, what it files, and what it never tells."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from stillwatch.serving.access import Role
from stillwatch.serving.appealing import APPEAL_CHARACTERS, FORM, FORM_BYTES, LOOKS, WRONG
from test_app import MEMBERS, RING, Server, folder, serve  # noqa: F401  # fixtures

WORDS = "we are a class of students"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.text += f"{data} " if self._open != "style" else ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:  # noqa: F811
    """With what its policy did in force: protection for all of the ring; suspensions wait."""
    made = serve()
    made.round()
    return made


def case_of(server: Server, standing: str = "in_force") -> dict[str, Any]:
    return server.get(f"/api/actions?standing={standing}")["actions"][0]


def look(server: Server, case: str, proof: str | None = None) -> httpx.Response:
    told = server.services.appeal_proof(case) if proof is None else proof
    return server.ask("GET", f"/appeals?{urlencode({'case': case, 'proof': told})}", None)


def send(server: Server, case: str, text: str = WORDS, proof: str | None = None, **headers: str) -> httpx.Response:
    told = server.services.appeal_proof(case) if proof is None else proof
    body = urlencode({"case": case, "proof": told, "text": text}).encode()
    return server.ask("POST", "/appeals", None, content=body, headers={"content-type": FORM, **headers})


def test_the_link_of_a_refusal_opens_a_page_that_says_what_was_decided_and_why(server: Server) -> None:
    action = case_of(server)
    got = server.ask("GET", server.services.appeal_url(action["action_id"]).removeprefix("https://w.example"), None)
    assert (got.status_code, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page(got.text)
    assert {action["action_id"], action["account_id"]} <= set(page.words.split())
    assert "without the text of the reasoning" in page.words
    assert "systematic collection of answers" in page.words
    assert "by a rule, without a person" in page.words
    assert "The terms of use: no use of the service's outputs to develop competing models." in page.words
    assert re.search(r"until \d+ \w+ \d{4}, \d\d:\d\d UTC at the latest", page.words)
    assert re.search(r"An appeal filed today is decided by \d+ \w+ \d{4}", page.words)


def test_the_page_needs_no_script_and_can_be_read_aloud(server: Server) -> None:
    got = look(server, case_of(server)["action_id"])
    page = Page(got.text)
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == len(page.of("main")) == len(page.of("title")) == 1
    assert not page.of("script") and not page.of("img") and not page.of("link")
    assert not [n for _, attrs in page.tags for n in attrs if n.startswith("on") or n in ("style", "src")]
    (label,), (area,) = page.of("label"), page.of("textarea")
    assert label["for"] == area["id"]
    assert area["aria-describedby"] in {attrs.get("id") for _, attrs in page.tags}
    (form,) = page.of("form")
    assert (form["method"], form["action"]) == ("post", "appeals")
    style = re.search(r"<style>(.*?)</style>", got.text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = got.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert {"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy.split("; "))
    assert got.headers["referrer-policy"] == "no-referrer"
    assert got.headers["cache-control"] == "no-store"


def test_nothing_of_others_is_on_the_page(server: Server) -> None:
    action = case_of(server)
    said = look(server, action["action_id"]).text
    assert not [a for a in MEMBERS if a != action["account_id"] and a in said]
    assert RING.campaign_id not in said
    assert not [e.text for e in RING.exhibits if e.text in said]


def test_the_form_files_an_appeal_that_the_page_then_tells_of(server: Server) -> None:
    case = case_of(server)["action_id"]
    filed = send(server, case, f"  {WORDS}\n", **{"sec-fetch-site": "same-origin"})
    assert filed.status_code == 303
    assert (
        filed.headers["location"] == f"appeals?{urlencode({'case': case, 'proof': server.services.appeal_proof(case)})}"
    )
    (waiting,) = server.get("/api/appeals?open=true")["appeals"]
    assert waiting["text"] == WORDS
    page = Page(look(server, case).text)
    assert f"Your appeal {waiting['case_id']} was filed on" in page.words
    assert "had no part in the decision will decide it by" in page.words
    assert not page.of("form")
    assert send(server, case, "once more").status_code == 303
    assert server.get("/api/appeals")["count"] == 1
    assert WORDS not in (server.services.home.audit / "log.jsonl").read_text()


@pytest.mark.parametrize(("outcome", "said", "again"), [("overturned", "was granted on", "This limit is over"),
                                                        ("upheld", "was turned down on", "")])  # fmt: skip
def test_the_page_tells_the_outcome_and_not_who_decided(server: Server, outcome: str, said: str, again: str) -> None:
    case = case_of(server)["action_id"]
    send(server, case)
    appeal = server.get("/api/appeals")["appeals"][0]["case_id"]
    server.post(f"/api/appeals/{appeal}/decide", {"outcome": outcome, "reason": "an inner remark"})
    page = Page(look(server, case).text)
    assert f"Your appeal {appeal} {said}" in page.words
    assert page.words.count(again or "Answers come") >= 1
    assert "an inner remark" not in page.words and "t-admin" not in page.words
    assert page.of("form")


def test_a_link_that_does_not_hold_is_told_in_the_same_words_whatever_is_wrong(server: Server) -> None:
    real, waiting = case_of(server)["action_id"], case_of(server, "pending")["action_id"]
    right = server.services.appeal_proof
    links = [(real, "0" * 32), (real, ""), (real, right(real)[:-1]), (real, right(waiting)), ("A-none", right("A-none")),
             (waiting, right(waiting)), ("", right("")), ("A" * 500, right("A" * 64)), (real, "é\udcff")]  # fmt: skip
    answers = [look(server, case, proof.encode("utf-8", "replace").decode()) for case, proof in links]
    assert {a.status_code for a in answers} == {404}
    assert len({a.text for a in answers}) == 1
    assert {
        send(server, case, proof=proof.encode("utf-8", "replace").decode()).status_code for case, proof in links
    } == {404}
    assert server.ask("GET", "/appeals", None).status_code == 404
    assert server.get("/api/appeals")["count"] == 0
    wish = {"case": waiting, "proof": right(waiting), "text": WORDS}
    assert server.post("/appeals", wish, None, 403)["error"] == "this proof is not of that case"


def test_another_site_cannot_make_a_browser_file_an_appeal(server: Server) -> None:
    case = case_of(server)["action_id"]
    assert send(server, case, **{"sec-fetch-site": "cross-site"}).status_code == 404
    assert send(server, case, proof="").status_code == 404
    assert server.get("/api/appeals")["count"] == 0
    assert not server.ask("GET", server.services.appeal_url(case).removeprefix("https://w.example"), None).cookies


@pytest.mark.parametrize("text", ["", " \n ", "x" * (APPEAL_CHARACTERS + 1)])
def test_a_text_that_cannot_be_filed_is_told_beside_what_was_written(server: Server, text: str) -> None:
    got = send(server, case_of(server)["action_id"], text)
    assert got.status_code == 400
    page = Page(got.text)
    (area,) = page.of("textarea")
    assert area["aria-invalid"] == "true" and "fault" in str(area["aria-describedby"])
    assert [attrs["role"] for attrs in page.of("p") if attrs.get("id") == "fault"] == ["alert"]
    assert page.of("title") and "Error: Case" in got.text
    assert text.strip() in page.text
    assert server.get("/api/appeals")["count"] == 0


def test_the_longest_text_of_the_widest_characters_is_taken(server: Server) -> None:
    text = "\U0001f512" * APPEAL_CHARACTERS
    assert send(server, case_of(server)["action_id"], text).status_code == 303
    assert server.get("/api/appeals")["appeals"][0]["text"] == text


def test_a_body_that_is_no_form_is_refused(server: Server) -> None:
    kind = {"content-type": FORM}
    for body, status in ((b"\xff", 400), (b"&".join(b"a=1" for _ in range(11)), 400), (b"text=%ff", 400),
                         (b"x" * (FORM_BYTES + 1), 413)):  # fmt: skip
        assert server.ask("POST", "/appeals", None, content=body, headers=kind).status_code == status


def test_what_is_written_is_never_markup(server: Server) -> None:
    got = send(server, case_of(server)["action_id"], "</textarea><script>alert(1)</script>" + "x" * APPEAL_CHARACTERS)
    assert got.status_code == 400
    assert not Page(got.text).of("script")
    wish = {"accounts": ["<b>bold</b>"], "rung": "protect", "reason": "<i>why</i>"}
    (action,) = server.post("/api/actions", wish)["proposed"]
    server.post("/api/actions/sign", {"actions": [action["action_id"]]}, Role.APPROVER)
    server.round()
    page = Page(look(server, action["action_id"]).text)
    assert not page.of("b") and not page.of("i")
    assert "<b>bold</b>" in page.words and "<i>why</i>" in page.words


def test_looks_and_appeals_have_a_pace_and_wrong_links_keep_nobody_waiting(server: Server) -> None:
    now = [0.0]
    server.services.appeal_paces = type(server.services.appeal_paces)(clock=lambda: now[0])
    case = case_of(server)["action_id"]
    wrong = [look(server, "A-none", "0" * 32).status_code for _ in range(int(WRONG[1]) + 1)]
    assert (wrong[0], wrong[-1]) == (404, 429)
    seen = [look(server, case) for _ in range(int(LOOKS[1]) + 1)]
    assert (seen[0].status_code, seen[-1].status_code) == (200, 429)
    assert seen[-1].headers["retry-after"] == "2"
    other = next(
        a["action_id"] for a in server.get("/api/actions?standing=in_force")["actions"] if a["action_id"] != case
    )
    assert look(server, other).status_code == 200
    sent = [send(server, case).status_code for _ in range(6)]
    assert sent == [303] * 5 + [429]
    got = server.ask(
        "POST", "/appeals", None, json={"case": case, "proof": server.services.appeal_proof(case), "text": "x"}
    )
    assert got.status_code == 429 and int(got.headers["retry-after"]) > 1
    now[0] += 60
    assert (look(server, case).status_code, send(server, case).status_code) == (200, 303)
