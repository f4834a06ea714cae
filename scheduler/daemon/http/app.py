"""The daemon's HTTP interface: the Open Inference Protocol v2, pictures from curl, and the calls of operators."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

from aiohttp import web

from scheduler.daemon.calls import Answer, InferenceCall, Refused
from scheduler.daemon.config.config import Config
from scheduler.daemon.http import admin, classify, infer
from scheduler.daemon.http.admin import json_response
from scheduler.daemon.http.body_reader import BodyReader
from scheduler.daemon.http.errors import REQUEST_HEADER, error_response, errors_as_json
from scheduler.daemon.http.infer import known_card
from scheduler.daemon.http.model_calls import ModelCalls, refused_routes
from scheduler.daemon.http.model_metadata import ModelCard, model_cards
from scheduler.daemon.http.parts import DaemonParts
from scheduler.daemon.telemetry import CANCELLED, Telemetry
from scheduler.domain.requests import Backend

_EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
]
_SAFE_PAGE = {
    # The page loads data only from the daemon that serves it.
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:",
    "Cache-Control": "no-cache",
}


class Ingress:
    """The HTTP handlers. The daemon sets `ready` when everything else has started."""

    def __init__(self, parts: DaemonParts, config: Config, environ: Mapping[str, str]) -> None:
        """Stores its parts.

        Args:
            parts: the parts of the daemon that the handlers use.
            config: limits, models and the name of the admin token's variable.
            environ: the environment that holds the variable.
        """
        self.ready = False
        self.bodies = BodyReader(body_limit_bytes=0, total_limit_bytes=0)
        self.telemetry = Telemetry(parts.status, self.backends, parts.counters)
        self._parts = parts
        self._runner = parts.runner
        self._environ = environ
        self._config = config
        self._cards: Mapping[str, ModelCard] = {}
        self.model_calls = ModelCalls(
            parts, self.bodies, config=lambda: self._config, cards=lambda: self._cards, unready=self.unready
        )
        self.reload(config)

    def reload(self, config: Config) -> None:
        """Uses another configuration for new requests; requests that have begun end under the old one."""
        self._config = config
        self._cards = model_cards(config)
        self.telemetry.tenants.configure([tenant.name for tenant in config.tenants])
        self.bodies.body_limit_bytes = config.daemon.body_limit_bytes
        # Bodies that are arriving are not in the queue yet: they may take as much memory again, and one always fits.
        self.bodies.total_limit_bytes = max(config.engine.queue_max_bytes, config.daemon.body_limit_bytes)

    def backends(self) -> tuple[str, ...]:
        """Returns the names of the backends that are configured."""
        sections = ((Backend.EDGE, self._config.edge), (Backend.FUNCTION, self._config.function))
        return tuple(backend.value for backend, section in sections if section is not None)

    def routes(self, second: Sequence[web.RouteDef] = ()) -> list[web.RouteDef]:
        """Returns every path; the most frequent ones come first, because they are matched in order, then `second`."""
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        limits = "/v1/models/{model}/limits"
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
            web.get("/v1/status", self.status),
            web.get("/v1/batches", self.batches),
            web.get("/v1/explain/{request}", self.explain),
            web.get("/metrics", self.metrics),
            web.get("/", self.dashboard),
        ]

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """POST /v2/models/{model}[/versions/{version}]/infer."""
        card = known_card(self._cards, request.match_info)
        body = await self.bodies.read(request)
        received_at_s = self._runner.now()
        asked = infer.parse_infer(card, body, request.headers)
        call = infer.infer_call(
            card,
            asked,
            request.headers,
            received_at_s=received_at_s,
            max_timeout_s=self._config.daemon.max_timeout_s,
        )
        return await self._answer(request, call, lambda answer, _: infer.infer_response(card, asked, answer))

    async def classify(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/classify/{model}, with a picture as the body."""
        card = known_card(self._cards, request.match_info)
        classify.check_content_type(request)
        asked = classify.question(card, request, max_timeout_s=self._config.daemon.max_timeout_s)
        picture = await self.bodies.read(request)
        call = classify.classify_call(card, picture, asked, received_at_s=self._runner.now())
        return await self._answer(
            request,
            call,
            lambda answer, latency_s: classify.classify_response(card, asked, answer, latency_s=latency_s),
        )

    async def _answer(
        self, request: web.Request, call: InferenceCall, render: Callable[[Answer, float], web.Response]
    ) -> web.StreamResponse:
        """Submits a call, writes its answer, and counts how it ended."""
        self.telemetry.arrived(call.received_at_s)
        try:
            answer = await self._runner.submit(call)
        except Refused as error:
            self.telemetry.refused(call, error.refusal.kind.value, self._runner.now(), reason=error.refusal.reason)
            raise
        except asyncio.CancelledError:
            self.telemetry.refused(call, CANCELLED, self._runner.now())
            raise
        latency_s = self._runner.now() - call.received_at_s
        response = render(answer, latency_s)
        response.headers[REQUEST_HEADER] = str(answer.request_id)
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            # The client closed the connection before its answer was written.
            self.telemetry.refused(call, CANCELLED, self._runner.now())
            raise
        back_s = max(0.0, self._runner.now() - answer.read_at_s)
        own_latency_s = self._parts.own_latency.add(answer.in_s, answer.out_s, back_s)
        self.telemetry.answered(call, answer, latency_s=latency_s, slo_s=self._slo_s(call), own_latency_s=own_latency_s)
        return response

    def _slo_s(self, call: InferenceCall) -> float:
        if call.timeout_s is not None:
            return call.timeout_s
        card = self._cards.get(call.model)
        known = card.classes.get(call.class_name) if card else None
        # A reload may have removed the class since the call began: then there is no SLO.
        return known.slo_s if known else float("inf")

    async def server_metadata(self, _: web.Request) -> web.Response:
        """GET /v2."""
        return json_response({"name": "edgeburst", "version": _version(), "extensions": _EXTENSIONS})

    async def live(self, _: web.Request) -> web.Response:
        """GET /v2/health/live."""
        return json_response({"live": True})

    async def health(self, _: web.Request) -> web.Response:
        """GET /v2/health/ready."""
        return self._readiness({"ready": True})

    async def model_metadata(self, request: web.Request) -> web.Response:
        """GET /v2/models/{model}."""
        return json_response(known_card(self._cards, request.match_info).metadata())

    async def model_ready(self, request: web.Request) -> web.Response:
        """GET /v2/models/{model}/ready."""
        return self._readiness({"name": known_card(self._cards, request.match_info).name, "ready": True})

    def _readiness(self, ready: Mapping[str, object]) -> web.Response:
        unready = self.unready()
        return error_response(503, unready, {"Retry-After": "1"}) if unready else json_response(ready)

    def unready(self) -> str:
        """Returns why no request can be answered now, in one sentence; empty: they can."""
        if self._runner.draining:
            return "the daemon is stopping and accepts no more requests; send them again later"
        if not self.ready:
            return "the daemon is starting; ask again in a moment"
        if self.backends() and not self._backends_up():
            return f"no backend answers now ({' and '.join(self.backends())}); ask again in a moment"
        return ""

    def _backends_up(self) -> bool:
        """Returns whether the engine uses at least one configured backend."""
        engine = self._parts.status().get("engine")
        return not isinstance(engine, dict) or any(engine.get(f"{name}_up", True) for name in self.backends())

    async def get_limits(self, request: web.Request) -> web.Response:
        """GET /v1/models/{model}/limits."""
        model = known_card(self._cards, request.match_info).name
        return json_response(admin.limits_json(model, self._parts.limits.of(model)))

    async def put_limits(self, request: web.Request) -> web.Response:
        """PUT /v1/models/{model}/limits: replaces the limits from now on."""
        token_env = self._config.daemon.admin_token_env
        admin.check_admin(request, token=self._environ.get(token_env, ""), token_env=token_env)
        model = known_card(self._cards, request.match_info).name
        limits = admin.parse_limits(await self.bodies.read(request))
        self._parts.limits.set(model, limits)
        return json_response(admin.limits_json(model, limits))

    async def status(self, _: web.Request) -> web.Response:
        """GET /v1/status: the daemon's state, and the counts of requests."""
        requests = self.telemetry.summary(self._runner.now())
        ready = self.ready and not self._runner.draining
        tenants = self.telemetry.tenants.rows()
        own = {"ready": ready, "backends": self.backends(), "requests": requests, "tenants": tenants}
        return json_response({**self._parts.status(), **own})

    async def batches(self, request: web.Request) -> web.Response:
        """GET /v1/batches?after=ID&limit=N."""
        after, limit = admin.batch_range(request)
        return json_response({"batches": self._parts.batches(after, limit)})

    async def explain(self, request: web.Request) -> web.Response:
        """GET /v1/explain/{request}: the decisions about a request, by the daemon's number or the client's id."""
        name = request.match_info["request"]
        found = self._parts.explain(name)
        if not found:
            raise admin.unknown_request(name, ring=self._config.explain.ring)
        return json_response({"explanations": found})

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics, in Prometheus' text format."""
        body = self.telemetry.exposition()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def dashboard(self, _: web.Request) -> web.Response:
        """GET /: the dashboard."""
        page = resources.files("scheduler.daemon").joinpath("dashboard.html").read_text(encoding="utf-8")
        return web.Response(text=page, content_type="text/html", headers=_SAFE_PAGE)


def _version() -> str:
    try:
        return importlib.metadata.version("edgeburst")
    except importlib.metadata.PackageNotFoundError:
        return "source"


INGRESS = web.AppKey("ingress", Ingress)


def create_app(parts: DaemonParts, config: Config, environ: Mapping[str, str] = os.environ) -> web.Application:
    """Returns the application; `app[INGRESS]` is its Ingress."""
    ingress = Ingress(parts, config, environ)
    app = web.Application(middlewares=[errors_as_json(ingress.telemetry)])
    app[INGRESS] = ingress
    app.add_routes(ingress.routes(ingress.model_calls.routes()))
    app.add_routes(refused_routes())
    return app


def app_runner(app: web.Application, *, stop_limit_s: float) -> web.AppRunner:
    """Returns the server of an application.

    A client that closes its connection cancels its handler, and with it the call.

    Args:
        app: the application.
        stop_limit_s: longest that `cleanup` waits for responses that are being written.
    """
    return web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=stop_limit_s)
