"""Serves one invocation, from frame to frame: what it is about, how long it took, which instance answered."""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.errors import DeviceLost, ModelError
from scheduler import wire
from serverless_fn.backend import Backend, NotServed
from serverless_fn.log_tail import LogTail


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to an invocation: its status, and the frame that carries it."""

    status: int
    frame: bytes


_END_S = 0.5

FRESH_S = 1.0
"""Seconds: an instance that waited longer for its first request was provisioned, not started for it."""


def _end_soon() -> None:
    print(f"Ending in {_END_S:g} s: the GPU answers nothing to this process any more", flush=True)
    threading.Timer(_END_S, os._exit, (1,)).start()


class Inference:
    """Inference of one instance. Thread-safe."""

    def __init__(
        self,
        backend: Backend,
        *,
        instance_id: str = "",
        log_tail: LogTail | None = None,
        end_process: Callable[[], None] = _end_soon,
    ) -> None:
        """Stores its parts.

        Args:
            backend: what answers the batches.
            instance_id: the platform's name of this instance.
            log_tail: what the process printed last, for callers that ask for it; None: nothing is kept.
            end_process: ends the process after the answer, so that the platform starts another: the GPU is lost.
        """
        self._backend = backend
        self._instance_id = instance_id
        self._log_tail = log_tail
        self._end_process = end_process
        self._lock = threading.Lock()
        self._loaded = False
        self._invoked = False
        self._loaded_at_s = time.perf_counter()
        # Without an initializer the first invocation loads the model, and its duration contains that.
        self._init_s: float | None = 0.0

    def initialize(self) -> None:
        """Runs the platform's initializer: loads the models unless they are loaded.

        Raises:
            ModelError: they cannot be loaded; the message says what to do.
        """
        started_s = time.perf_counter()
        self._load()
        self._init_s = time.perf_counter() - started_s

    def _load(self) -> None:
        with self._lock:
            # Another server in the container may need it again: it may have ended.
            self._backend.load()
            if not self._loaded:
                self._loaded = True
                self._loaded_at_s = time.perf_counter()

    def answer(self, frame: bytes | memoryview, *, trace: wire.TraceContext | None = None) -> Answer:
        """Returns the answer to one invocation; prints a line with the trace that it belongs to, if there is one.

        The trace is that of the frame's header, else the one that is given, of the call's own headers. A broken item
        fails alone, in the output `item_error`. If the whole batch fails, the frame of the answer holds the status and
        an error sentence.
        """
        started_s = time.perf_counter()
        cold_start, self._invoked = not self._invoked and self._is_fresh(started_s), True
        header: dict[str, object] = {"instance_id": self._instance_id, "cold_start": cold_start}
        payload, status = wire.Encoded(b"", None), 200
        request_header: Mapping[str, object] = {}
        try:
            request_header, request_payload = wire.unpack_frame(frame)
            header["batch_id"] = str(request_header.get("batch_id", ""))
            trace = _trace_in(request_header) or trace
            payload = self._serve(request_header, request_payload, header, trace)
        except wire.WireError as error:
            status, header["error"] = 400, str(error)
        except ModelError as error:
            status, header["error"] = 500, str(error)
            if isinstance(error, DeviceLost):
                self._end_process()
        except NotServed as error:
            status, header["error"] = error.status, str(error)
        header["status"] = status
        header.setdefault("memory_bytes", memory_bytes())
        header.setdefault("service_s", 0.0)
        header.setdefault("batch_id", "")
        init_s, self._init_s = self._init_s, None
        if init_s is not None:
            header["init_s"] = init_s
        if trace is not None:
            parent = trace.headers()[wire.PARENT_HEADER]
            print(f"batch {header['batch_id']!r:.80} status {status} traceparent {parent}", flush=True)
        if request_header.get("describe") is not True:
            header.pop("files", None)
        if request_header.get("log_tail") is True and self._log_tail is not None:
            header["log_tail"] = self._log_tail.text()
        header["duration_s"] = time.perf_counter() - started_s
        return Answer(status, wire.pack_frame(header, payload))

    def _is_fresh(self, now_s: float) -> bool:
        """Returns whether the instance was started for the request that arrives at `now_s`.

        The platform does not say so. But it passes on a request that waited for a new instance as soon as the instance
        is ready.
        """
        return not self._loaded or now_s - self._loaded_at_s < FRESH_S

    def _serve(
        self,
        request_header: Mapping[str, object],
        payload: wire.Encoded,
        header: dict[str, object],
        trace: wire.TraceContext | None,
    ) -> wire.Encoded:
        """Returns the response; adds what the frame's header says of it."""
        model = request_header.get("model")
        self._backend.check(model)
        self._load()
        if request_header.get("warm") is True:
            # A warming call: it only has to reach an instance with a loaded model.
            return wire.Encoded(b"", None)
        served = self._backend.serve(model, payload, trace)
        header |= served.facts
        header["service_s"] = served.service_s
        return served.payload


def _trace_in(header: Mapping[str, object]) -> wire.TraceContext | None:
    parent, state = header.get(wire.PARENT_HEADER), header.get(wire.STATE_HEADER)
    return wire.trace_of([parent], [state] if isinstance(state, str) else []) if isinstance(parent, str) else None


def memory_bytes(process: int | str = "self") -> int:
    """Returns the peak of the resident memory of a process, bytes; of another one 0 if it is not known."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        # Not getrusage: it keeps the peak of the program that was there before exec.
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if process == "self" else 0
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB.
