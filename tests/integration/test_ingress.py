"""The daemon's HTTP face on a real socket, asked by Triton's own client and by what people use."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from support.fake_runner import FakeRunner, digit_of, probabilities
from support.ingress_server import READERS, IngressServer
from tritonclient.utils import InferenceServerException

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.ingress.body_limits import BodyLimits
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.plans import Limits

TOKEN = "correct horse battery staple"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
BODY_LIMIT_BYTES = 300_000
PICTURE = bytes(range(256)) * 96
"""As many bytes as an encoded picture; the fake looks no closer."""

CONFIG = f"""
[daemon]
body_limit_bytes = {BODY_LIMIT_BYTES}
max_timeout_s = 3600
admin_token_env = "TEST_ADMIN_TOKEN"
[edge]
[[model]]
name = "digits"
max_items = 8
edge_profile = "orin-resnet50"
priority_levels = 3
default_priority = 2
[[model.class]]
name = "default"
slo_s = 1.0
[[model.class]]
name = "batch"
slo_s = 30.0
[[model]]
name = "sums"
edge_profile = "orin-resnet50"
inputs = [{{ name = "x", datatype = "FP32", shape = [3] }}, {{ name = "y", datatype = "INT64" }}]
outputs = [{{ name = "z", datatype = "FP32" }}]
[[model]]
name = "level"
edge_profile = "orin-resnet50"
inputs = [{{ name = "x", datatype = "FP32" }}]
outputs = [{{ name = "z", datatype = "FP32" }}]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("config") / "edgeburst.toml"
    path.write_text(CONFIG)
    return load_config(path, {})


@pytest.fixture(scope="module", params=READERS)
def running(config: Config, request: pytest.FixtureRequest) -> Iterator[tuple[IngressServer, FakeRunner]]:
    runner = FakeRunner()
    with IngressServer(runner.parts(), config, {"TEST_ADMIN_TOKEN": TOKEN}, hot=READERS[request.param]) as server:
        yield server, runner


@pytest.fixture
def server(running: tuple[IngressServer, FakeRunner]) -> IngressServer:
    return running[0]


@pytest.fixture
def runner(running: tuple[IngressServer, FakeRunner]) -> Iterator[FakeRunner]:
    fake = running[1]
    fake.calls.clear()
    yield fake
    running[0].assert_accounted()
    fake.refusal, fake.hold, fake.broken, fake.draining, fake.value = None, False, False, False, None


@pytest.fixture
def client(server: IngressServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, concurrency=8) as connected:
        yield connected


def triton_input(elements: list[bytes], *, binary: bool = True) -> triton.InferInput:
    if not binary:
        elements = [base64.b64encode(element) for element in elements]
    tensor = triton.InferInput("image", [len(elements)], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, dtype=np.object_), binary_data=binary)
    return tensor


def infer_json(**changes: Any) -> dict[str, Any]:
    """A JSON request with one picture, and whatever is changed in it."""
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(PICTURE).decode()]}
    return {"inputs": [image]} | changes


def post(server: IngressServer, body: dict[str, Any], model: str = "digits", **headers: str) -> requests.Response:
    return requests.post(f"{server.url}/v2/models/{model}/infer", json=body, headers=headers, timeout=10)


