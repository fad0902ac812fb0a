"""Routes: method, path, right, handler, and a line on each. One without a right says why; nothing else is open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Wired

from stillwatch.serving import appealing, ingest, openapi, people, probes
from stillwatch.serving.access import Right
from stillwatch.serving.edge import Asked, Asking, Edge, Refused, Route, UnderWay, answer_json, endpoint, fault_answer
from stillwatch.serving.gateways.ext_authz import ext_authz
from stillwatch.serving.gateways.guardrail import guardrail
from stillwatch.serving.gateways.in_force import in_force
from stillwatch.serving.rounds import Loop
from stillwatch.serving.services import Services

PREVIEW = {"preview": "true: say whom it would hit, and do nothing"}
LIMIT = {"limit": "at most so many"}
WHICH = {"actions": "ids of actions", "campaign": "or all of a campaign"}
WHY = {"reason": "why, for the audit"}


async def described(asked: Asked) -> Response:
    """This table, as OpenAPI."""
    return answer_json(openapi.document(ROUTES))


ROUTES: tuple[Route, ...] = (
    # Traffic in
    Route("POST", "/ingest/litellm", Right.INGEST, ingest.taking("litellm"),
          "Pushes of LiteLLM's generic_api callback: a JSON array, an object, or an object a line"),
    Route("POST", "/v1/traces", Right.INGEST, ingest.taking("otlp/traces"),
          "OTLP/HTTP traces with GenAI spans, protobuf or JSON"),
    Route("POST", "/v1/logs", Right.INGEST, ingest.taking("otlp/logs"),
          "OTLP/HTTP logs with GenAI events, protobuf or JSON"),
    Route("POST", "/v1/metrics", Right.INGEST, ingest.drop_metrics,
          "OTLP/HTTP metrics: accepted and dropped, so that one exporter's settings do for all"),
    Route("POST", "/ingest/exchanges", Right.INGEST, ingest.taking("exchanges"),
          "Exchanges in the canonical columns, a JSON object a line, an array or an object"),
    Route("POST", "/ingest/accounts", Right.INGEST, ingest.taking("accounts"),
          "What is said of accounts: OCSF account_change and authentication events, or the columns of accounts, with `keys`: the "
          "SHA-256 of each of its keys, in hex"),
    # Gateways
    Route("*", "/ext_authz/{path:path}", Right.ASK_GATEWAY, Asking(lambda gate: ext_authz(gate, "/ext_authz")),
          "Envoy's ext_authz over HTTP: 200 lets the request pass, anything else refuses it; our token in X-Stillwatch-Token",
          token_header=True),
    Route("*", "/nginx_auth", Right.ASK_GATEWAY,
          Asking(lambda gate: ext_authz(gate, "/nginx_auth", nginx=True)),
          "nginx's auth_request: 200, 401 or 403, with what is meant in headers; our token in X-Stillwatch-Token",
          token_header=True),
    Route("POST", "/beta/litellm_basic_guardrail_api", Right.ASK_GATEWAY, Asking(guardrail),
          "LiteLLM's generic guardrail: NONE or BLOCKED"),
    Route("GET", "/v1/in-force", Right.ASK_GATEWAY, Asking(in_force),
          "What holds for an account, a key or an end user, for gateways that act by themselves",
          query={"account": "the account", "key": "SHA-256 of its key", "secret": "or the key itself", "end_user": "its user",
                 "model": "the model asked for", "dialect": "whose API", "take": "1: this question stands for a request"}),
    # People
    Route("GET", "/api/campaigns", Right.READ_CAMPAIGNS, people.campaigns,
          "Campaigns and cases for review of the last judgement"),
    Route("GET", "/api/campaigns/{campaign_id}", Right.READ_CAMPAIGNS, people.campaign,
          "One campaign; its accounts and their history for those who may read accounts", query=LIMIT),
    Route("GET", "/api/accounts/{account_id}", Right.READ_ACCOUNTS, people.account,
          "One account: risk and why, what is in force and what happened; what it declared is masked",
          query={"unmask": "true: show what it declared", "reason": "why, for the audit"}),
    Route("GET", "/api/actions", Right.READ_ACTIONS, people.actions, "Actions, newest first; living ones unless asked otherwise",
          query={"standing": "only these, may be repeated", "account": "of this account", "campaign": "of this one", **LIMIT}),
    Route("POST", "/api/actions", Right.PROPOSE, people.propose,
          "Propose a rung for accounts; what is above observe waits for somebody else's signature",
          fields={"accounts": "ids", "campaign": "or the accounts of a campaign",
                  "key": "of one account, only this key: the SHA-256 of its secret, in hex",
                  "end_user": "of one account, only this end user", "rung": "a step of the ladder",
                  "reason": "what the account is told", "lasts": "how long, such as 7d", "settings": "the rung's own"},
          query=PREVIEW),
    Route("POST", "/api/actions/sign", Right.SIGN, people.sign, "Sign pending actions", fields=WHICH, query=PREVIEW),
    Route("POST", "/api/actions/refuse", Right.SIGN, people.refuse, "Turn pending actions down",
          fields=WHICH | WHY, query=PREVIEW),
    Route("POST", "/api/actions/undo", Right.UNDO, people.undo, "Undo living actions, at once",
          fields=WHICH | WHY, query=PREVIEW),
    Route("GET", "/api/statement/{action_id}", Right.READ_ACTIONS, people.statement,
          "What the account is told about an action: a statement of reasons"),
    Route("GET", "/appeals", None, appealing.page, "The page of a case for whom it concerns, with a form to appeal",
          open_because="whom it concerns has no token of ours; the proof in the link of its refusal is asked for",
          query={"case": "the case", "proof": "from the link of the refusal"}),
    Route("POST", "/appeals", None, appealing.file, "File an appeal against a case, as JSON or from the form of that page",
          open_because="whom it concerns has no token of ours; the proof in the link of its refusal is asked for",
          fields={"case": "the case", "proof": "from the link of the refusal", "text": "what the account says"}),
    Route("GET", "/api/appeals", Right.READ_ACTIONS, people.appeals, "Appeals, the one due first first",
          query={"open": "true: only those not decided", **LIMIT}),
    Route("POST", "/api/appeals/{appeal_id}/decide", Right.DECIDE_APPEAL, people.decide_appeal,
          "Uphold what was done, or overturn it; by somebody who had no part in it",
          fields={"outcome": "upheld or overturned", **WHY}),
    Route("GET", "/api/policy", Right.READ_POLICY, people.policy, "The policy that stands, in sentences"),
    Route("POST", "/api/policy/preview", Right.READ_POLICY, people.policy_preview,
          "What the policy that stands, or another one, would do now",
          fields={"policy": "a policy's TOML; without it the one that stands"}),
    Route("GET", "/api/judgements", Right.READ_CAMPAIGNS, people.judgements, "The judgement that holds on each subject"),
    Route("POST", "/api/judgements", Right.JUDGE, people.judge, "Say what you know of a campaign, an account or a pair",
          fields={"subject": "campaign, account, or account/account", "verdict": "positive, negative or unsure", **WHY}),
    Route("POST", "/api/judge-now", Right.JUDGE, people.judge_now, "Have everything judged now"),
    Route("GET", "/api/audit/checkpoint", Right.READ_AUDIT, people.checkpoint, "The audit's newest checkpoint, signed"),
    Route("GET", "/api/dead-letters", Right.READ_AUDIT, people.dead_letters,
          "Records that were refused, and why; never their content", query=LIMIT),
    # The server itself
    Route("GET", "/healthz", None, probes.healthz, "200 while the process answers",
          open_because="whoever restarts it must be able to ask, and it says nothing else"),
    Route("GET", "/readyz", None, probes.readyz,
          "200 while it takes traffic in; 503 before the loop has been round once, and once it stops, and why",
          open_because="a load balancer must be able to ask, and it says nothing else"),
    Route("GET", "/metrics", Right.READ_METRICS, probes.figures, "Figures and alarms, for Prometheus"),
    Route("GET", "/openapi.json", None, described, "This table, as OpenAPI 3.1",
          open_because="it says what is in this page, and nothing of this server"),
)  # fmt: skip
"""Every route there is."""


def build(services: Services) -> Starlette:
    """The application. Its lifespan runs the loop; opening and closing the services is for who has opened them."""
    under_way = UnderWay()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loop = Loop(services)
        task = asyncio.create_task(loop.forever(), name="loop")
        try:
            yield
        finally:
            services.draining = True
            await under_way.idle.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            # What is in force, once more whatever it is: the file is what a restart answers from.
            loop.written = None
            await loop.round()

    async def strange(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = {404: "no such path", 405: "not with this method"}.get(status, "this cannot be answered")
        headers = dict(getattr(error, "headers", None) or {})
        if status == 405:
            # The framework tells those of the first route with this path, and there may be several.
            headers["allow"] = ", ".join(sorted(methods_at(app, request.url.path)))
        return fault_answer(
            Refused(status, said, hint="GET /openapi.json lists all there is", headers=headers), services
        )

    app = Starlette(
        routes=[wired(route, services) for route in ROUTES],
        middleware=[Middleware(Edge, metrics=services.metrics, under_way=under_way)],
        exception_handlers={HTTPException: strange},
        lifespan=lifespan,
    )
    app.state.services = services
    return app


def methods_at(app: Starlette, path: str) -> set[str]:
    """The methods that a path is answered with."""
    routes = [r for r in app.routes if isinstance(r, Wired) and r.path_regex.match(path)]
    return {method for r in routes for method in r.methods or ()}


def wired(route: Route, services: Services) -> Wired:
    """A line of the table as the framework has it."""
    methods = None if route.method == "*" else [route.method]
    made = Wired(route.path, endpoint(route, services), methods=methods, name=f"{route.method} {route.path}")
    if route.method == "GET" and made.methods is not None:
        # HEAD would answer as GET does, and look at accounts unseen by who reads the table.
        made.methods.discard("HEAD")
    return made
