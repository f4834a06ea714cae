"""HTTP interface of the container, as Function Compute calls it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from models.errors import ModelError
from scheduler import wire
from scheduler.wsgi.body import Body
from scheduler.wsgi.errors import Refused
from serverless_fn.inference import Answer, Inference

_MESSAGE = "the function failed inside; its log has the stack trace"


def create_app(inference: Inference) -> Flask:
    """Returns the WSGI application: POST /invoke, POST /initialize, GET /pre-stop, GET /healthz."""
    app = Flask("serverless_fn")

    @app.post("/invoke")
    def invoke() -> Response:
        with _logged("Invoke"):
            return _invoke(inference, _frame())

    @app.post("/initialize")
    def initialize() -> Response:
        with _logged("Initialize"):
            return _initialize(inference)

    @app.get("/pre-stop")
    def pre_stop() -> Response:
        return Response(headers={"x-fc-status": "200"})

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @app.errorhandler(Refused)
    def refused_body(error: Refused) -> Response:
        response = jsonify(error=str(error))
        response.status_code = error.status
        response.headers.update(dict(error.headers))
        return response

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        response = jsonify(error=f"{error.name}: {error.description}")
        response.status_code = error.code or 500
        return response

    return app


def _frame() -> bytes | memoryview:
    body = request.environ["wsgi.input"]
    return body.whole() if isinstance(body, Body) else request.get_data()


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Writes the log lines before and after a call by which the platform separates invocations."""
    request_id = request.headers.get("x-fc-request-id", "-")
    print(f"FC {what} Start RequestId: {request_id}", flush=True)
    yield
    print(f"FC {what} End RequestId: {request_id}", flush=True)


def _invoke(inference: Inference, frame: bytes | memoryview) -> Response:
    try:
        trace = wire.trace_of(request.headers.getlist(wire.PARENT_HEADER), request.headers.getlist(wire.STATE_HEADER))
        answer = inference.answer(frame, trace=trace)
    except Exception:  # noqa: BLE001 - the outermost line: after any error the platform must get its failure headers
        traceback.print_exc(file=sys.stdout)
        answer = Answer(500, wire.pack_frame({"status": 500, "error": _MESSAGE}, wire.Encoded(b"", None)))
    return _response(answer.frame, failed=answer.status != 200)


def _initialize(inference: Inference) -> Response:
    try:
        inference.initialize()
    except ModelError as error:
        return _initialize_failed(str(error), type(error).__name__)
    except Exception as error:  # noqa: BLE001 - the outermost line, as above
        traceback.print_exc(file=sys.stdout)
        return _initialize_failed(_MESSAGE, type(error).__name__)
    return _response(b"", failed=False)


def _initialize_failed(message: str, kind: str) -> Response:
    print(message, flush=True)
    return _response(jsonify(errorMessage=message, errorType=kind, stackTrace=[]).get_data(), failed=True)


def _response(body: bytes, *, failed: bool) -> Response:
    # Without the header the platform may count a failure as a success. The frame also carries the status.
    status = 404 if failed else 200
    return Response(body, status, {"x-fc-status": str(status)}, mimetype="application/octet-stream")