def error_of(response: requests.Response, status: int) -> str:
    """The one sentence of a refusal, after a look at its form."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"].startswith("application/json")
    body = response.json()
    assert list(body) == ["error"]
    sentence = body["error"]
    assert sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return str(sentence)


class TestTritonClient:
    def test_health_and_metadata_are_what_the_protocol_says(self, client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1")
        server_metadata = client.get_server_metadata()
        assert server_metadata["name"] == "edgeburst"
        assert "binary_tensor_data" in server_metadata["extensions"]
        metadata = client.get_model_metadata("digits")
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert metadata["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}

    def test_a_described_model_has_its_own_metadata(self, client: triton.InferenceServerClient) -> None:
        metadata = client.get_model_metadata("sums")
        assert [(entry["name"], entry["shape"]) for entry in metadata["inputs"]] == [("x", [-1, 3]), ("y", [-1])]

    @pytest.mark.parametrize("binary", [True, False])
    def test_both_forms_of_a_request_bring_the_same_bytes_and_answer(
        self, client: triton.InferenceServerClient, runner: FakeRunner, binary: bool
    ) -> None:
        result = client.infer("digits", [triton_input([PICTURE], binary=binary)], request_id="r-7")
        np.testing.assert_array_equal(result.as_numpy("probabilities"), probabilities([PICTURE]))
        assert result.get_response()["id"] == "r-7"
        [call] = runner.calls
        assert call.inputs[0].elements() == [PICTURE]
        assert call.body_bytes == len(PICTURE) + 4
        assert (call.items, call.class_name, call.priority, call.timeout_s) == (1, "default", 2, None)

    @pytest.mark.parametrize("binary", [True, False])
    def test_outputs_come_as_asked(
        self, client: triton.InferenceServerClient, runner: FakeRunner, binary: bool
    ) -> None:
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
        result = client.infer("digits", [triton_input([PICTURE])], outputs=wanted)
        np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities([PICTURE]), rtol=1e-6)
        assert [entry["name"] for entry in result.get_response()["outputs"]] == ["probabilities"]

    def test_the_answer_says_how_it_came_about(self, client: triton.InferenceServerClient, runner: FakeRunner) -> None:
        parameters = client.infer("digits", [triton_input([PICTURE])]).get_response()["parameters"]
        assert parameters.items() >= {"backend": "edge", "batch_items": 4, "attempts": 1, "tier": ""}.items()
        assert "cold_start" not in parameters

    def test_items_of_a_request_stay_together_and_in_order(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        pictures = [bytes([digit]) * (100 + digit) for digit in range(8)]
        result = client.infer("digits", [triton_input(pictures)])
        np.testing.assert_array_equal(result.as_numpy("probabilities"), probabilities(pictures))
        assert runner.calls[0].items == 8

    def test_one_broken_item_of_several_leaves_the_others_answered(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        result = client.infer("digits", [triton_input([PICTURE, b"bad"])])
        assert [bool(error) for error in result.as_numpy("item_error")] == [False, True]

    def test_many_in_flight_each_get_their_own_answer(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        pictures = [number.to_bytes(2, "big") * (50 + number) for number in range(100)]
        pending = [
            client.async_infer("digits", [triton_input([picture])], request_id=str(number))
            for number, picture in enumerate(pictures)
        ]
        for number, (picture, one) in enumerate(zip(pictures, pending, strict=True)):
            result = one.get_result()
            assert result.get_response()["id"] == str(number)
            np.testing.assert_array_equal(result.as_numpy("probabilities"), probabilities([picture]))

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_packed_requests_are_unpacked(
        self, client: triton.InferenceServerClient, runner: FakeRunner, algorithm: str
    ) -> None:
        client.infer(
            "digits",
            [triton_input([PICTURE])],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert runner.calls[0].inputs[0].elements() == [PICTURE]

    def test_timeout_and_priority_reach_the_call(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        client.infer("digits", [triton_input([PICTURE])], timeout=250_000, priority=1)
        assert (runner.calls[0].timeout_s, runner.calls[0].priority) == (0.25, 1)

    def test_class_and_tenant_reach_the_call_by_parameter_or_header(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        client.infer("digits", [triton_input([PICTURE])], parameters={"class": "batch", "tenant": "lab"})
        headers = {"X-Edgeburst-Class": "batch", "X-Edgeburst-Tenant": "lab"}
        client.infer("digits", [triton_input([PICTURE])], headers=headers)
        assert [(call.class_name, call.tenant) for call in runner.calls] == [("batch", "lab")] * 2

    def test_top_classes_are_given_as_triton_gives_them(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
        found = client.infer("digits", [triton_input([PICTURE])], outputs=wanted).as_numpy("probabilities")
        assert found.shape == (1, 2)
        value, index, label = found[0, 0].decode().split(":")
        assert (float(value), int(index), label) == (
            pytest.approx(0.9),
            digit_of(PICTURE),
            str(digit_of(PICTURE)),
        )

    @pytest.mark.parametrize(
        ("kind", "status"),
        [(RefusalKind.QUEUE_FULL, "429"), (RefusalKind.DEADLINE, "503"), (RefusalKind.BACKEND, "503")],
    )
    def test_refusals_reach_the_client_as_its_own_exception(
        self, client: triton.InferenceServerClient, runner: FakeRunner, kind: RefusalKind, status: str
    ) -> None:
        runner.refusal = Refusal(kind, "no, because")
        with pytest.raises(InferenceServerException) as caught:
            client.infer("digits", [triton_input([PICTURE])])
        assert (caught.value.status(), caught.value.message()) == (status, "no, because")

    def test_a_timeout_of_zero_asks_for_none(self, client: triton.InferenceServerClient, runner: FakeRunner) -> None:
        client.infer("digits", [triton_input([PICTURE])], timeout=0)
        assert runner.calls[0].timeout_s is None

    def test_too_many_items_and_unknown_models_are_told(
        self, client: triton.InferenceServerClient, runner: FakeRunner
    ) -> None:
        with pytest.raises(InferenceServerException, match="9 items, but model digits takes at most 8"):
            client.infer("digits", [triton_input([b"x"] * 9)])
        with pytest.raises(
            InferenceServerException, match="model 'dogs' is not served here; ask for one of digits, sums"
        ):
            client.infer("dogs", [triton_input([PICTURE])])
        assert runner.calls == []


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"parameters": {"timeout": -5}}, "'timeout' must be a whole number"),
            ({"parameters": {"timeout": "1"}}, "'timeout' must be a whole number"),
            ({"parameters": {"timeout": True}}, "'timeout' must be a whole number"),
            ({"parameters": {"timeout": 365 * 86400 * 10**6}}, "ask for at most 3600 s"),
            ({"parameters": {"priority": 4}}, "'priority' must be a whole number from 1 (highest) to 3"),
            ({"parameters": {"priority": -1}}, "'priority' must be"),
            ({"parameters": {"priority": "high"}}, "'priority' must be"),
            ({"parameters": {"class": "gold"}}, "class 'gold' is unknown; model digits has default, batch"),
            ({"parameters": {"class": ["default"]}}, "is unknown; model digits has"),
            ({"parameters": {"tenant": 5}}, "the tenant must be a text"),
            ({"parameters": {"tenant": "t" * 65}}, "the tenant must be a text of at most 64"),
            ({"outputs": [{"name": "dog"}]}, "output 'dog' is unknown; model digits has probabilities, item_error"),
            ({"inputs": []}, "'inputs' is empty"),
            (
                {"inputs": [{"name": "picture", "shape": [1], "datatype": "BYTES", "data": ["eA=="]}]},
                "'image' is missing",
            ),
            ({"inputs": [{"name": "image", "shape": [1], "datatype": "FP32", "data": [1]}]}, "must be BYTES"),
            (
                {"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["eA=="]}]},
                "must have the shape [n] for n items, not [1, 1]",
            ),
            (
                {"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["eA=="]}]},
                "does not fill its shape",
            ),
            ({"inputs": [{"name": "image", "shape": [0], "datatype": "BYTES", "data": []}]}, "has no items"),
            (
                {"inputs": [{"name": "image", "shape": [9], "datatype": "BYTES", "data": ["eA=="] * 9}]},
                "9 items, but model digits takes at most 8",
            ),
            ({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["no, text"]}]}, "not base64"),
        ],
    )
    def test_gets_one_sentence_and_never_reaches_the_runner(
        self, server: IngressServer, runner: FakeRunner, changes: dict[str, Any], sentence: str
    ) -> None:
        assert sentence in error_of(post(server, infer_json(**changes)), 400)
        assert runner.calls == []

    @pytest.mark.parametrize("picture", [b"bad: text", b"bad: truncated"])
    def test_a_picture_that_no_backend_can_read_is_a_bad_request(
        self, server: IngressServer, runner: FakeRunner, picture: bytes
    ) -> None:
        text = base64.b64encode(picture).decode()
        image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
        assert "not an image" in error_of(post(server, {"inputs": [image]}), 400)
        response = requests.post(
            f"{server.url}/v1/classify/digits", data=picture, headers={"Content-Type": "image/png"}, timeout=10
        )
        assert "not an image" in error_of(response, 400)

    def test_an_unknown_input_beside_the_known_ones_is_named(self, server: IngressServer, runner: FakeRunner) -> None:
        body = infer_json()
        body["inputs"].append({"name": "extra", "shape": [1], "datatype": "FP32", "data": [1]})
        assert "input 'extra' is unknown; model digits takes 'image'" in error_of(post(server, body), 400)

    def test_inputs_of_different_length_are_refused(self, server: IngressServer, runner: FakeRunner) -> None:
        x = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}
        y = {"name": "y", "shape": [1], "datatype": "INT64", "data": [1]}
        assert "'x' and 'y' have 2 and 1 items" in error_of(post(server, {"inputs": [x, y]}, "sums"), 400)
        x["shape"] = [6]
        assert "must have the shape [n, 3]" in error_of(post(server, {"inputs": [x, y]}, "sums"), 400)

    @pytest.mark.parametrize(
        ("body", "length", "sentence"),
        [
            (b"{not json", None, "not valid JSON"),
            (b"[]", None, "must be a JSON object"),
            (b"{}", "99", "is 99, but must be from 1 to the body's 2 bytes"),
            (b"{}", "-1", "must be a whole number of bytes, not '-1'"),
            (b"{}", "two", "must be a whole number of bytes"),
            (b'{"inputs":[]}', "5", "not valid JSON"),
            (b"", None, "the body is empty"),
        ],
    )
    def test_malformed_bodies_and_header_lengths(
        self, server: IngressServer, runner: FakeRunner, body: bytes, length: str | None, sentence: str
    ) -> None:
        headers = {} if length is None else {"Inference-Header-Content-Length": length}
        response = requests.post(f"{server.url}/v2/models/digits/infer", data=body, headers=headers, timeout=10)
        if not body:
            # requests announces an empty body; curl does so too.
            assert response.request.headers["Content-Length"] == "0"
        assert sentence in error_of(response, 400)

    def test_a_body_over_the_limit_is_refused_by_its_announced_length(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        response = requests.post(f"{server.url}/v2/models/digits/infer", data=bytes(BODY_LIMIT_BYTES + 1), timeout=10)
        assert f"over the limit of {BODY_LIMIT_BYTES} bytes" in error_of(response, 413)

    def test_a_body_that_is_announced_too_large_is_not_waited_for(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        connection = http.client.HTTPConnection(server.address, timeout=10)
        connection.putrequest("POST", "/v2/models/digits/infer")
        connection.putheader("Content-Length", str(BODY_LIMIT_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()

    def test_a_body_without_length_is_refused_when_it_passes_the_limit(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        chunks = (bytes(50_000) for _ in range(7))
        response = requests.post(f"{server.url}/v2/models/digits/infer", data=chunks, timeout=10)
        assert "over the limit" in error_of(response, 413)

    @pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
    def test_a_body_that_unpacks_beyond_the_limit_is_refused_before_it_is_whole(
        self,
        server: IngressServer,
        runner: FakeRunner,
        monkeypatch: pytest.MonkeyPatch,
        encoding: str,
        compress: Callable[[bytes], bytes],
    ) -> None:
        packed = compress(bytes(200 * BODY_LIMIT_BYTES))
        assert len(packed) < BODY_LIMIT_BYTES
        most_bytes, check = 0, BodyLimits.check

        def noting(limits: BodyLimits, size_bytes: int) -> None:
            nonlocal most_bytes
            most_bytes = max(most_bytes, limits.arriving_bytes)
            check(limits, size_bytes)

        monkeypatch.setattr(BodyLimits, "check", noting)
        response = requests.post(
            f"{server.url}/v2/models/digits/infer", data=packed, headers={"Content-Encoding": encoding}, timeout=10
        )
        assert "over the limit" in error_of(response, 413)
        assert BODY_LIMIT_BYTES < most_bytes < 20 * BODY_LIMIT_BYTES

    @pytest.mark.parametrize(
        ("encoding", "status", "sentence"),
        [
            ("gzip", 400, "does not match its Content-Encoding"),
            ("br", 415, "use gzip, deflate"),
            ("rot13", 415, "'rot13'"),
        ],
    )
    def test_packings_that_are_unknown_or_wrong(
        self, server: IngressServer, runner: FakeRunner, encoding: str, status: int, sentence: str
    ) -> None:
        response = requests.post(
            f"{server.url}/v2/models/digits/infer",
            data=b"certainly not packed",
            headers={"Content-Encoding": encoding},
            timeout=10,
        )
        assert sentence in error_of(response, status)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
    def test_a_packed_body_that_was_cut_off_or_goes_on_behind_its_end_is_no_whole_one(
        self, server: IngressServer, runner: FakeRunner, encoding: str
    ) -> None:
        packer = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "raw deflate": -15}[encoding])
        packed = packer.compress(json.dumps(infer_json()).encode()) + packer.flush()

        def ask(body: bytes) -> requests.Response:
            headers = {"Content-Encoding": encoding.removeprefix("raw ")}
            return requests.post(f"{server.url}/v2/models/digits/infer", data=body, headers=headers, timeout=10)

        assert ask(packed).status_code == 200
        for broken in (packed[:-1], packed[:-4], packed[: len(packed) // 2], packed + b"more"):
            assert "does not match its Content-Encoding" in error_of(ask(broken), 400)

    def test_a_request_without_any_body_is_told_so(self, server: IngressServer, runner: FakeRunner) -> None:
        connection = http.client.HTTPConnection(server.address, timeout=10)
        connection.putrequest("POST", "/v2/models/digits/infer")
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 411
        assert "has no body" in json.loads(response.read())["error"]
        connection.close()

    def test_unknown_model_and_version_name_what_is_served(self, server: IngressServer, runner: FakeRunner) -> None:
        assert "ask for one of digits, sums" in error_of(post(server, infer_json(), "cats"), 404)
        response = requests.get(f"{server.url}/v2/models/digits/versions/2", timeout=10)
        assert "ask for version 1" in error_of(response, 404)
        response = requests.post(f"{server.url}/v1/classify/cats", data=b"x", timeout=10)
        assert "'cats' is not served here" in error_of(response, 404)

    def test_unknown_paths_and_methods_are_json_too(self, server: IngressServer, runner: FakeRunner) -> None:
        assert "/v2/models/MODEL/infer" in error_of(requests.get(f"{server.url}/nothing", timeout=10), 404)
        response = requests.get(f"{server.url}/v2/models/digits/infer", timeout=10)
        assert "the method GET is not allowed here; use POST" in error_of(response, 405)
        assert response.headers["Allow"] == "POST"

    @pytest.mark.provokes_fault
    def test_a_bug_is_told_without_its_details(self, server: IngressServer, runner: FakeRunner) -> None:
        runner.broken = True
        sentence = error_of(post(server, infer_json()), 500)
        assert "log" in sentence
        assert "on purpose" not in sentence

    def test_a_request_without_memory_for_it_is_503(
        self, server: IngressServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read_all(*_: object) -> bytes:
            raise MemoryError

        monkeypatch.setattr("scheduler.daemon.http.infer.parse_infer", read_all)
        response = post(server, infer_json())
        assert "no memory for this request" in error_of(response, 503)
        assert response.headers["Retry-After"] == "1"

    def test_an_answer_that_cannot_be_written_in_json_is_counted_as_the_requests_fault(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        runner.value = float("nan")
        before = requests.get(f"{server.url}/v1/status", timeout=10).json()["requests"]
        assert "holds NaN or infinity, which JSON cannot carry" in error_of(post(server, infer_json()), 400)
        assert post(server, infer_json(parameters={"binary_data_output": True})).status_code == 200
        server.assert_accounted()
        after = requests.get(f"{server.url}/v1/status", timeout=10).json()["requests"]
        assert [after[key] - before[key] for key in ("arrived", "answered", "rejected")] == [2, 1, 1]

    @pytest.mark.parametrize(("retry_after_s", "header"), [(0.2, "1"), (2.1, "3"), (None, None), (float("inf"), None)])
    def test_retry_after_is_whole_seconds_and_never_zero(
        self, server: IngressServer, runner: FakeRunner, retry_after_s: float | None, header: str | None
    ) -> None:
        runner.refusal = Refusal(RefusalKind.QUEUE_FULL, "the queue is full", retry_after_s)
        response = post(server, infer_json())
        assert error_of(response, 429) == "the queue is full"
        assert response.headers.get("Retry-After") == header


class TestClassify:
    def ask(self, server: IngressServer, query: str = "", **headers: str) -> requests.Response:
        headers = {"Content-Type": "image/png"} | {name.replace("_", "-"): text for name, text in headers.items()}
        return requests.post(f"{server.url}/v1/classify/digits{query}", data=PICTURE, headers=headers, timeout=10)

    def test_answers_in_words(self, server: IngressServer, runner: FakeRunner) -> None:
        answer = self.ask(server, X_Request_Id="mine").json()
        assert answer["label"] == str(digit_of(PICTURE))
        assert answer["probability"] == pytest.approx(0.9)
        assert [entry["label"] for entry in answer["top"][:2]] == [
            str(digit_of(PICTURE)),
            str((digit_of(PICTURE) + 1) % 10),
        ]
        assert answer.items() >= {"model": "digits", "id": "mine", "backend": "edge", "batch_items": 4}.items()
        assert (answer["tier"], answer["cost"]) == ("", 0.0)
        assert len(answer["top"]) == 5
        assert answer["latency_s"] >= 0
        assert runner.calls[0].inputs[0].elements() == [PICTURE]

    def test_query_reaches_the_call(self, server: IngressServer, runner: FakeRunner) -> None:
        assert self.ask(server, "?timeout_s=0.5&priority=1&class=batch").status_code == 200
        call = runner.calls[0]
        assert (call.timeout_s, call.priority, call.class_name) == (0.5, 1, "batch")
        assert self.ask(server, "?timeout_s=0").status_code == 200
        assert runner.calls[1].timeout_s is None

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ("?timeout_s=-1", "leave it out, or 0, for the SLO"),
            ("?timeout_s=31536000", "at most 3600 s"),
            ("?timeout_s=soon", "timeout_s must be a number of seconds"),
            ("?timeout_s=inf", "timeout_s must be a number of seconds"),
            ("?timeout_s=nan", "timeout_s must be a number of seconds"),
            ("?priority=9", "'priority' must be"),
            ("?priority=top", "'priority' must be"),
            ("?class=gold", "class 'gold' is unknown"),
            ("?top=0", "'top' must be a whole number from 1 to 1000"),
            ("?top=all", "'top' must be a whole number"),
            ("?top=99999", "'top' must be a whole number"),
            ("?timeout=3", "query key 'timeout' is unknown"),
        ],
    )
    def test_bad_queries(self, server: IngressServer, runner: FakeRunner, query: str, sentence: str) -> None:
        assert sentence in error_of(self.ask(server, query), 400)
        assert runner.calls == []

    def test_as_many_classes_as_asked_and_no_more_than_there_are(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        found = {top: self.ask(server, f"?top={top}").json()["top"] for top in (1, 3, 1000)}
        assert {top: len(classes) for top, classes in found.items()} == {1: 1, 3: 3, 1000: 10}

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/json"])
    def test_another_content_type_is_told_what_to_send(
        self, server: IngressServer, runner: FakeRunner, kind: str
    ) -> None:
        assert "-H 'Content-Type: image/png'" in error_of(self.ask(server, Content_Type=kind), 415)

    def test_an_empty_picture_and_a_model_without_pictures(self, server: IngressServer, runner: FakeRunner) -> None:
        response = requests.post(f"{server.url}/v1/classify/digits", headers={"Content-Type": "image/png"}, timeout=10)
        assert "the body is empty" in error_of(response, 400)
        for model in ("sums", "level"):
            response = requests.post(
                f"{server.url}/v1/classify/{model}", data=PICTURE, headers={"Content-Type": "image/png"}, timeout=10
            )
            assert f"use POST /v2/models/{model}/infer" in error_of(response, 400)


class TestOperators:
    def test_limits_are_set_read_and_replaced(self, server: IngressServer, runner: FakeRunner) -> None:
        url = f"{server.url}/v1/models/digits/limits"
        answer = requests.put(url, json={"window_s": 0.05, "edge_batch_cap": 4}, headers=OPERATOR, timeout=10)
        assert answer.status_code == 200
        assert runner.limits.of("digits") == Limits(window_s=0.05, edge_batch_cap=4)
        assert requests.get(url, timeout=10).json() == {
            "model": "digits",
            "window_s": 0.05,
            "edge_batch_cap": 4,
            "function_batch_cap": None,
        }
        requests.put(url, json={"window_s": 0}, headers=OPERATOR, timeout=10)
        assert runner.limits.of("digits") == Limits(window_s=0.0)

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (b"{", "not valid JSON"),
            (b"[]", "must be a JSON object"),
            (b'{"window": 1}', "did you mean 'window_s'?"),
            (b'{"window_s": -1}', "'window_s' must be"),
            (b'{"window_s": true}', "'window_s' must be"),
            (b'{"edge_batch_cap": 0}', "'edge_batch_cap' must be"),
            (b'{"function_batch_cap": 1.5}', "'function_batch_cap' must be"),
        ],
    )
    def test_bad_limits_change_nothing(
        self, server: IngressServer, runner: FakeRunner, body: bytes, sentence: str
    ) -> None:
        before = runner.limits.by_model()
        response = requests.put(f"{server.url}/v1/models/digits/limits", data=body, headers=OPERATOR, timeout=10)
        assert sentence in error_of(response, 400)
        assert runner.limits.by_model() == before

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 401),
            ({"Authorization": f"Bearer {TOKEN}"}, 200),
            ({"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "203.0.113.9"}, 200),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"X-Real-IP": "203.0.113.9", "Via": "1.1 proxy"}, 401),
            ({"X-Forwarded-For": "203.0.113.9"}, 401),
        ],
    )
    def test_limits_need_the_token_wherever_a_client_is(
        self, server: IngressServer, runner: FakeRunner, headers: dict[str, str], status: int
    ) -> None:
        response = requests.put(f"{server.url}/v1/models/digits/limits", json={}, headers=headers, timeout=10)
        assert response.status_code == status
        assert TOKEN not in response.text

    def test_an_identity_is_accepted_by_operators_only(self, server: IngressServer, runner: FakeRunner) -> None:
        url, one = f"{server.url}/v1/models/digits/identity", "sha256:" + "1" * 64
        found = {"model": "digits", "expected": None, "expected_by": None, "unidentified": [], "refused": {}}
        assert requests.get(url, timeout=10).json() == found
        answer = requests.put(url, json={"identity": one}, headers=OPERATOR, timeout=10)
        assert answer.json() == {**found, "expected": one, "expected_by": "operator"}
        assert requests.put(url, json={"identity": None}, headers=OPERATOR, timeout=10).json() == found
        response = requests.put(url, json={"identity": one}, timeout=10)
        assert "needs a token with the scope admin" in error_of(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"
        for body, sentence in ((b"{", "not valid JSON"), (b"[]", "must be"), (b'{"identity": "sha256:1"}', "64 hexa")):
            assert sentence in error_of(requests.put(url, data=body, headers=OPERATOR, timeout=10), 400)
        assert requests.get(url, timeout=10).json() == found

    def test_ready_follows_start_and_drain_while_live_stays(self, server: IngressServer, runner: FakeRunner) -> None:
        def codes() -> list[int]:
            paths = ("/v2/health/ready", "/v2/models/digits/ready", "/v2/health/live")
            return [requests.get(server.url + path, timeout=10).status_code for path in paths]

        assert codes() == [200, 200, 200]
        runner.draining = True
        assert codes() == [503, 503, 200]
        runner.draining, server.ingress.service.ready = False, False
        assert codes() == [503, 503, 200]
        server.ingress.service.ready = True

    def test_status_counts_every_end(self, server: IngressServer, runner: FakeRunner) -> None:
        before = requests.get(f"{server.url}/v1/status", timeout=10).json()["requests"]
        for _ in range(3):
            assert post(server, infer_json()).status_code == 200
        runner.refusal = Refusal(RefusalKind.DEADLINE, "too late")
        post(server, infer_json())
        runner.refusal = Refusal(RefusalKind.BAD_REQUEST, "not an image")
        post(server, infer_json())
        status = requests.get(f"{server.url}/v1/status", timeout=10).json()
        counts = status["requests"]
        assert counts["within_slo"] == pytest.approx((before["edge"] + 3) / (before["edge"] + before["refused"] + 4))
        grown = {key: counts[key] - before[key] for key in ("arrived", "answered", "function", "refused", "rejected")}
        assert grown == {"arrived": 5, "answered": 3, "function": 0, "refused": 1, "rejected": 1}
        assert counts["refused_by_kind"]["deadline"] == before["refused_by_kind"].get("deadline", 0) + 1
        assert sum(second["arrived"] for second in counts["recent"]) == counts["arrived"]
        assert status["ready"] is True
        assert status["backends"] == ["edge"]
        assert status["engine"]["queued_requests"] == 3

    def test_metrics_have_bounded_labels_and_the_engines_state(self, server: IngressServer, runner: FakeRunner) -> None:
        post(server, infer_json())
        post(server, infer_json(), "model-that-is-not-served")
        text = requests.get(f"{server.url}/metrics", timeout=10).text
        assert 'edgeburst_requests_total{class="default",kind="answered",model="digits"}' in text
        assert 'edgeburst_request_seconds_bucket{class="default",le="+Inf",model="digits",place="edge"}' in text
        assert 'edgeburst_http_errors_total{code="404"}' in text
        assert "edgeburst_queue_requests 3.0" in text
        assert 'edgeburst_backend_up{backend="edge"} 1.0' in text
        assert 'edgeburst_backend_up{backend="function"}' not in text  # there is none in the configuration
        assert 'edgeburst_class_slo_seconds{class="default",model="digits"}' in text
        assert "edgeburst_uplink_bytes_per_second" not in text  # unknown is absent, not 0
        assert float(re.findall(r"^edgeburst_own_latency_seconds_count (\S+)$", text, re.MULTILINE)[0]) > 0
        assert "model-that-is-not-served" not in text

    def test_refusals_are_counted_by_kind_and_by_what_decided(self, server: IngressServer, runner: FakeRunner) -> None:
        runner.refusal = Refusal(RefusalKind.DEADLINE, "too late", reason="first-deadline")
        post(server, infer_json())
        runner.refusal = Refusal(RefusalKind.DRAINING, "stopping")
        post(server, infer_json())
        runner.refusal = None
        text = requests.get(f"{server.url}/metrics", timeout=10).text
        assert 'edgeburst_refusals_total{kind="deadline",reason="first-deadline"} 1.0' in text
        assert 'edgeburst_refusals_total{kind="draining",reason=""}' in text

    def test_batches_are_paged(self, server: IngressServer, runner: FakeRunner) -> None:
        rows = requests.get(f"{server.url}/v1/batches?after=40&limit=5", timeout=10).json()["batches"]
        assert [row["record"] for row in rows] == [41, 42, 43, 44, 45]
        for query in ("after=x", "after=-1", "limit=0", "limit=10001"):
            error_of(requests.get(f"{server.url}/v1/batches?{query}", timeout=10), 400)

    def test_the_dashboard_needs_nothing_from_elsewhere(self, server: IngressServer, runner: FakeRunner) -> None:
        response = requests.get(server.url, timeout=10)
        assert response.headers["Content-Type"].startswith("text/html")
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert 'type="password"' in response.text, "where a token is asked for"
        assert "http://" not in response.text
        assert "https://" not in response.text


class TestClients:
    def test_a_client_that_goes_away_cancels_its_call(self, server: IngressServer, runner: FakeRunner) -> None:
        runner.hold = True
        runner.cancelled.clear()
        body = json.dumps(infer_json()).encode()
        head = (
            f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head + body)
            wait_until(server, lambda: bool(runner.calls))
        wait_until(server, lambda: runner.cancelled == runner.calls)
        counts = requests.get(f"{server.url}/v1/status", timeout=10).json()["requests"]
        assert counts["cancelled"] >= 1

    def test_a_client_that_goes_away_within_its_body_leaves_no_trace(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        def error_lines() -> list[str]:
            text = requests.get(f"{server.url}/metrics", timeout=10).text
            return [line for line in text.splitlines() if line.startswith("edgeburst_http_errors_total")]

        before = error_lines()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nhalf"
            )
            wait_until(server, lambda: server.ingress.service.bodies.arriving_bytes == 4)
        assert post(server, infer_json()).status_code == 200
        assert len(runner.calls) == 1
        wait_until(server, lambda: server.ingress.service.bodies.arriving_bytes == 0)
        assert error_lines() == before

    def test_a_client_that_stalls_is_told_when_its_time_is_over(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        bodies = server.ingress.service.bodies
        usual_s, bodies.time_limit_s = bodies.time_limit_s, 0.05
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(
                    b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nhalf"
                )
                answer = connection.recv(65536)
            assert b" 408 " in answer
            assert b"did not arrive within 0.05 s" in answer
        finally:
            bodies.time_limit_s = usual_s

    def test_too_much_arriving_at_once_is_refused_until_it_is_less(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        bodies = server.ingress.service.bodies
        usual_bytes, bodies.total_limit_bytes = bodies.total_limit_bytes, 20_000
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
                connection.sendall(head + bytes(15_000))
                wait_until(server, lambda: server.ingress.service.bodies.arriving_bytes >= 15_000)
                response = post(server, infer_json())
                assert "too many bodies" in error_of(response, 429)
                assert response.headers["Retry-After"] == "1"
        finally:
            bodies.total_limit_bytes = usual_bytes
        wait_until(server, lambda: server.ingress.service.bodies.arriving_bytes == 0)

    def test_the_body_with_the_largest_share_gives_way_to_a_small_one(self, server: IngressServer) -> None:
        bodies = server.ingress.service.bodies
        usual_bytes, bodies.total_limit_bytes = bodies.total_limit_bytes, 100_000
        try:
            with ExitStack() as stack:
                greedy = []
                for held_bytes in (30_000, 69_000):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
                    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
                    connection.sendall(head + bytes(held_bytes))
                    greedy.append(connection)
                wait_until(server, lambda: bodies.arriving_bytes == 99_000)
                post(server, infer_json()).raise_for_status()
                answer = greedy[1].recv(65536)
                assert b" 429 " in answer
                assert b"too many bodies" in answer
                assert bodies.arriving_bytes == 30_000
                assert bodies.leaving_bytes == 0
        finally:
            bodies.total_limit_bytes = usual_bytes
        wait_until(server, lambda: bodies.arriving_bytes == 0)

    def test_a_reload_changes_models_and_limits(
        self, server: IngressServer, runner: FakeRunner, config: Config, tmp_path: Path
    ) -> None:
        changed = tmp_path / "edgeburst.toml"
        changed.write_text(CONFIG.replace("max_items = 8", "max_items = 2"))
        server.on_loop(lambda: server.ingress.service.reload(load_config(changed, {})))
        try:
            many = {"name": "image", "shape": [3], "datatype": "BYTES", "data": ["eA=="] * 3}
            assert "takes at most 2" in error_of(post(server, {"inputs": [many]}), 400)
        finally:
            server.on_loop(lambda: server.ingress.service.reload(config))
        assert post(server, {"inputs": [many]}).status_code == 200

    def test_the_daemons_own_latency_counts_every_written_answer(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        before = runner.own_latency.summary()["count"]
        post(server, infer_json())
        wait_until(server, lambda: runner.own_latency.summary()["count"] > before)  # type: ignore[operator]

    def test_deflated_bodies_of_plain_clients_are_read(self, server: IngressServer, runner: FakeRunner) -> None:
        response = requests.post(
            f"{server.url}/v1/classify/digits",
            data=zlib.compress(PICTURE),
            headers={"Content-Type": "image/png", "Content-Encoding": "deflate"},
            timeout=10,
        )
        assert response.status_code == 200
        assert runner.calls[0].inputs[0].elements() == [PICTURE]


def wait_until(server: IngressServer, condition: Any) -> None:
    """Lets the server's loop turn until the condition holds there; fails after ten seconds."""
    met = threading.Event()

    def look() -> None:
        if condition():
            met.set()

    give_up_s = time.monotonic() + 10.0
    while time.monotonic() < give_up_s:
        server.on_loop(look)
        if met.wait(0.001):
            return
    raise AssertionError("the condition was not met")


