"""The daemon's HTTP interface: the Open Inference Protocol v2, pictures from curl, and the calls of operators."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from aiohttp import web

from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.config.config import Config
from scheduler.daemon.http import admin, openapi
from scheduler.daemon.http.access import caller_of, checks_callers
from scheduler.daemon.http.admin import json_response
from scheduler.daemon.http.body_reader import BodyReader
from scheduler.daemon.http.cors import mark_responses, preflights
from scheduler.daemon.http.errors import as_response, error_response, errors_as_json
from scheduler.daemon.http.hot_path import HotPath
from scheduler.daemon.http.inference import Inference, Render
from scheduler.daemon.http.malformed import JsonRunner
from scheduler.daemon.http.model_calls import ModelCalls, refused_routes
from scheduler.daemon.http.page import PageCalls
from scheduler.daemon.http.picture_body import check_content_type
from scheduler.daemon.http.read_outs import ReadOutCalls, on_their_listener
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.http.spend import SpendCalls
from scheduler.daemon.ingress.checks import known_card
from scheduler.daemon.ingress.errors import RETRY_HEADER
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.ingress.service import InferenceService, server_metadata
from scheduler.wire.openapi import OPENAPI_PATH
from scheduler.wire.trace_context import PARENT_HEADER, STATE_HEADER, trace_of


class Ingress:
    """The HTTP handlers of an inference service."""

    def __init__(self, parts: DaemonParts, config: Config, environ: Mapping[str, str]) -> None:
        """Stores its parts.

        Args:
            parts: the parts of the daemon that the handlers use.
            config: limits, models and tokens.
            environ: the environment that holds its secrets.
        """
        self.service = InferenceService(parts, config, environ)
        self.inference = Inference(self.service)
        self._bodies = BodyReader(self.service.bodies)
        self.model_calls = ModelCalls(self.service, self._bodies)
        self._parts = parts
        self.spend_calls = SpendCalls(parts, self.service, self._bodies)
        self.read_outs = ReadOutCalls(parts, self.service, time.monotonic)
        self.page_calls = PageCalls(parts.feed)

    def routes(self, second: Sequence[web.RouteDef] = ()) -> list[web.RouteDef]:
        """Returns every path; the most frequent ones come first, because they are matched in order, then `second`."""
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        limits, identity = "/v1/models/{model}/limits", "/v1/models/{model}/identity"
        return [
            web.post(f"{model}/infer", self.infer),
            web.post(f"{version}/infer", self.infer),
            *second,
            *(web.get(path, self.model_metadata) for path in (model, version)),
            *(web.get(f"{path}/ready", self.model_ready) for path in (model, version)),
            web.get("/v2", self.server_metadata),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.health),
            web.post("/v1/classify/{model}", self.classify),
            web.get(limits, self.get_limits),
            web.put(limits, self.put_limits),
            web.get(identity, self.get_identity),
            web.put(identity, self.put_identity),
            web.get(OPENAPI_PATH, self.openapi),
        ]

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """POST /v2/models/{model}[/versions/{version}]/infer."""
        card = self._card(request)
        body = await self._bodies.read(request)
        call, render = await self.inference.infer(
            card, request.headers, body, client=caller_of(request).key, received_at_s=self.service.now()
        )
        return await self._answer(request, call, render)

    async def classify(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/classify/{model}, with a picture as the body or in a form."""
        card = self._card(request)
        kind = request.headers.get("Content-Type", "")
        check_content_type(kind)
        asked = self.inference.question(card, request.query, request.headers)
        body = await self._bodies.read(request)
        call, render = self.inference.classify(
            card, asked, kind, body, client=caller_of(request).key, received_at_s=self.service.now()
        )
        return await self._answer(request, call, render)

    async def _answer(self, request: web.Request, call: InferenceCall, render: Render) -> web.StreamResponse:
        """Submits a call, writes its answer, and counts how it ended."""
        written: list[web.StreamResponse] = []

        async def write(rendered: Rendered) -> None:
            response = as_response(rendered)
            await response.prepare(request)
            await response.write_eof()
            written.append(response)

        headers = request.headers
        parents = headers.getall(PARENT_HEADER, ())
        await self.inference.answer(
            call,
            render,
            write,
            caller=caller_of(request),
            trace=trace_of(parents, headers.getall(STATE_HEADER, ())) if parents else None,
            accept_encoding=headers.get("Accept-Encoding", ""),
        )
        return written[0]

    def _card(self, request: web.Request) -> ModelCard:
        """Returns the card of the model in a path."""
        return known_card(self.service.cards, request.match_info["model"], request.match_info.get("version", ""))

    async def server_metadata(self, _: web.Request) -> web.Response:
        """GET /v2."""
        return json_response(server_metadata())

    async def live(self, _: web.Request) -> web.Response:
        """GET /v2/health/live."""
        return json_response({"live": True})

    async def health(self, _: web.Request) -> web.Response:
        """GET /v2/health/ready."""
        return self._readiness({"ready": True})

    async def model_metadata(self, request: web.Request) -> web.Response:
        """GET /v2/models/{model}."""
        return json_response(self._card(request).metadata())

    async def model_ready(self, request: web.Request) -> web.Response:
        """GET /v2/models/{model}/ready."""
        name = self._card(request).name
        return self._readiness({"name": name, "ready": True}, name)

    def _readiness(self, ready: Mapping[str, object], model: str = "") -> web.Response:
        sentence = self.service.not_ready(model)
        return error_response(503, sentence, {RETRY_HEADER: "1"}) if sentence else json_response(ready)

    async def get_limits(self, request: web.Request) -> web.Response:
        """GET /v1/models/{model}/limits."""
        model = self._card(request).name
        return json_response(admin.limits_json(model, self._parts.limits.of(model)))

    async def put_limits(self, request: web.Request) -> web.Response:
        """PUT /v1/models/{model}/limits: replaces the limits from now on."""
        model = self._card(request).name
        limits = admin.parse_limits(await self._bodies.read(request))
        self._parts.limits.set(model, limits)
        return json_response(admin.limits_json(model, limits))

    async def get_identity(self, request: web.Request) -> web.Response:
        """GET /v1/models/{model}/identity: which card and files are expected, and which places are refused."""
        model = self._card(request).name
        return json_response({"model": model, **self._parts.identities.row(model)})

    async def put_identity(self, request: web.Request) -> web.Response:
        """PUT /v1/models/{model}/identity: accepts another one from now on."""
        model = self._card(request).name
        self._parts.identities.accept(model, admin.parse_identity(await self._bodies.read(request)))
        return json_response({"model": model, **self._parts.identities.row(model)})

    async def openapi(self, _: web.Request) -> web.Response:
        """GET /openapi.json: every call, by OpenAPI."""
        return json_response(openapi.document())


