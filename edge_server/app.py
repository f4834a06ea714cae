"""HTTP interface on Flask: Open Inference Protocol v2 and /metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from edge_server.access import Guard
from edge_server.environment import environment
from edge_server.errors import EdgeError, Unavailable
from edge_server.infer_path import FAULT, InferPath
from edge_server.openapi import document
from edge_server.service import VERSION, Service, State
from scheduler.wire.openapi import OPENAPI_PATH
from scheduler.wsgi.errors import Refused

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

NAME = "edgeburst-edge"
_SERVICE = "edgeburst.service"
_routes = Blueprint("oip_v2", __name__)


def create_app(service: Service, *, body_limit_bytes: int, token_sha256: bytes | None = None) -> Flask:
    """Returns the WSGI application.

    Args:
        service: serves the batches.
        body_limit_bytes: the largest request body; a larger one gets status 413.
        token_sha256: SHA-256 of the token that clients must send; None: they need none.
    """
    app = Flask(NAME, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask types the provider's base class only
    app.config["MAX_CONTENT_LENGTH"] = body_limit_bytes
    app.extensions[_SERVICE] = service
    app.register_blueprint(_routes)
    app.register_error_handler(EdgeError, _refused)
    app.register_error_handler(RequestEntityTooLarge, _too_large)
    app.register_error_handler(Refused, _refused_body)
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_counted)
    wsgi_app: WSGIApplication = InferPath(app.wsgi_app, service, body_limit_bytes=body_limit_bytes)
    if token_sha256 is not None:
        wsgi_app = Guard(wsgi_app, token_sha256, service.metrics.responded)
    app.wsgi_app = wsgi_app  # type: ignore[method-assign,assignment]
    return app


def _service() -> Service:
    found: Service = current_app.extensions[_SERVICE]
    return found


@_routes.get("/v2")
def _server_metadata() -> ResponseReturnValue:
    service = _service()
    return jsonify(
        name=NAME,
        version=_version(),
        extensions=["binary_tensor_data"],
        models=list(service.models),
        emulated=service.emulation.name,
        environment=environment(),
    )


def _version() -> str:
    try:
        return version("edgeburst")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


@_routes.get("/v2/health/live")
def _live() -> ResponseReturnValue:
    return jsonify(live=True)


@_routes.get("/v2/health/ready")
def _ready() -> ResponseReturnValue:
    state = _service().state
    return jsonify(ready=state is State.READY, state=state.value), 200 if state is State.READY else 503


@_routes.get("/v2/models/<name>")
@_routes.get("/v2/models/<name>/versions/<number>")
def _model_metadata(name: str, number: str = VERSION) -> ResponseReturnValue:
    service = _service()
    model = service.model(name, number)
    served = model.served
    runtime = served.runtime
    isolation = {"mps": dict(service.isolation)} if service.isolation else {}
    return jsonify(
        name=name,
        versions=[VERSION],
        platform=platform_of(runtime.name),
        inputs=[spec.metadata() for spec in served.card.inputs],
        outputs=[spec.metadata() for spec in served.card.all_outputs()],
        parameters={
            "max_batch": model.max_batch,
            "parallel": service.parallel(),
            "device": runtime.device,
            "weights": served.weights,
            "identity": served.identity,
            "files": served.files,
            "runtime": {"name": runtime.name, "precision": runtime.precision, "tried": dict(runtime.tried)},
            "emulated": service.emulation.name,
            **isolation,
        },
    )


def platform_of(runtime: str) -> str:
    """Returns the protocol's name of a platform, as Triton names its own.

    >>> platform_of("torch channels_last")
    'pytorch'
    """
    known = {"onnxruntime": "onnxruntime_onnx", "torch": "pytorch"}
    kind = runtime.split()[0] if runtime else ""
    return known.get(kind, kind)


@_routes.get("/v2/models/<name>/ready")
@_routes.get("/v2/models/<name>/versions/<number>/ready")
def _model_ready(name: str, number: str = VERSION) -> ResponseReturnValue:
    _service().model(name, number)
    ready = _service().state is State.READY
    return jsonify(name=name, ready=ready), 200 if ready else 503


@_routes.post("/v2/models/<name>/infer")
@_routes.post("/v2/models/<name>/versions/<number>/infer")
def _infer(name: str, number: str = VERSION) -> ResponseReturnValue:
    # What is left by `InferPath`: a model or version that is not served, and bodies that are too large.
    _service().model(name, number)
    request.get_data(cache=False)
    return _error("the request has no length: send Content-Length with it", 411)


@_routes.get(OPENAPI_PATH)
def _openapi() -> ResponseReturnValue:
    return jsonify(document(_version()))


@_routes.get("/metrics")
def _metrics() -> ResponseReturnValue:
    return Response(_service().metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


def _error(message: str, status: int) -> Response:
    response = jsonify(error=message)
    response.status_code = status
    return response


def _refused(error: EdgeError) -> Response:
    response = _error(str(error), error.status)
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _refused_body(error: Refused) -> Response:
    # Of a body that Flask began to read; the server's own answer would not be counted here.
    response = _error(str(error), error.status)
    response.headers.update(dict(error.headers))
    return response


def _too_large(_: RequestEntityTooLarge) -> Response:
    limit_bytes = current_app.config["MAX_CONTENT_LENGTH"]
    return _error(f"the body is over the limit of {limit_bytes} bytes: send a smaller batch or smaller pictures", 413)


def _http_error(error: HTTPException) -> Response:
    if error.code == 404:
        return _error(f"there is nothing at {request.path[:128]!r}: the protocol's paths begin with /v2", 404)
    if error.code == 405:
        return _error(f"{request.method} is not possible at {request.path[:128]!r}", 405)
    if error.code == 500:
        return _error(FAULT, 500)
    return _error((error.description or error.name).rstrip("."), error.code or 500)


def _counted(response: Response) -> Response:
    _service().metrics.responded(response.status_code)
    return response
