"""Envoy's ext_authz over HTTP, and nginx's auth_request: allow with 200, refuse with anything else.

Envoy sends the client's method and path, behind its ``path_prefix``, without the body; of headers it passes on those in its
``allowed_headers``, beside Host, Method, Path, Content-Length and Authorization. On 200 it sets on the request those of our
headers that match ``allowed_upstream_headers``; any other status goes to the client, with our body and the headers in
``allowed_client_headers``. What happens when we do not answer is Envoy's own: ``failure_mode_allow`` and ``status_on_error``. A
5xx of ours counts as that; it is sent for a fault of ours, and where the gateway has no token that holds: never to deny.

nginx knows only 2xx, 401 and 403 and throws our body away; all else is an error to it, for its error_page to answer. So to
it every refusal is 401 or 403, and the status meant and the body go in ``x-stillwatch-status`` and ``x-stillwatch-body``, from
which its configuration answers: docs/gateways/nginx.conf.

Allowed or not, ``x-stillwatch-rung``, ``-case``, ``-rewrite`` and, where it passes, ``-watermark`` are always set, so that they
replace any that a client sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from stillwatch.serving.dialects import Told, case_headers, dialect_of
from stillwatch.serving.gateways import App, Gate, Receive, Scope, Send, Verdict, headers_of, respond
from stillwatch.serving.gateways.edits import REWRITE, WATERMARK, marked_with, rewrite_header

ORIGINAL_PATH = "x-original-uri"
"""Header in which nginx says the client's path; to anything else it would be the client's own."""


def ext_authz(gate: Gate, prefix: str = "/ext_authz", *, nginx: bool = False) -> App:
    """The question of Envoy, at any method and path under ``prefix``; with ``nginx`` that of its auth_request."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        path = headers.get(ORIGINAL_PATH, "") if nginx else scope["path"].removeprefix(prefix)
        verdict = gate.judge(headers, path)
        if verdict.refused is None:
            await respond(send, 200, _allowed(gate, verdict, path, headers))
        elif nginx:
            await respond(send, *_for_nginx(verdict.refused))
        else:
            await respond(send, verdict.refused.status, verdict.refused.headers, verdict.refused.body)

    return answered


def _allowed(gate: Gate, verdict: Verdict, path: str, headers: Mapping[str, str]) -> dict[str, str]:
    rewrite = ""
    if verdict.held is not None:
        rewrite = rewrite_header(verdict.held, dialect_of(path, headers, gate.wiring.dialect), gate.wiring.dialect)
    return {**case_headers(verdict.held), REWRITE: rewrite, WATERMARK: marked_with(verdict.held)}


def _for_nginx(refused: Told) -> tuple[int, dict[str, str]]:
    # nginx would make a 500 of any other.
    status = refused.status if refused.status in (401, 403) else 403
    meant = {"x-stillwatch-status": str(refused.status), "x-stillwatch-body": refused.body.decode("ascii")}
    return status, {**refused.headers, **meant}
