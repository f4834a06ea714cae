"""What Triton answers, in the JSON of its protocol documents and its errors' words, with a model `sums` of 8 at most.

`sums` adds the four numbers of each row. Requests are read by hand here, so that the stub shares no code with ours.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.stub_oip_server import ServerThread

EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
SERVER = {"name": "triton", "version": "2.58.0", "extensions": EXTENSIONS}
METADATA = {
    "name": "sums",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "sum", "datatype": "FP32", "shape": [-1, 1]}],
}
CONFIG: Mapping[str, Any] = {
    "name": "sums",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "runtime": "",
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 8,
    "input": [
        {
            "name": "x",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NONE",
            "dims": [4],
            "is_shape_tensor": False,
            "allow_ragged_batch": False,
            "optional": False,
            "is_non_linear_format_io": False,
        }
    ],
    "output": [
        {
            "name": "sum",
            "data_type": "TYPE_FP32",
            "dims": [1],
            "label_filename": "",
            "is_shape_tensor": False,
            "is_non_linear_format_io": False,
        }
    ],
    "batch_input": [],
    "batch_output": [],
    "optimization": {
        "priority": "PRIORITY_DEFAULT",
        "input_pinned_memory": {"enable": True},
        "output_pinned_memory": {"enable": True},
        "gather_kernel_buffer_threshold": 0,
        "eager_batching": False,
    },
    "dynamic_batching": {
        "preferred_batch_size": [4, 8],
        "max_queue_delay_microseconds": 100,
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority_level": 0,
        "priority_queue_policy": {},
    },
    "instance_group": [
        {
            "name": "sums",
            "kind": "KIND_CPU",
            "count": 1,
            "gpus": [],
            "secondary_devices": [],
            "profile": [],
            "passive": False,
            "host_policy": "",
        }
    ],
    "default_model_filename": "model.onnx",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {},
    "model_warmup": [],
}


@dataclass
class TritonStub:
    """Serves `sums`, and keeps which batches came."""

    most: int = 8
    says_config: bool = True
    """False: model_configuration is switched off, as behind some gateways."""
    takes_binary: bool = True
    """False: it falls over at binary tensors, as MLServer does."""
    answered: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    binary: list[bool] = field(default_factory=list)

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it is closed."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, content, json_length = self.answer(head[0].split()[1], headers, body)
                lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Bad Request'}"]
                kind = "application/octet-stream" if json_length else "application/json"
                lines += [f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
                lines += [f"Inference-Header-Content-Length: {json_length}"] if json_length else []
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, int | None]:
        """Returns status, body and the length of its JSON where tensors follow."""
        if path in ("/v2/health/ready", "/v2/models/sums/ready"):
            return 200, b"", None
        if path.endswith("/infer"):
            return self.infer(headers, body)
        documents: dict[str, object] = {"/v2": SERVER, "/v2/models/sums": METADATA}
        if self.says_config:
            documents["/v2/models/sums/config"] = {**CONFIG, "max_batch_size": self.most}
        if path in documents:
            return 200, json.dumps(documents[path], separators=(",", ":")).encode(), None
        name = path.split("/")[3] if path.count("/") > 2 else path
        return self.error(400, f"Request for unknown model: '{name}' is not found")

    def infer(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, int | None]:
        """Adds the numbers of each row."""
        length = int(headers.get("inference-header-content-length", len(body)))
        asked = json.loads(body[:length])
        [tensor] = asked["inputs"]
        items, identity = tensor["shape"][0], asked.get("id") or "<id_unknown>"
        binary = "binary_data_size" in tensor.get("parameters", {})
        self.binary.append(binary)
        if binary and not self.takes_binary:
            return 500, b"Internal Server Error", None
        if tensor["shape"][1:] != [4]:
            shape = ",".join(map(str, tensor["shape"]))
            return self.error(
                400,
                f"[request id: {identity}] unexpected shape for input 'x' for model 'sums'. Expected [-1,4], got"
                f" [{shape}]. NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to"
                " be prepended to each input shape. If you want to specify the full shape including the batch dim in"
                " your input dims config, try setting max_batch_size to zero. See the model configuration docs for more"
                " info on max_batch_size.",
            )
        if items > self.most:
            self.refused.append(items)
            return self.error(
                400, f"[request id: {identity}] inference request batch-size must be <= {self.most} for 'sums'"
            )
        self.answered.append(items)
        numbers = struct.unpack(f"<{4 * items}f", body[length:]) if binary else tensor["data"]
        sums = [sum(numbers[4 * row : 4 * row + 4]) for row in range(items)]
        output: dict[str, object] = {"name": "sum", "datatype": "FP32", "shape": [items, 1]}
        raw = struct.pack(f"<{items}f", *sums) if asked.get("parameters", {}).get("binary_data_output") else b""
        if raw:
            output["parameters"] = {"binary_data_size": len(raw)}
        else:
            output["data"] = sums
        answer: dict[str, object] = {"model_name": "sums", "model_version": "1", "outputs": [output]}
        if asked.get("id"):
            answer = {"id": asked["id"], **answer}
        text = json.dumps(answer, separators=(",", ":")).encode()
        return 200, text + raw, len(text) if raw else None

    @staticmethod
    def error(status: int, sentence: str) -> tuple[int, bytes, int | None]:
        """Returns an error in the protocol's form."""
        return status, json.dumps({"error": sentence}, separators=(",", ":")).encode(), None


class TritonServer(ServerThread):
    """A TritonStub that listens."""

    def __init__(self, stub: TritonStub) -> None:
        """Stores it."""
        self.stub = stub
        super().__init__(stub.serve_connection)

    def __enter__(self) -> TritonServer:
        """Starts it."""
        super().__enter__()
        return self
