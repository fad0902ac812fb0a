"""The table of routes as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from stillwatch import __version__
from stillwatch.serving.edge import Route

METHODS = ("get", "post", "put", "patch", "delete", "head", "options")

ERROR = {
    "type": "object",
    "required": ["error", "hint", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "what is wrong"},
        "hint": {"type": "string", "description": "what to do next"},
        "request_id": {"type": "string", "description": "names this request in the log"},
    },
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """One entry for each path and method; a route for every method is told for GET and POST."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in ("get", "post") if route.method == "*" else (route.method.lower(),):
            paths.setdefault(path, {})[method] = operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stillwatch",
            "version": __version__,
            "summary": "Beside the gateway: what is in force, and why",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": ERROR},
        },
    }


def operation(route: Route, method: str) -> dict[str, Any]:
    """What a route takes and gives; its right, or why it is open, is told in words."""
    told: dict[str, Any] = {
        "operationId": f"{method}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": route.summary,
        "description": f"Needs the right `{route.right}`." if route.right else f"Open: {route.open_because}.",
        "security": [{"token": []}] if route.right else [],
        "parameters": [*_parameters(route)],
        "responses": {"200": {"description": "as asked"}, "default": _error()},
    }
    if route.fields and method != "get":
        told["requestBody"] = {"content": {"application/json": {"schema": _object(route.fields)}}}
    return told


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)(?::\w+)?\}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for name, meaning in route.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}


def _object(fields: Mapping[str, str]) -> dict[str, Any]:
    properties = {name: {"description": meaning} for name, meaning in fields.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _error() -> dict[str, Any]:
    return {
        "description": "what is wrong, and what to do",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