INGRESS = web.AppKey("ingress", Ingress)


def create_app(parts: DaemonParts, config: Config, environ: Mapping[str, str] = os.environ) -> web.Application:
    """Returns the application; `app[INGRESS]` is its Ingress."""
    ingress = Ingress(parts, config, environ)

    def origins() -> Sequence[str]:
        return ingress.service.config.daemon.cors_origins

    checks = checks_callers(ingress.service.access, lambda: ingress.service.hosts, origins)
    where = on_their_listener(lambda: ingress.service.read_port)
    app = web.Application(middlewares=[errors_as_json(ingress.service.telemetry), preflights(origins), where, checks])
    mark_responses(app, origins)
    app[INGRESS] = ingress
    app.add_routes(
        ingress.routes([*ingress.model_calls.routes(), *ingress.read_outs.routes(), *ingress.spend_calls.routes()])
    )
    app.add_routes(ingress.page_calls.routes())
    app.add_routes(refused_routes())
    return app


def app_runner(app: web.Application, *, stop_limit_s: float, hot: bool = True) -> JsonRunner:
    """Returns the server of an application.

    A client that closes its connection cancels its handler, and with it the call.

    Args:
        app: the application.
        stop_limit_s: longest that `cleanup` waits for responses that are being written.
        hot: whether requests for inference are read by `connection`; else by aiohttp, as all others.
    """
    ingress = app[INGRESS]
    runner = JsonRunner(
        app,
        refused=ingress.service.telemetry.http_error,
        is_proxy=ingress.service.access.peers.is_proxy,
        hot=HotPath(ingress.service, ingress.inference) if hot else None,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=stop_limit_s,
    )

    async def last(request: web.Request, response: web.StreamResponse) -> None:
        if runner.leaving or getattr(request.protocol, "is_last", False):
            response.force_close()

    app.on_response_prepare.append(last)
    return runner
