"""What a server lets clients do, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

NEVER_S = math.inf


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server.

    Attributes:
        body_bytes: the largest body of a request, unpacked too.
        connections: number of open connections; known peers without one get in beyond them.
        header_bytes: size of request line and headers.
        headers: number of headers.
        idle_s: seconds that a kept connection may wait for the next request.
        header_s: seconds from the first byte of a request to the end of its headers; and of the handshake of TLS.
        body_s: seconds that a body may take beside those that `body_bytes_per_s` allows for what has arrived.
        body_bytes_per_s: slowest rate of a long body.
        answer_s: seconds in which a client must take some bytes of its answer.
        linger_s: seconds in which the rest of a refused body is read, so that the client gets the answer.
    """

    body_bytes: int
    connections: int = 256
    header_bytes: int = 64 * 1024
    headers: int = 128
    idle_s: float = 600.0
    header_s: float = 15.0
    body_s: float = 30.0
    body_bytes_per_s: float = 64 * 1024
    answer_s: float = 60.0
    linger_s: float = 2.0
