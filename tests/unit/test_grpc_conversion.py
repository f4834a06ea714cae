"""Inference messages of gRPC to values and back, against the messages and classes of Triton's own client."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from support.wire_strategies import NAMES, PARAMETERS, distinct, tensors
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from scheduler.daemon.grpc import framing
from scheduler.daemon.grpc.conversion import (
    FINAL,
    ModelRequest,
    parse_request,
    response_message,
    streamed_error,
    streamed_message,
)
from scheduler.wire import DATATYPES, InferRequest, InferResponse, OutputRequest, Tensor, WireError

CONTENTS = {
    "BOOL": "bool_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def triton_input(tensor: Tensor) -> triton.InferInput:
    given_input = triton.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
    given_input.set_data_from_numpy(tensor.to_numpy())
    return given_input


def typed_message(*inputs: Tensor, **fields: Any) -> Any:
    message = service_pb2.ModelInferRequest(**fields)
    for tensor in inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if tensor.datatype == "BYTES":
            entry.contents.bytes_contents.extend(tensor.elements())
        else:
            getattr(entry.contents, CONTENTS[tensor.datatype]).extend(tensor.to_numpy().ravel().tolist())
    return message


def asked(*names: str, raw: bool = True) -> ModelRequest:
    return ModelRequest("m", "", InferRequest("", (), tuple(OutputRequest(name, True) for name in names)), raw)


def same(left: Tensor, right: Tensor) -> None:
    assert (left.name, left.datatype, left.shape, bytes(left.raw)) == (
        right.name,
        right.datatype,
        right.shape,
        bytes(right.raw),
    )


class TestRequests:
    @given(
        inputs=distinct(json_able=False, min_size=1),
        request_id=st.text(max_size=8),
        outputs=st.lists(st.tuples(NAMES, st.integers(0, 5)), max_size=3, unique_by=lambda output: output[0]),
        parameters=PARAMETERS,
    )
    def test_what_tritons_client_writes_is_read_as_it_was_meant(
        self, inputs: Any, request_id: str, outputs: Any, parameters: dict[str, object]
    ) -> None:
        free = {f"x{key}": value for key, value in parameters.items()}
        written = _get_inference_request(
            model_name="net",
            model_version="1",
            inputs=[triton_input(tensor) for tensor in inputs],
            request_id=request_id,
            outputs=[triton.InferRequestedOutput(name, class_count=count) for name, count in outputs],
            sequence_id=0,
            sequence_start=False,
            sequence_end=False,
            priority=1,
            timeout=250_000,
            parameters=free,
        ).SerializeToString()
        found = parse_request(written)
        assert (found.model, found.version, found.raw) == ("net", "1", True)
        request = found.request
        assert request.id == request_id
        assert request.parameters == {**free, "priority": 1, "timeout": 250_000}
        assert [(output.name, output.class_count) for output in request.outputs] == outputs
        for tensor, sent in zip(request.inputs, inputs, strict=True):
            same(tensor, sent)
            assert not tensor.from_json

    def test_the_data_are_views_of_the_message(self) -> None:
        tensor = Tensor.from_numpy("x", np.arange(1000, dtype=np.float32).reshape(10, 100))
        message = service_pb2.ModelInferRequest(model_name="net", raw_input_contents=[bytes(tensor.raw)])
        message.inputs.add(name="x", datatype="FP32", shape=[10, 100])
        written = message.SerializeToString()
        raw = parse_request(written).request.inputs[0].raw
        assert isinstance(raw, memoryview)
        assert raw.obj is written

    @given(tensors(json_able=True).filter(lambda tensor: tensor.datatype != "FP16"))
    def test_typed_contents_are_read_as_the_same_tensor(self, tensor: Tensor) -> None:
        found = parse_request(typed_message(tensor, model_name="net").SerializeToString())
        assert not found.raw
        same(found.request.inputs[0], tensor)

    @pytest.mark.parametrize(
        ("datatype", "field", "values", "sentence"),
        [
            ("INT8", "int_contents", [1, 128], "INT8, but has 'int_contents' that are out of its range"),
            ("UINT16", "uint_contents", [65536, 1], "UINT16, but has 'uint_contents' that are out of its range"),
            ("FP32", "fp64_contents", [1.0, 2.0], "elements belong into 'fp32_contents' or 'raw_input_contents'"),
            ("FP16", "fp32_contents", [1.0, 2.0], "FP16, which has no field in 'contents'"),
            ("FP32", "fp32_contents", [1.0], "has 4 bytes of data, but its shape needs 8"),
            ("BYTES", "bytes_contents", [b"x"], "has 5 bytes of data, too few for the lengths of its elements"),
            ("FP8", "fp32_contents", [1.0, 2.0], "unknown datatype 'FP8'"),
            ("BF16", "fp32_contents", [1.0, 2.0], "BF16, which is not supported"),
        ],
    )
    def test_contents_that_do_not_fit_are_named(
        self, datatype: str, field: str, values: list[Any], sentence: str
    ) -> None:
        message = service_pb2.ModelInferRequest(model_name="net")
        entry = message.inputs.add(name="x", datatype=datatype, shape=[2])
        getattr(entry.contents, field).extend(values)
        with pytest.raises(WireError, match=sentence.replace("(", r"\(")):
            parse_request(message.SerializeToString())

    def test_faults_of_the_form_are_named(self) -> None:
        def refused(message: Any, sentence: str) -> None:
            with pytest.raises(WireError, match=sentence):
                parse_request(message.SerializeToString())

        x = Tensor.from_numpy("x", np.zeros(2, dtype=np.float32))
        both = typed_message(x)
        both.raw_input_contents.append(bytes(x.raw))
        refused(both, "'contents' beside 'raw_input_contents'")
        few = service_pb2.ModelInferRequest(raw_input_contents=[b"1234"])
        for name in ("x", "y"):
            few.inputs.add(name=name, datatype="FP32", shape=[1])
        refused(few, "2 inputs and the data of 1")
        refused(service_pb2.ModelInferRequest(), "'inputs' is empty")
        shared = service_pb2.ModelInferRequest()
        shared.inputs.add(name="x", datatype="FP32", shape=[1]).parameters["shared_memory_region"].string_param = "r"
        refused(shared, "'x' is in shared memory, which is not supported")
        out = typed_message(x)
        out.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
        refused(out, "'y' is requested in shared memory, which is not supported")
        twice = typed_message(x, x)
        refused(twice, "names 'x' twice")

    @given(st.binary(max_size=60))
    def test_whatever_arrives_is_read_or_refused(self, message: bytes) -> None:
        with contextlib.suppress(WireError):
            parse_request(message)


class TestResponses:
    @given(
        outputs=distinct(json_able=False, min_size=1),
        request_id=st.text(max_size=8),
        parameters=PARAMETERS,
        typed=st.booleans(),
    )
    def test_tritons_client_reads_what_was_written(
        self, outputs: tuple[Tensor, ...], request_id: str, parameters: dict[str, object], typed: bool
    ) -> None:
        response = InferResponse("net", outputs, request_id, parameters=parameters)
        message = service_pb2.ModelInferResponse.FromString(response_message(response, asked(raw=not typed)))
        assert (message.model_name, message.model_version, message.id) == ("net", "1", request_id)
        given_back = {
            name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in message.parameters.items()
        }
        assert given_back == parameters
        if typed and all(tensor.datatype != "FP16" for tensor in outputs):
            assert not message.raw_output_contents
            request = typed_message(*outputs)
            assert [entry.contents for entry in message.outputs] == [entry.contents for entry in request.inputs]
            return
        result = triton.InferResult(message)
        for tensor in outputs:
            array = result.as_numpy(tensor.name)
            assert array.shape == tensor.shape
            if tensor.datatype == "BYTES":
                assert array.ravel().tolist() == tensor.elements()
            else:
                assert array.tobytes() == bytes(tensor.raw)

    def test_outputs_come_in_the_order_of_the_request(self) -> None:
        outputs = tuple(Tensor.from_elements(name, [name.encode()]) for name in "abc")
        written = response_message(InferResponse("net", outputs), asked("c", "a"))
        message = service_pb2.ModelInferResponse.FromString(written)
        assert [entry.name for entry in message.outputs] == ["c", "a"]
        assert list(message.raw_output_contents) == [b"\x01\x00\x00\x00c", b"\x01\x00\x00\x00a"]
        with pytest.raises(WireError, match="output 'd' is unknown; the outputs are: 'a', 'b', 'c'"):
            response_message(InferResponse("net", outputs), asked("d"))

    def test_large_numbers_are_unsigned_parameters(self) -> None:
        written = response_message(InferResponse("net", (), parameters={"n": 2**63}), asked())
        assert service_pb2.ModelInferResponse.FromString(written).parameters["n"].uint64_param == 2**63

    @given(distinct(json_able=False, min_size=1))
    def test_a_streamed_response_holds_the_same_one_and_is_the_last(self, outputs: tuple[Tensor, ...]) -> None:
        response = InferResponse("net", outputs, "id")
        streamed = service_pb2.ModelStreamInferResponse.FromString(streamed_message(response, asked()))
        assert streamed.error_message == ""
        inner = streamed.infer_response
        assert inner.parameters[FINAL].bool_param
        del inner.parameters[FINAL]
        assert inner == service_pb2.ModelInferResponse.FromString(response_message(response, asked()))

    def test_a_streamed_error_names_its_request_where_that_is_known(self) -> None:
        known = ModelRequest("net", "", InferRequest("r-7", ()), True)
        message = service_pb2.ModelStreamInferResponse.FromString(streamed_error("no, because", known))
        assert (message.error_message, message.infer_response.id) == ("no, because", "r-7")
        message = service_pb2.ModelStreamInferResponse.FromString(streamed_error("no, because", None))
        assert not message.HasField("infer_response")


class TestFraming:
    @given(
        raws=st.lists(st.binary(max_size=300), max_size=4),
        name=st.text(max_size=200),
        numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    )
    def test_a_message_is_cut_and_joined_without_loss(self, raws: list[bytes], name: str, numbers: list[int]) -> None:
        message = service_pb2.ModelInferRequest(model_name=name, raw_input_contents=raws)
        message.inputs.add(name="x", shape=numbers)
        rest, taken = framing.cut_out(message.SerializeToString(), 7)
        assert [bytes(each) for each in taken] == raws
        del message.raw_input_contents[:]
        assert service_pb2.ModelInferRequest.FromString(rest) == message
        joined = b"".join([rest, *framing.fields_of(7, raws)])
        message.raw_input_contents.extend(raws)
        assert service_pb2.ModelInferRequest.FromString(joined) == message

    @given(st.integers(0, 2**64 - 1))
    def test_a_number_has_protobufs_length(self, number: int) -> None:
        message = service_pb2.StatisticDuration(count=number).SerializeToString()
        assert framing.varint(number) == (message[1:] or b"\x00")

    @pytest.mark.parametrize(
        "broken", [b"\x3a", b"\x3a\x05abc", b"\x0b", b"\x09\x00", b"\x0d\x00", b"\x80" * 11, b"\xff" * 4]
    )
    def test_what_is_cut_off_is_refused(self, broken: bytes) -> None:
        with pytest.raises(WireError, match="not valid protobuf"):
            framing.cut_out(broken, 7)


def test_every_datatype_has_a_field_or_is_fp16() -> None:
    assert set(DATATYPES) - set(CONTENTS) == {"FP16"}
