"""Every call of Triton's gRPC client against a daemon, as a program of its own: `python -m support.triton_grpc_checks`.

Its arguments are the kind of client, `sync` or `aio`, and the address. It prints one JSON object: for each check what
went wrong, empty where nothing did. The daemon serves `digits` before a stub edge (`expected_row`).
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from models import catalogue
from scripts.support.stub_edge import expected_row

PICTURE = bytes(range(256)) * 80
LABELS = catalogue.shipped("digits").labels
AT_ONCE = 64

Check = Callable[["Asking"], None]
CHECKS: dict[str, Check] = {}


def check(work: Check) -> Check:
    CHECKS[work.__name__] = work
    return work


class Asking:
    """One of the two clients: every call by its name."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address

    def __call__(self, call: str, *args: Any, **options: Any) -> Any:
        if self.kind == "sync":
            with triton.InferenceServerClient(self.address) as client:
                return getattr(client, call)(*args, **options)
        return asyncio.run(self._ask(call, *args, **options))

    async def _ask(self, call: str, *args: Any, **options: Any) -> Any:
        async with triton_aio.InferenceServerClient(self.address) as client:
            return await getattr(client, call)(*args, **options)

    def infer(self, *elements: bytes, **options: Any) -> Any:
        return self("infer", "digits", [image(*elements)], **options)

    def infer_many(self, pictures: list[bytes]) -> list[Any]:
        """All requests at once, in order."""
        if self.kind == "aio":
            return asyncio.run(self._infer_many(pictures))
        answers: queue.Queue[tuple[str, Any]] = queue.Queue()

        def told(result: Any, error: Any) -> None:
            answers.put((result.get_response().id, result) if error is None else ("", error))

        with triton.InferenceServerClient(self.address) as client:
            for at, picture in enumerate(pictures):
                client.async_infer("digits", [image(picture)], told, request_id=str(at))
            found = dict(answers.get(timeout=60) for _ in pictures)
        return [found[str(at)] for at in range(len(pictures))]

    async def _infer_many(self, pictures: list[bytes]) -> list[Any]:
        async with triton_aio.InferenceServerClient(self.address) as client:
            calls = [client.infer("digits", [image(one)], request_id=str(at)) for at, one in enumerate(pictures)]
            return list(await asyncio.gather(*calls))

    def stream(self, requests: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
        """The results and errors of one stream, in the order in which they came."""
        if self.kind == "aio":
            return asyncio.run(self._stream(requests))
        found: list[tuple[Any, Any]] = []
        with triton.InferenceServerClient(self.address) as client:
            client.start_stream(lambda result, error: found.append((result, error)), stream_timeout=60)
            for request in requests:
                client.async_stream_infer(**request)
            client.stop_stream()
        return found

    async def _stream(self, requests: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
        async def sent() -> AsyncIterator[dict[str, Any]]:
            for request in requests:
                yield request

        async with triton_aio.InferenceServerClient(self.address) as client:
            return [pair async for pair in client.stream_infer(sent(), stream_timeout=60)]


def image(*elements: bytes) -> Any:
    tensor = triton.InferInput("image", [len(elements)], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, dtype=np.object_))
    return tensor


def rows(*elements: bytes) -> Any:
    return np.stack([expected_row(element) for element in elements])


def refused(work: Callable[[], Any], code: str, sentence: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        work()
    assert caught.value.status() == f"StatusCode.{code}", caught.value
    assert sentence in caught.value.message(), caught.value


@check
def server_and_model_are_live_and_ready(ask: Asking) -> None:
    assert ask("is_server_live") is True
    assert ask("is_server_ready") is True
    assert ask("is_model_ready", "digits") is True
    assert ask("is_model_ready", "digits", "1") is True
    refused(lambda: ask("is_model_ready", "dogs"), "NOT_FOUND", "model 'dogs' is not served here")


@check
def metadata(ask: Asking) -> None:
    server = ask("get_server_metadata", as_json=True)
    assert server["name"] == "edgeburst"
    assert {"statistics", "model_configuration", "classification"} <= set(server["extensions"])
    model = ask("get_model_metadata", "digits", as_json=True)
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1"]}]
    assert model["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": ["-1", "10"]}
    refused(lambda: ask("get_model_metadata", "dogs"), "NOT_FOUND", "model 'dogs'")


@check
def configuration(ask: Asking) -> None:
    config = ask("get_model_config", "digits").config
    assert (config.name, config.max_batch_size, config.platform) == ("digits", 16, "edgeburst")
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.priority_levels == 3
    assert [(entry.name, entry.data_type) for entry in config.input] == [("image", 13)]
    assert [entry.name for entry in config.output] == ["probabilities", "item_error"]
    refused(lambda: ask("get_model_config", "digits", "7"), "NOT_FOUND", "version '7'")


@check
def statistics(ask: Asking) -> None:
    def answered(*args: str) -> int:
        [stats] = ask("get_inference_statistics", *args).model_stats
        assert (stats.name, stats.version) == ("digits", "1")
        return int(stats.inference_stats.success.count)

    before = answered("digits")
    ask.infer(PICTURE, PICTURE)
    assert before < answered("digits") <= answered()  # another client may ask at the same time
    [stats] = ask("get_inference_statistics").model_stats
    assert any(batch.batch_size == 2 for batch in stats.batch_stats)
    assert stats.last_inference > 1_700_000_000_000
    refused(lambda: ask("get_inference_statistics", "dogs"), "NOT_FOUND", "model 'dogs'")


@check
def index(ask: Asking) -> None:
    assert ask("get_model_repository_index", as_json=True) == {
        "models": [{"name": "digits", "version": "1", "state": "READY"}]
    }


@check
def inference(ask: Asking) -> None:
    result = ask.infer(PICTURE, PICTURE[:100], request_id="r-7")
    np.testing.assert_array_equal(result.as_numpy("probabilities"), rows(PICTURE, PICTURE[:100]))
    assert result.as_numpy("item_error").tolist() == [b"", b""]
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("digits", "1", "r-7")
    assert response.parameters["backend"].string_param == "edge"
    # The other client's requests may be in the same batch.
    assert response.parameters["batch_items"].int64_param >= 2
    assert response.parameters["wait_s"].double_param >= 0
    np.testing.assert_array_equal(ask.infer(PICTURE, model_version="1").as_numpy("probabilities"), rows(PICTURE))


@check
def typed_data(ask: Asking) -> None:
    """What `contents` carry: Triton's own client never sends them, others of the protocol do."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    message = service_pb2.ModelInferRequest(model_name="digits")
    entry = message.inputs.add(name="image", datatype="BYTES", shape=[1])
    entry.contents.bytes_contents.append(PICTURE)
    import grpc

    with grpc.insecure_channel(ask.address) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60)
    assert not response.raw_output_contents
    np.testing.assert_array_equal(np.array(response.outputs[0].contents.fp32_contents, np.float32), rows(PICTURE)[0])


@check
def sixty_four_at_once(ask: Asking) -> None:
    pictures = [number.to_bytes(2, "big") * (500 + number) for number in range(AT_ONCE)]
    for at, result in enumerate(ask.infer_many(pictures)):
        assert result.get_response().id == str(at)
        np.testing.assert_array_equal(result.as_numpy("probabilities"), rows(pictures[at]))


@check
def streams(ask: Asking) -> None:
    pictures = [PICTURE[: 100 + size] for size in range(40)]
    requests = [
        {"model_name": "digits", "inputs": [image(picture)], "request_id": str(at)}
        for at, picture in enumerate(pictures)
    ]
    requests[7]["enable_empty_final_response"] = True
    for at, (result, error) in enumerate(ask.stream(requests)):
        assert error is None, error
        assert result.get_response().id == str(at)
        np.testing.assert_array_equal(result.as_numpy("probabilities"), rows(pictures[at]))


@check
def an_error_in_a_stream(ask: Asking) -> None:
    requests = [{"model_name": name, "inputs": [image(PICTURE)]} for name in ("digits", "dogs", "digits")]
    found = ask.stream(requests)
    assert "model 'dogs' is not served here" in found[1][1].message()
    assert found[0][1] is None


@check
def chosen_outputs(ask: Asking) -> None:
    wanted = [triton.InferRequestedOutput("item_error"), triton.InferRequestedOutput("probabilities")]
    result = ask.infer(PICTURE, outputs=wanted)
    assert [entry.name for entry in result.get_response().outputs] == ["item_error", "probabilities"]
    np.testing.assert_array_equal(result.as_numpy("probabilities"), rows(PICTURE))
    one = ask.infer(PICTURE, outputs=wanted[1:])
    assert [entry.name for entry in one.get_response().outputs] == ["probabilities"]
    unknown = [triton.InferRequestedOutput("dog")]
    refused(lambda: ask.infer(PICTURE, outputs=unknown), "INVALID_ARGUMENT", "output 'dog' is unknown")


@check
def classification(ask: Asking) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    found = ask.infer(PICTURE, b"y", outputs=wanted).as_numpy("probabilities")
    assert found.shape == (2, 3)
    for texts, row in zip(found, rows(PICTURE, b"y"), strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        assert [text.decode() for text in texts] == [f"{row[at]:f}:{at}:{LABELS[at]}" for at in best]


@check
def compression(ask: Asking) -> None:
    for algorithm in ("gzip", "deflate", None):
        result = ask.infer(PICTURE, compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("probabilities"), rows(PICTURE))


@check
def timeout_priority_and_parameters(ask: Asking) -> None:
    ask.infer(PICTURE, timeout=15_000_000, priority=1, parameters={"class": "other", "tenant": "lab", "n": 1.5})
    ask.infer(PICTURE, timeout=0, headers={"x-edgeburst-class": "other"})
    refused(lambda: ask.infer(PICTURE, timeout=-5), "INVALID_ARGUMENT", "'timeout' must be a whole number")
    refused(lambda: ask.infer(PICTURE, priority=4), "INVALID_ARGUMENT", "'priority' must be a whole number from 1")
    refused(
        lambda: ask.infer(PICTURE, parameters={"class": "gold"}),
        "INVALID_ARGUMENT",
        "class 'gold' is unknown; model digits has default, other",
    )
    refused(lambda: ask.infer(PICTURE, timeout=1), "DEADLINE_EXCEEDED", "deadline")
    refused(lambda: ask.infer(PICTURE, client_timeout=1e-5), "DEADLINE_EXCEEDED", "")


@check
def bad_requests(ask: Asking) -> None:
    refused(lambda: ask("infer", "dogs", [image(PICTURE)]), "NOT_FOUND", "model 'dogs' is not served here")
    refused(lambda: ask.infer(*[b"x"] * 17), "INVALID_ARGUMENT", "17 items, but model digits takes at most 16")
    wrong = triton.InferInput("image", [1], "FP32")
    wrong.set_data_from_numpy(np.zeros(1, np.float32))
    refused(lambda: ask("infer", "digits", [wrong]), "INVALID_ARGUMENT", "input 'image' must be BYTES")
    refused(lambda: ask.infer(bytes(2_500_000)), "RESOURCE_EXHAUSTED", "over the limit of 2000000 bytes")


@check
def what_is_not_supported(ask: Asking) -> None:
    refused(lambda: ask("load_model", "digits"), "UNIMPLEMENTED", "models are not loaded or unloaded by calls")
    refused(lambda: ask("unload_model", "digits"), "UNIMPLEMENTED", "models are not loaded or unloaded by calls")
    refused(lambda: ask("get_trace_settings"), "UNIMPLEMENTED", "there are no trace settings")
    refused(lambda: ask("update_trace_settings", settings={}), "UNIMPLEMENTED", "there are no trace settings")
    refused(lambda: ask("get_log_settings"), "UNIMPLEMENTED", "log settings cannot be read")
    refused(lambda: ask("update_log_settings", {"log_verbose_level": 1}), "UNIMPLEMENTED", "log settings")
    for kind in ("system", "cuda"):
        refused(partial(ask, f"get_{kind}_shared_memory_status"), "UNIMPLEMENTED", "shared memory")
        refused(partial(ask, f"unregister_{kind}_shared_memory"), "UNIMPLEMENTED", "shared memory")
    refused(lambda: ask("register_system_shared_memory", "region", "/key", 64), "UNIMPLEMENTED", "shared memory is not")
    shared = triton.InferInput("image", [1], "BYTES")
    shared.set_shared_memory("region", 64)
    refused(lambda: ask("infer", "digits", [shared]), "INVALID_ARGUMENT", "shared memory, which is not supported")


def main(kind: str, address: str) -> None:
    found = {}
    for name, work in CHECKS.items():
        try:
            work(Asking(kind, address))
        except Exception:  # noqa: BLE001 - the test shows it
            found[name] = traceback.format_exc()
        else:
            found[name] = ""
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
