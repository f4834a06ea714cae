"""What is sent: bodies of several sizes in three forms, over few and many connections."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from scheduler import wire

VARIANTS = 16
"""Unlike requests of a case: pictures are never of one length."""
BODIES_KB = (1, 24, 200)
FORMS = ("binary", "json", "classify")
CONNECTIONS = (1, 64, 1000)
BACKENDS = ("edge", "both")


@dataclass(frozen=True, slots=True)
class Case:
    """One load."""

    body_kb: int = 24
    form: str = "binary"
    connections: int = 64
    backends: str = "edge"
    """edge, or both: edge and functions."""

    @property
    def name(self) -> str:
        """Its name, as `--case` takes it."""
        return f"{self.body_kb}kb-{self.form}-{self.connections}-{self.backends}"

    @classmethod
    def of(cls, name: str) -> Case:
        """Returns the case of a name; ValueError where it is none.

        >>> Case.of("24kb-binary-64-edge").connections
        64
        """
        body, form, connections, backends = name.split("-")
        if form not in FORMS or backends not in BACKENDS or not body.endswith("kb"):
            raise ValueError(f"{name!r} is no case; one is 24kb-binary-64-edge")
        return cls(int(body.removesuffix("kb")), form, int(connections), backends)


USUAL = tuple(
    map(
        Case.of,
        (
            "1kb-binary-64-edge",
            "24kb-binary-64-edge",
            "200kb-binary-64-edge",
            "24kb-json-64-edge",
            "24kb-classify-64-edge",
            "24kb-binary-1-edge",
            "24kb-binary-1000-edge",
            "24kb-binary-64-both",
        ),
    )
)
ALL = tuple(
    Case(body_kb, form, connections, backends)
    for backends in BACKENDS
    for connections in CONNECTIONS
    for form in FORMS
    for body_kb in BODIES_KB
)


def requests(case: Case, seed: int = 1) -> Sequence[bytes]:
    """Returns the requests of a case as they go over the wire, which take turns."""
    return [_request(case.form, picture) for picture in pictures(case, seed)]


def pictures(case: Case, seed: int = 1) -> Sequence[bytes]:
    """Returns what is sent in the requests of a case, without their form."""
    generator = random.Random(seed)
    sizes = [round(case.body_kb * 1024 * (0.95 + 0.1 * index / VARIANTS)) for index in range(VARIANTS)]
    return [generator.randbytes(size) for size in sizes]


def _request(form: str, picture: bytes) -> bytes:
    if form == "classify":
        return post("/v1/classify/digits", picture, {"Content-Type": "image/png"})
    if form == "json":
        text = base64.b64encode(picture).decode()
        image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
        return post("/v2/models/digits/infer", orjson.dumps({"inputs": [image]}), {"Content-Type": "application/json"})
    tensor = wire.Tensor.from_elements("image", [picture])
    encoded = wire.encode_request(wire.InferRequest("bench", (tensor,), binary_by_default=True))
    return post("/v2/models/digits/infer", encoded.body, encoded.headers)


def post(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Returns a request as it goes over the wire."""
    said = {
        "Host": "127.0.0.1:8600",
        **headers,
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": "bench",
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
