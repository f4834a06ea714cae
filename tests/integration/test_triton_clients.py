"""Triton's own HTTP clients, the one that waits and the one of asyncio, ask a real daemon for everything they know."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from support.daemon_process import Running, daemon_process, stub_edge_process
from tritonclient.utils import InferenceServerException

from models import catalogue
from scripts.support.stub_edge import expected_row

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
[edge]
url = "{edge}"
[[model]]
name = "digits"
max_items = 16
edge_profile = "orin-resnet50"
priority_levels = 3
default_priority = 2
[[model.class]]
slo_s = 20.0
"""
PICTURE = bytes(range(256)) * 8
LABELS = catalogue.shipped("digits").labels


class Asking:
    """One of the two clients: every call by its name, with the answer or the exception of the library."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address

    def __call__(self, call: str, *args: Any, **options: Any) -> Any:
        if self.kind == "sync":
            with triton.InferenceServerClient(self.address, network_timeout=60) as client:
                return getattr(client, call)(*args, **options)
        return asyncio.run(self._ask(call, *args, **options))

    def infer_many(self, inputs: list[list[triton.InferInput]]) -> list[triton.InferResult]:
        """All requests at once, in order."""
        if self.kind == "sync":
            with triton.InferenceServerClient(self.address, concurrency=len(inputs), network_timeout=60) as client:
                sent = [client.async_infer("digits", one, request_id=str(at)) for at, one in enumerate(inputs)]
                return [one.get_result() for one in sent]
        return asyncio.run(self._infer_many(inputs))

    async def _ask(self, call: str, *args: Any, **options: Any) -> Any:
        async with triton_aio.InferenceServerClient(self.address) as client:
            return await getattr(client, call)(*args, **options)

    async def _infer_many(self, inputs: list[list[triton.InferInput]]) -> list[triton.InferResult]:
        async with triton_aio.InferenceServerClient(self.address, conn_limit=len(inputs)) as client:
            calls = [client.infer("digits", one, request_id=str(at)) for at, one in enumerate(inputs)]
            return list(await asyncio.gather(*calls))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("triton")
    with stub_edge_process() as edge:
        config = folder / "edgeburst.toml"
        config.write_text(CONFIG.format(edge=edge.url))
        with daemon_process(config) as running:
            yield running


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, daemon: Running) -> Asking:
    return Asking(request.param, f"127.0.0.1:{daemon.port}")


def picture(content: bytes = PICTURE, *, binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("image", [1], "BYTES")
    element = content if binary else base64.b64encode(content)
    tensor.set_data_from_numpy(np.array([element], dtype=np.object_), binary_data=binary)
    return [tensor]


def of_order(row: np.ndarray, count: int) -> list[int]:
    return [int(index) for index in (-row).argsort(kind="stable")[:count]]


def test_health_of_server_and_model(ask: Asking) -> None:
    assert ask("is_server_live")
    assert ask("is_server_ready")
    assert ask("is_model_ready", "digits")
    assert ask("is_model_ready", "digits", "1")
    assert not ask("is_model_ready", "dogs")


def test_metadata_of_server_and_model(ask: Asking) -> None:
    server = ask("get_server_metadata")
    assert server["name"] == "edgeburst"
    assert {"binary_tensor_data", "classification", "model_configuration", "statistics"} <= set(server["extensions"])
    for version in ("", "1"):
        model = ask("get_model_metadata", "digits", version)
        assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert model["versions"] == ["1"]


def test_the_configuration_says_how_large_a_batch_may_be(ask: Asking) -> None:
    for version in ("", "1"):
        config = ask("get_model_config", "digits", version)
        assert (config["name"], config["max_batch_size"]) == ("digits", 16)
        assert [entry["data_type"] for entry in config["input"]] == ["TYPE_STRING"]
        assert config["output"][0] == config["output"][0] | {"data_type": "TYPE_FP32", "dims": [10]}
        batching = config["dynamic_batching"]
        assert all(1 <= size <= 16 for size in batching["preferred_batch_size"])
        assert batching["preferred_batch_size"], "the plan aims at some batch"
        assert (batching["priority_levels"], batching["default_priority_level"]) == (3, 2)
        assert batching["default_queue_policy"]["default_timeout_microseconds"] == 20_000_000


def test_statistics_of_one_model_and_of_all_count_what_was_asked(ask: Asking) -> None:
    [before] = ask("get_inference_statistics", "digits")["model_stats"]
    ask.infer_many([picture(bytes([at]) * 50) for at in range(8)])
    with pytest.raises(InferenceServerException):
        ask("infer", "digits", picture(), timeout=1)
    for one in (("digits",), ("digits", "1"), ()):
        [after] = ask("get_inference_statistics", *one)["model_stats"]
        assert (after["name"], after["version"]) == ("digits", "1")
    assert after["inference_count"] - before["inference_count"] == 8
    assert 1 <= after["execution_count"] - before["execution_count"] <= 8
    grown = {
        name: (
            duration["count"] - before["inference_stats"][name]["count"],
            duration["ns"] - before["inference_stats"][name]["ns"],
        )
        for name, duration in after["inference_stats"].items()
    }
    assert grown["success"][0] == grown["queue"][0] == grown["compute_infer"][0] == 8
    assert grown["fail"][0] == 1
    parts = sum(grown[name][1] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert parts == pytest.approx(grown["success"][1], abs=100)
    by_size = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in after["batch_stats"]}
    assert sum(by_size.values()) == after["execution_count"]
    assert sum(size * count for size, count in by_size.items()) >= after["inference_count"]
    assert after["last_inference"] > 1.6e12  # in milliseconds, after the year 2020


def test_the_repository_lists_the_models_that_are_ready(ask: Asking) -> None:
    assert ask("get_model_repository_index") == [
        {"name": "digits", "version": "1", "state": "READY", "reason": ""},
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_inference_with_tensors_in_binary_and_in_json(ask: Asking, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    result = ask("infer", "digits", picture(binary=binary), outputs=wanted, model_version="1", request_id="r-7")
    np.testing.assert_allclose(result.as_numpy("probabilities")[0], expected_row(PICTURE), rtol=1e-6)
    assert result.get_response()["id"] == "r-7"


def test_64_at_once_get_each_its_own_answer(ask: Asking) -> None:
    pictures = [bytes([at]) * (20 + at) for at in range(64)]
    results = ask.infer_many([picture(content) for content in pictures])
    for at, (content, result) in enumerate(zip(pictures, results, strict=True)):
        assert result.get_response()["id"] == str(at)
        np.testing.assert_array_equal(result.as_numpy("probabilities")[0], expected_row(content))


def test_outputs_come_mixed_as_asked(ask: Asking) -> None:
    wanted = [
        triton.InferRequestedOutput("item_error", binary_data=False),
        triton.InferRequestedOutput("probabilities", binary_data=True),
    ]
    result = ask("infer", "digits", picture(), outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("probabilities")[0], expected_row(PICTURE))
    assert [entry["name"] for entry in result.get_response()["outputs"]] == ["item_error", "probabilities"]
    assert "data" in result.get_output("item_error")
    assert "data" not in result.get_output("probabilities")


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_value_index_and_label(ask: Asking, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
    found = ask("infer", "digits", picture(), outputs=wanted).as_numpy("probabilities")
    row = expected_row(PICTURE)
    texts = [element.decode() if isinstance(element, bytes) else element for element in found.reshape(-1)]
    assert texts == [f"{row[index]:f}:{index}:{LABELS[index]}" for index in of_order(row, 3)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_responses_may_be_packed(ask: Asking, algorithm: str) -> None:
    pictures = [bytes([at]) * 100 for at in range(16)]
    tensor = triton.InferInput("image", [16], "BYTES")
    tensor.set_data_from_numpy(np.array(pictures, dtype=np.object_))
    for binary in (True, False):
        result = ask(
            "infer",
            "digits",
            [tensor],
            outputs=[triton.InferRequestedOutput("probabilities", binary_data=binary)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        rows = np.stack([expected_row(content) for content in pictures])
        np.testing.assert_allclose(result.as_numpy("probabilities"), rows, rtol=1e-6)


def test_settings_of_a_request_are_taken_and_unknown_parameters_do_no_harm(ask: Asking) -> None:
    options = {"priority": 1, "parameters": {"my_own": 42}, "request_id": "mine"}
    for timeout in (0, 15_000_000):
        result = ask("infer", "digits", picture(), timeout=timeout, **options)
        assert result.get_response()["id"] == "mine"
    with pytest.raises(InferenceServerException, match="ask for at most 3600 s"):
        ask("infer", "digits", picture(), timeout=10**13)


def test_a_raw_request_is_the_picture_alone_and_answered_in_binary(daemon: Running) -> None:
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    url = f"{daemon.url}/v2/models/digits/infer"
    for packed in (False, True):
        body = gzip.compress(PICTURE) if packed else PICTURE
        extra = {"Content-Encoding": "gzip"} if packed else {}
        answer = requests.post(url, data=body, headers=headers | extra, timeout=60)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["Inference-Header-Content-Length"])
        result = triton.InferenceServerClient.parse_response_body(answer.content, header_length=length)
        np.testing.assert_array_equal(result.as_numpy("probabilities")[0], expected_row(PICTURE))


@pytest.mark.parametrize(
    ("call", "arguments", "sentence"),
    [
        ("load_model", ("digits",), "models are not loaded or unloaded by calls"),
        ("unload_model", ("digits",), "models are not loaded or unloaded by calls"),
        ("get_trace_settings", (), "there are no trace settings"),
        ("get_trace_settings", ("digits",), "there are no trace settings"),
        ("update_trace_settings", ("digits", {"trace_rate": "1"}), "there are no trace settings"),
        ("get_log_settings", (), "log settings cannot be read or changed"),
        ("update_log_settings", ({"log_info": True},), "log settings cannot be read or changed"),
        ("get_system_shared_memory_status", (), "shared memory is not supported"),
        ("get_system_shared_memory_status", ("mine",), "shared memory is not supported"),
        ("register_system_shared_memory", ("mine", "/mine", 64), "shared memory is not supported"),
        ("unregister_system_shared_memory", (), "shared memory is not supported"),
        ("unregister_system_shared_memory", ("mine",), "shared memory is not supported"),
        ("get_cuda_shared_memory_status", (), "shared memory is not supported"),
        ("register_cuda_shared_memory", ("mine", b"handle", 0, 64), "shared memory is not supported"),
        ("unregister_cuda_shared_memory", ("mine",), "shared memory is not supported"),
    ],
)
def test_what_is_not_supported_is_one_sentence(
    ask: Asking, call: str, arguments: tuple[Any, ...], sentence: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(call, *arguments)
    assert caught.value.status() == "501"
    assert sentence in caught.value.message()
