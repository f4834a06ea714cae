"""Passes batches on to another server of the Open Inference Protocol in the same container."""

from __future__ import annotations

import atexit
import ctypes
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from urllib.parse import quote, urlsplit

from models.errors import ModelError
from scheduler import wire
from scheduler.wire.servers import TensorForm, encoded_in, without_text
from serverless_fn.backend import NotServed, Served
from serverless_fn.inference import memory_bytes
from serverless_fn.settings import Forwarding

_POLL_S = 0.05
_READY_PATH = "/v2/health/ready"
_ANSWER_LIMIT_S = 5.0
_SENTENCE = 500
# prctl(2): the signal that a process gets when its parent ends, however it ends.
_PR_SET_PDEATHSIG = 1
_STOP_LIMIT_S = 10.0


class ForwardedServer:
    """Backend of another server, which this program may start; it ends with this program."""

    def __init__(self, forwarding: Forwarding) -> None:
        """Stores the settings; `load` starts the server, if that is asked for, and waits for it."""
        self._forwarding = forwarding
        address = urlsplit(forwarding.url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._is_ready = False

    def load(self) -> None:
        """Starts the server, if a command is given, and waits until it is ready.

        Raises:
            ModelError: it cannot be started, ends, or is not ready within the limit.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._process, self._is_ready = None, False
            if self._is_ready:
                return
            fresh = self._process is None
            if self._forwarding.command and fresh:
                self._process = _started(self._forwarding.command)
            end_s = time.monotonic() + self._forwarding.limit_s
            while not self._answers_ready():
                if self._process is not None and (status := self._process.poll()) is not None:
                    if not fresh:
                        # The one that failed the batch before took until now to end.
                        self._process, fresh = _started(self._forwarding.command), True
                        continue
                    self._process = None
                    raise ModelError(
                        f"the server {self._forwarding.command[0]!r} has ended with status {status} before it was"
                        " ready; its own lines in the log say why"
                    )
                if time.monotonic() > end_s:
                    raise ModelError(
                        f"the server at {self._forwarding.url} is not ready after {self._forwarding.limit_s:g} s: check"
                        f" that it listens there and answers GET {_READY_PATH} with 200"
                    )
                time.sleep(_POLL_S)
            self._is_ready = True

    def check(self, model: object) -> None:
        """Checks that the frame names a model.

        Raises:
            NotServed: it does not.
        """
        if not isinstance(model, str) or not model:
            raise NotServed(400, "the frame's header names no model, and the server behind this function needs one")

    def serve(self, model: object, payload: wire.Encoded, trace: wire.TraceContext | None = None) -> Served:
        """Passes one batch on.

        Raises:
            WireError: the request is not valid, or has no form in JSON.
            NotServed: the server refused it, or failed; the status is 400, 404 or 500.
        """
        request = self._request(payload)
        path = f"/v2/models/{quote(str(model), safe='')}/infer"
        with self._lock:
            started_s = time.perf_counter()
            status, headers, body = self._post(path, request, {} if trace is None else trace.headers())
            service_s = time.perf_counter() - started_s
        if status != 200:
            raise NotServed(_status_of(status), f"the server answered {status}: {_sentence_in(body)}")
        try:
            # A broken answer is named here, not on the client host.
            encoded = wire.Encoded(body, wire.json_length_of(headers))
            wire.parse_response(encoded.body, encoded.json_length)
        except wire.WireError as error:
            raise NotServed(500, f"the server's answer cannot be read: {error}") from error
        facts: dict[str, object] = {"runtime": f"forwarded to {self._forwarding.url}"}
        if self._process is not None:
            facts["memory_bytes"] = memory_bytes() + memory_bytes(self._process.pid)
        return Served(encoded, service_s, facts)

    def _request(self, payload: wire.Encoded) -> wire.Encoded:
        # Parsed in any case, so that a broken frame is not taken for a failure of the server.
        request = wire.parse_request(payload.body, payload.json_length)
        if self._forwarding.tensors == "binary":
            return payload
        return encoded_in(request, TensorForm.JSON, as_base64=without_text(request)).joined()

    def _post(
        self, path: str, request: wire.Encoded, traced: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Returns status, headers and body of the answer; tries again once where a kept connection was closed."""
        for again in (True, False):
            kept = self._connection is not None
            connection = self._connection or http.client.HTTPConnection(
                self._host, self._port, timeout=self._forwarding.limit_s
            )
            self._connection = None
            try:
                connection.request("POST", path, request.body, {**request.headers, **traced})
                response = connection.getresponse()
                body = response.read()
            except TimeoutError:
                connection.close()
                limit_s = self._forwarding.limit_s
                raise NotServed(500, f"the server has not answered within {limit_s:g} s; see its log") from None
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                if again and kept and isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
                    continue
                self._is_ready = False  # the next batch waits for it again, or starts it
                raise NotServed(
                    500, f"the server at {self._forwarding.url} does not answer ({error}); its log says why"
                ) from error
            self._connection = connection
            return response.status, response.headers, body
        raise AssertionError("the second try returns or raises")

    def _answers_ready(self) -> bool:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_ANSWER_LIMIT_S)
        try:
            connection.request("GET", _READY_PATH)
            return connection.getresponse().status == 200
        except (http.client.HTTPException, OSError):
            return False
        finally:
            connection.close()


def _status_of(status: int) -> int:
    """Returns the frame's status: a server that is busy, or fails otherwise, is no fault of the request."""
    if status == 404:
        return 404
    return 400 if 400 <= status < 500 and status not in (408, 429) else 500


def _sentence_in(body: bytes) -> str:
    try:
        found = json.loads(body)
        if isinstance(found, Mapping) and "error" in found:
            return str(found["error"])[:_SENTENCE]
    except (ValueError, RecursionError):
        pass
    return body[:_SENTENCE].decode(errors="replace").strip() or "without a sentence"


def _started(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    # Loaded here: after the fork, the child of a program with threads may call what is loaded, and no more.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    started: SimpleQueue[subprocess.Popen[bytes] | OSError] = SimpleQueue()

    def start_and_wait() -> None:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        process.wait()

    # The parent in the sense of prctl(2) is the thread; that of a request ends with its connection.
    threading.Thread(target=start_and_wait, name="forwarded-server", daemon=True).start()
    process = started.get()
    if isinstance(process, OSError):
        raise ModelError(f"the server {command[0]!r} cannot be started ({process.strerror}): correct the command")
    atexit.register(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
