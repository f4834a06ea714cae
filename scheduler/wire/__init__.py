"""Open Inference Protocol v2 bodies to values and back, for every host; imports no other package of the project.

A body is a JSON object. The raw bytes of its binary tensors may follow, in the order in which the object names the
tensors; the HTTP header `Inference-Header-Content-Length` then gives the length of the object.

References:
    Open Inference Protocol, https://github.com/kserve/open-inference-protocol (specification/protocol).
    Binary tensor and classification extensions, https://github.com/triton-inference-server/server (docs/protocol).
"""

from scheduler.wire.body import (
    encode_request,
    encode_response,
    json_length_of,
    parse_request,
    parse_response,
    request_of_parts,
    requested_outputs,
)
from scheduler.wire.error import WireError
from scheduler.wire.frame import FRAME_BYTES, pack_frame, unpack_frame
from scheduler.wire.item_crc import ITEM_CRC32, echoed, item_crc32, mixed_up
from scheduler.wire.item_errors import ITEM_ERROR, item_errors
from scheduler.wire.ragged import ROWS_SUFFIX, check_rows, part_outputs, row_counts, split_ragged
from scheduler.wire.tensor import DATATYPES, Tensor, base64_elements, byte_edges, concat, split
from scheduler.wire.trace_context import PARENT_HEADER, STATE_HEADER, TraceContext, trace_of
from scheduler.wire.values import (
    JSON_LENGTH_HEADER,
    Encoded,
    EncodedParts,
    InferRequest,
    InferResponse,
    OutputRequest,
)

__all__ = [
    "trace_of",
    "TraceContext",
    "STATE_HEADER",
    "PARENT_HEADER",
    "DATATYPES",
    "FRAME_BYTES",
    "ITEM_CRC32",
    "ITEM_ERROR",
    "JSON_LENGTH_HEADER",
    "ROWS_SUFFIX",
    "Encoded",
    "EncodedParts",
    "InferRequest",
    "InferResponse",
    "OutputRequest",
    "Tensor",
    "WireError",
    "base64_elements",
    "byte_edges",
    "check_rows",
    "concat",
    "echoed",
    "encode_request",
    "encode_response",
    "item_crc32",
    "item_errors",
    "json_length_of",
    "mixed_up",
    "pack_frame",
    "part_outputs",
    "parse_request",
    "parse_response",
    "request_of_parts",
    "requested_outputs",
    "row_counts",
    "split",
    "split_ragged",
    "unpack_frame",
]
