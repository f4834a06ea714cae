"""Behind a server of ASGI the application answers as behind our own; what is not the server's to refuse, we refuse."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from support.edge_fakes import FakeModel, make_service, picture
from support.hygiene import at_end

from edge_server.app import create_app
from edge_server.asgi import AsgiInterface
from edge_server.service import Service
from scheduler.wire import JSON_LENGTH_HEADER, InferRequest, Tensor, encode_request, parse_response

LIMIT_BYTES = 20_000
INFER = "/v2/models/digits/infer"


class Seen:
    """An answer, as a server of ASGI gets it."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start, *parts = messages
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(part["body"] for part in parts)

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@pytest.fixture
def service() -> Service:
    return make_service(FakeModel(), max_batch=4)


@pytest.fixture
def interface(service: Service) -> AsgiInterface:
    app = create_app(service, body_limit_bytes=LIMIT_BYTES)
    return interface_of(app, service)


def interface_of(app: Any, service: Service) -> AsgiInterface:
    made = AsgiInterface(app, body_limit_bytes=LIMIT_BYTES, threads=2, refused=service.metrics.responded)
    at_end(made.close)
    return made


def asked(
    interface: AsgiInterface,
    path: str,
    *parts: bytes,
    method: str = "GET",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    leaves: bool = False,
    **scope: object,
) -> Seen | None:
    """Asks as a server does that reads a body in parts; None: there was no answer."""
    given = headers.items() if isinstance(headers, Mapping) else headers
    fields = [(name.lower().encode(), value.encode()) for name, value in given]
    target, _, query = path.partition("?")
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if leaves:
        messages.append({"type": "http.disconnect"})
    else:
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": method, "path": target, "query_string": query.encode(), "headers": fields}
    asyncio.run(interface({**whole, **scope}, receive, send))
    return Seen(sent) if sent else None


def answer(interface: AsgiInterface, path: str, *parts: bytes, **more: Any) -> Seen:
    seen = asked(interface, path, *parts, **more)
    assert seen is not None
    return seen


def batch() -> tuple[bytes, dict[str, str]]:
    encoded = encode_request(InferRequest(id="7", inputs=(Tensor.from_elements("image", [picture(3), picture(4)]),)))
    return encoded.body, dict(encoded.headers)


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_in_parts_is_served(interface: AsgiInterface, packed: bool) -> None:
    body, headers = batch()
    if packed:
        body, headers = gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    seen = answer(interface, INFER, body[:100], body[100:], method="POST", headers=headers)
    assert seen.status == 200
    assert seen.headers["content-length"] == str(len(seen.body))
    length = seen.headers.get(JSON_LENGTH_HEADER.lower())
    answered = parse_response(seen.body, None if length is None else int(length))
    outputs = {tensor.name: tensor for tensor in answered.outputs}
    assert outputs["probabilities"].to_numpy().argmax(axis=1).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v2/models/digits", {}),
        ("/v2/models/digits?a=b", {}),
        ("/v2/models/digits", {"raw_path": b"/v2/models/%64igits"}),
        ("/edge/v2/models/digits", {"root_path": "/edge"}),
        ("/edge/v2/models/digits", {"root_path": "/edge", "raw_path": b"/edge/v2/models/digits"}),
    ],
)
def test_paths_are_read_as_they_were_sent(interface: AsgiInterface, path: str, scope: dict[str, object]) -> None:
    assert json.loads(answer(interface, path, **scope).body)["name"] == "digits"


def test_a_path_that_is_decoded_already_stays_what_it_was(interface: AsgiInterface) -> None:
    assert answer(interface, "/a%b c").error == "there is nothing at '/a%b c': the protocol's paths begin with /v2"


def test_head_has_the_length_and_nothing_else(interface: AsgiInterface) -> None:
    whole = answer(interface, "/v2/health/live")
    head = answer(interface, "/v2/health/live", method="HEAD")
    assert (head.headers["content-length"], head.body) == (whole.headers["content-length"], b"")


@pytest.mark.parametrize(
    ("headers", "parts", "status", "sentence"),
    [
        ({"Content-Length": str(LIMIT_BYTES + 1)}, [], 413, "the body is over the limit of 20000 bytes"),
        ({}, [b"x" * 15_000] * 2, 413, "the body is over the limit of 20000 bytes"),
        ({"Content-Encoding": "gzip"}, [gzip.compress(bytes(LIMIT_BYTES + 1))], 413, "the body is over the limit"),
        ({"Content-Encoding": "gzip"}, [b"{}"], 400, "the body is not gzip"),
        ({"Content-Encoding": "br"}, [b"{}"], 415, "Content-Encoding can only be gzip or identity"),
        ([("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")], [b"{}"], 415, "Content-Encoding can only be"),
    ],
)
def test_bodies_that_the_application_never_sees_are_refused_and_counted(
    interface: AsgiInterface, service: Service, headers: Any, parts: list[bytes], status: int, sentence: str
) -> None:
    seen = answer(interface, INFER, *parts, method="POST", headers=headers)
    assert (seen.status, seen.headers["content-type"]) == (status, "application/json")
    assert seen.error.startswith(sentence)
    assert f'edgeburst_edge_responses_total{{code="{status}"}} 1.0' in service.metrics.exposition().decode()


def test_the_body_of_a_client_that_leaves_is_dropped(interface: AsgiInterface) -> None:
    assert asked(interface, INFER, b"{", method="POST", leaves=True) is None


def test_a_token_given_twice_is_none(service: Service) -> None:
    app = create_app(service, body_limit_bytes=LIMIT_BYTES, token_sha256=hashlib.sha256(b"secret").digest())
    guarded = interface_of(app, service)
    good = ("Authorization", "Bearer secret")
    assert answer(guarded, "/v2", headers=[good]).status == 200
    assert answer(guarded, "/v2", headers=[good, good]).status == 401
    assert answer(guarded, "/v2").headers["www-authenticate"] == "Bearer"


def test_a_fault_of_the_application_is_one_sentence(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Iterable[bytes]:
        raise RuntimeError("a bug")

    seen = answer(interface_of(broken, service), "/v2")
    assert (seen.status, seen.error) == (500, "the server failed on this request; its log says why")
    assert "The application failed on a request" in caplog.text


def test_start_and_end_of_the_server_are_acknowledged(interface: AsgiInterface) -> None:
    told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        return told.pop(0)

    async def send(message: Any) -> None:
        said.append(message["type"])

    asyncio.run(interface({"type": "lifespan"}, receive, send))
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_nothing_but_http_is_served(interface: AsgiInterface) -> None:
    with pytest.raises(ValueError, match="websocket is not served, only HTTP"):
        asked(interface, "/v2", type="websocket")


def test_an_application_that_begins_with_its_first_part_is_answered_and_closed(service: Service) -> None:
    closed = []

    class Lazy:
        def __init__(self, start: Any) -> None:
            self.start = start

        def __iter__(self) -> Any:
            self.start("201 Created", [("X-Lazy", "yes")])
            yield b"late"

        def close(self) -> None:
            closed.append(True)

    seen = answer(interface_of(lambda environ, start: Lazy(start), service), "/")
    assert (seen.status, seen.headers["x-lazy"], seen.body) == (201, "yes", b"late")
    assert closed == [True]
