"""The short way of a batch through WSGI: what a request for inference needs of Flask is not worth its time."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge_server.errors import EdgeError, Unavailable
from edge_server.service import VERSION, Service
from scheduler.wire import JSON_LENGTH_HEADER, WireError, encode_response, json_length_of, parse_request
from scheduler.wsgi.body import Body
from scheduler.wsgi.connection import KNOWN_PEER

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("edge_server")
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_JSON_LENGTH_KEY = "HTTP_" + JSON_LENGTH_HEADER.upper().replace("-", "_")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
FAULT = "the server failed on this request; its log says why"


class InferPath:
    """WSGI application that answers batches for the served models itself, and leaves all other requests to Flask."""

    def __init__(self, app: WSGIApplication, service: Service, *, body_limit_bytes: int) -> None:
        """Stores its parts.

        Args:
            app: answers everything else, with the same sentences.
            service: serves the batches.
            body_limit_bytes: the largest body; where the server lets a larger one through, it is Flask's to refuse.
        """
        self._app = app
        self._service = service
        self._body_limit_bytes = body_limit_bytes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        name = self._model(environ)
        body = None if name is None else self._body(environ)
        if name is None or body is None:
            return self._app(environ, start_response)
        status, headers, answer = self._answer(name, body, environ.get(_JSON_LENGTH_KEY))
        self._service.metrics.responded(status)
        if status == 200 and KNOWN_PEER in environ:
            environ[KNOWN_PEER]()
        headers.append(("Content-Length", str(len(answer))))
        start_response(f"{status} {_REASONS.get(status, 'Error')}", headers)
        return [answer]

    def _model(self, environ: WSGIEnvironment) -> str | None:
        """Returns the model whose inference is asked for, if it is served here."""
        if environ["REQUEST_METHOD"] != "POST":
            return None
        found = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        if found is None or found[1] not in self._service.models or found[2] not in (None, VERSION):
            return None
        return found[1]

    def _body(self, environ: WSGIEnvironment) -> bytes | memoryview | None:
        """Returns the whole body; None, if that is for Flask to refuse.

        Raises:
            Refused: it is too large, broken or too slow; our own server answers and counts that.
        """
        source = environ["wsgi.input"]
        if isinstance(source, Body):
            return source.whole()
        length = environ.get("CONTENT_LENGTH") or ""
        if not length.isdecimal() or int(length) > self._body_limit_bytes:
            return None
        read: bytes = source.read(int(length))
        return read

    def _answer(
        self, name: str, body: bytes | memoryview, json_length: str | None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            headers = {} if json_length is None else {JSON_LENGTH_HEADER: json_length}
            asked = parse_request(body, json_length_of(headers))
            answer = self._service.infer(name, asked)
            encoded = encode_response(answer, requested=asked.outputs, binary_by_default=asked.binary_by_default)
            return 200, list(encoded.headers.items()), encoded.body
        except WireError as error:
            return _refused(400, str(error))
        except EdgeError as error:
            status, headers_, text = _refused(error.status, str(error))
            if isinstance(error, Unavailable):
                headers_.append(("Retry-After", str(error.retry_after_s)))
            return status, headers_, text
        except Exception:  # noqa: BLE001 - the outermost line, in place of Flask's
            _log.exception("Request for model %s failed", name)
            return _refused(500, FAULT)


def _refused(status: int, sentence: str) -> tuple[int, list[tuple[str, str]], bytes]:
    return status, [("Content-Type", "application/json")], json.dumps({"error": sentence}).encode()