class TestTraces:
    PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def test_the_trace_of_a_request_reaches_its_call(self, server: IngressServer, runner: FakeRunner) -> None:
        post(server, infer_json(), traceparent=self.PARENT, tracestate="a=1")
        picture = {"Content-Type": "image/png", "traceparent": self.PARENT}
        requests.post(f"{server.url}/v1/classify/digits", data=PICTURE, headers=picture, timeout=10)
        contexts = [call.trace for call in runner.calls]
        assert [context and context.headers() for context in contexts] == [
            {"traceparent": self.PARENT, "tracestate": "a=1"},
            {"traceparent": self.PARENT},
        ]

    def test_a_trace_that_breaks_the_rules_or_comes_twice_is_none(
        self, server: IngressServer, runner: FakeRunner
    ) -> None:
        post(server, infer_json(), traceparent=self.PARENT.upper())
        connection = http.client.HTTPConnection(server.address, timeout=10)
        body = json.dumps(infer_json()).encode()
        connection.putrequest("POST", "/v2/models/digits/infer")
        for name, value in (("Content-Length", str(len(body))), ("traceparent", self.PARENT)):
            connection.putheader(name, value)
        connection.putheader("traceparent", self.PARENT)
        connection.endheaders(body)
        assert connection.getresponse().status == 200
        connection.close()
        post(server, infer_json())
        assert [call.trace for call in runner.calls] == [None] * 3
