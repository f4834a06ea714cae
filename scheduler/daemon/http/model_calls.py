"""Calls about the models: list, configuration, statistics, repository; and Triton's calls that get one sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from scheduler.daemon.http.admin import json_response
from scheduler.daemon.http.body_reader import BodyReader
from scheduler.daemon.ingress.checks import known_card
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.service import InferenceService
from scheduler.daemon.model_repository import SENTENCES, Unsupported

REFUSED_PATHS: tuple[tuple[str, str, Unsupported], ...] = (
    ("POST", "/v2/repository/models/{model}/load", Unsupported.MODEL_CONTROL),
    ("POST", "/v2/repository/models/{model}/unload", Unsupported.MODEL_CONTROL),
    *(
        (method, path, Unsupported.TRACE)
        for path in ("/v2/trace/setting", "/v2/models/{model}/trace/setting")
        for method in ("GET", "POST")
    ),
    *((method, "/v2/logging", Unsupported.LOGGING) for method in ("GET", "POST")),
    *(
        (method, f"/v2/{kind}sharedmemory{region}/{action}", Unsupported.SHARED_MEMORY)
        for kind in ("system", "cuda")
        for region in ("", "/region/{region}")
        for method, action in (("GET", "status"), ("POST", "register"), ("POST", "unregister"))
    ),
)


class ModelCalls:
    """The handlers of calls about models."""

    def __init__(self, service: InferenceService, bodies: BodyReader) -> None:
        """Stores what answers them, and what reads bodies."""
        self._service = service
        self._bodies = bodies

    def routes(self) -> list[web.RouteDef]:
        """Returns the paths."""
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        return [
            web.get("/v2/models", self.models),
            web.get("/v2/models/stats", self.statistics),
            *(web.get(f"{path}/config", self.configuration) for path in (model, version)),
            *(web.get(f"{path}/stats", self.statistics) for path in (model, version)),
            web.post("/v2/repository/index", self.index),
        ]

    async def models(self, _: web.Request) -> web.Response:
        """GET /v2/models: the names of the models, as KServe lists them."""
        return json_response({"models": list(self._service.cards)})

    async def configuration(self, request: web.Request) -> web.Response:
        """GET /v2/models/{model}[/versions/{version}]/config."""
        return json_response(self._service.model_config(self._card(request)))

    async def statistics(self, request: web.Request) -> web.Response:
        """GET /v2/models/stats, /v2/models/{model}[/versions/{version}]/stats."""
        known = "model" in request.match_info
        names = [self._card(request).name] if known else list(self._service.cards)
        return json_response(self._service.statistics(names))

    async def index(self, request: web.Request) -> web.Response:
        """POST /v2/repository/index, with `{"ready": true}` or no body."""
        body = await self._bodies.read(request) if request.can_read_body else b""
        return json_response(self._service.repository_index(ready_only=_ready_only(body)))

    def _card(self, request: web.Request) -> ModelCard:
        return known_card(self._service.cards, request.match_info["model"], request.match_info.get("version", ""))


def refused_routes() -> list[web.RouteDef]:
    """Returns the paths of Triton's calls that get one sentence."""
    return [web.route(method, path, _refusing(kind)) for method, path, kind in REFUSED_PATHS]


def _ready_only(body: bytes) -> bool:
    try:
        asked = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"the body is not valid JSON: {error}") from None
    ready_only = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready_only, bool):
        raise Rejected(400, 'the body must be {"ready": true}, {"ready": false} or empty')
    return ready_only


def _refusing(kind: Unsupported) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Rejected(501, SENTENCES[kind])

    return refuse
