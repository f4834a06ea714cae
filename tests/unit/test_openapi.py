"""The descriptions that daemon and edge server give of themselves list every route, and no other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import web

from edge_server.app import create_app as edge_app
from edge_server.openapi import calls as edge_calls
from edge_server.openapi import document as edge_document
from scheduler.daemon.http.app import Ingress
from scheduler.daemon.http.model_calls import ModelCalls, refused_routes
from scheduler.daemon.http.openapi import calls, document
from scheduler.daemon.http.page import PageCalls
from scheduler.daemon.http.read_outs import ReadOutCalls
from scheduler.daemon.http.spend import SpendCalls
from scheduler.wire.openapi import Call

DOCUMENTS = {"daemon": document(), "edge": edge_document("1")}


def listed(given: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((method.upper(), path) for path, methods in given["paths"].items() for method in methods)


def test_the_daemons_lists_its_routes() -> None:
    ingress = Ingress.__new__(Ingress)
    second = [*ModelCalls.__new__(ModelCalls).routes(), *ReadOutCalls.__new__(ReadOutCalls).routes()]
    second += [*SpendCalls.__new__(SpendCalls).routes(), *PageCalls.__new__(PageCalls).routes()]
    routes = [*ingress.routes(second), *refused_routes()]
    assert all(isinstance(route, web.RouteDef) for route in routes)
    assert listed(DOCUMENTS["daemon"]) == sorted((route.method, route.path) for route in routes)


def test_the_edges_lists_its_routes() -> None:
    app = edge_app(None, body_limit_bytes=1)  # no call is made
    found = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert listed(DOCUMENTS["edge"]) == sorted(found)


@pytest.mark.parametrize("given", [tuple(calls()), tuple(edge_calls())], ids=["daemon", "edge"])
def test_no_call_is_listed_twice_or_answers_500(given: tuple[Call, ...]) -> None:
    names = [(call.method, call.path) for call in given]
    assert len(set(names)) == len(names)
    assert not any(500 in call.statuses for call in given)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_is_there_and_every_answer_is_described(name: str) -> None:
    given = DOCUMENTS[name]
    references: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            references.update([value["$ref"]] if "$ref" in value else [])
            for inner in value.values():
                look(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                look(inner)

    look(given)
    assert references <= {f"#/components/schemas/{schema}" for schema in given["components"]["schemas"]}
    for methods in given["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert all(answer["description"] for answer in operation["responses"].values())
