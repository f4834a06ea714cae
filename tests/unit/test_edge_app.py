"""The HTTP face: the protocol's paths, and one clear sentence for everything that is wrong."""

from __future__ import annotations

import base64
import json
import re

import pytest
from flask.testing import FlaskClient
from support.edge_fakes import FakeModel, make_service, picture
from werkzeug.test import TestResponse

from edge_server.app import create_app
from edge_server.service import Service, State
from models.emulation import emulation_for
from scheduler.wire import (
    JSON_LENGTH_HEADER,
    Encoded,
    InferRequest,
    InferResponse,
    OutputRequest,
    Tensor,
    encode_request,
    parse_response,
)

INFER = "/v2/models/digits/infer"
LIMIT_BYTES = 20_000


@pytest.fixture
def service() -> Service:
    return make_service(FakeModel(), max_batch=4)


@pytest.fixture
def client(service: Service) -> FlaskClient:
    return create_app(service, body_limit_bytes=LIMIT_BYTES).test_client()


def post(client: FlaskClient, encoded: Encoded, path: str = INFER) -> TestResponse:
    headers = {} if encoded.json_length is None else {JSON_LENGTH_HEADER: str(encoded.json_length)}
    return client.post(path, data=encoded.body, headers=headers)


def request_of(*pictures: bytes, **fields: object) -> InferRequest:
    return InferRequest(**{"id": "", "inputs": (Tensor.from_elements("image", pictures),), **fields})  # type: ignore[arg-type]


def json_body(**tensor: object) -> Encoded:
    data = [base64.b64encode(picture(4)).decode()]
    entry = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data, **tensor}
    return Encoded(json.dumps({"inputs": [entry]}).encode(), None)


def parsed(response: TestResponse) -> InferResponse:
    assert response.status_code == 200, response.text
    length = response.headers.get(JSON_LENGTH_HEADER)
    return parse_response(response.data, None if length is None else int(length))


def sentence(response: TestResponse) -> str:
    """Return the error, which must be one sentence in the protocol's form."""
    assert response.content_type == "application/json"
    (key,) = response.get_json()
    assert key == "error"
    text: str = response.get_json()["error"]
    assert not text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_metadata_says_what_goes_in_and_out(client: FlaskClient) -> None:
    server = client.get("/v2").get_json()
    model = client.get("/v2/models/digits").get_json()

    assert (server["name"], server["extensions"]) == ("edgeburst-edge", ["binary_tensor_data"])
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert model["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        {"name": "item_error", "datatype": "BYTES", "shape": [-1]},
    ]
    assert model["platform"] == "fake"
    assert model["parameters"] == {
        "max_batch": 4,
        "parallel": 1,
        "device": "cpu",
        "weights": "card",
        "identity": "sha256:" + "0" * 64,
        "files": {},
        "runtime": {"name": "fake", "precision": "fp32", "tried": {"fake": 0.001, "other": "not installed"}},
        "emulated": None,
    }
    assert client.get("/v2/models/digits/versions/1").get_json() == model


@pytest.mark.parametrize("name", [None, "orin-resnet50"])
def test_metadata_says_whether_the_device_is_emulated(name: str | None) -> None:
    service = make_service(FakeModel(), emulation=emulation_for(name))
    client = create_app(service, body_limit_bytes=LIMIT_BYTES).test_client()

    assert client.get("/v2").get_json()["emulated"] == name
    assert client.get("/v2/models/digits").get_json()["parameters"]["emulated"] == name


@pytest.mark.parametrize("state", list(State))
def test_ready_only_when_ready_and_live_always(client: FlaskClient, service: Service, state: State) -> None:
    service.state = state
    expected = 200 if state is State.READY else 503

    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"):
        assert client.get(path).status_code == expected
        assert client.get(path).get_json()["ready"] is (state is State.READY)


@pytest.mark.parametrize("state", [State.WARMING, State.STOPPING])
def test_a_server_that_is_not_ready_takes_no_batch_and_says_when_to_retry(
    client: FlaskClient, service: Service, state: State
) -> None:
    service.state = state

    response = post(client, encode_request(request_of(picture(1))))

    assert response.status_code == 503
    assert state.value in sentence(response)
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", [INFER, "/v2/models/digits/versions/1/infer"])
@pytest.mark.parametrize("binary_answer", [False, True])
def test_a_binary_request_is_answered_in_the_form_it_asks_for(
    client: FlaskClient, path: str, binary_answer: bool
) -> None:
    asked = request_of(picture(7), b"junk", id="r-1", binary_by_default=binary_answer)

    response = post(client, encode_request(asked), path)

    assert (JSON_LENGTH_HEADER in response.headers) is binary_answer
    answer = parsed(response)
    assert (answer.model_name, answer.model_version, answer.id) == ("digits", "1", "r-1")
    assert [output.name for output in answer.outputs] == ["probabilities", "item_error"]
    assert answer.outputs[0].to_numpy().argmax(axis=1).tolist() == [7, 0]
    assert [bool(error) for error in answer.outputs[1].elements()] == [False, True]
    assert set(answer.parameters) == {"service_s", "queue_s", "decode_s", "identity", "item_crc32"}


def test_a_json_request_carries_its_pictures_as_base64(client: FlaskClient) -> None:
    assert parsed(post(client, json_body())).outputs[0].to_numpy().argmax() == 4


def test_outputs_named_by_the_request_are_the_only_ones_answered(client: FlaskClient) -> None:
    asked = request_of(picture(1), outputs=(OutputRequest("probabilities", binary=True),))

    assert [output.name for output in parsed(post(client, encode_request(asked))).outputs] == ["probabilities"]


WRONG = {
    "malformed JSON": (Encoded(b'{"inputs": [', None), "not valid JSON"),
    "no inputs": (Encoded(b"{}", None), "'inputs' is missing"),
    "text that is not base64": (json_body(data=["*"]), "not base64"),
    "wrong datatype": (
        json_body(datatype="FP32", data=[1.0]),
        "must be BYTES: one encoded picture for each element, not FP32",
    ),
    "wrong shape": (json_body(shape=[1, 1]), r"must have the shape \[n\] for n items, not \[1, 1\]"),
    "no items": (json_body(shape=[0], data=[]), "has no items; send at least one"),
    "wrong input": (json_body(name="picture"), "input 'image' is missing; model digits takes 'image'"),
    "too many items": (encode_request(request_of(*[picture(1)] * 5)), "5 items, but model digits takes at most 4"),
    "unknown output": (
        encode_request(request_of(picture(1), outputs=(OutputRequest("logits", binary=False),))),
        "no output 'logits'; it has probabilities, item_error",
    ),
    "classification": (
        encode_request(request_of(picture(1), outputs=(OutputRequest("probabilities", binary=False, class_count=3),))),
        "classification",
    ),
    "header length beyond the body": (Encoded(b"{}", 3), JSON_LENGTH_HEADER),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_gets_400_and_a_sentence_that_names_what_is_wrong(client: FlaskClient, case: str) -> None:
    encoded, words = WRONG[case]

    response = post(client, encoded)

    assert response.status_code == 400
    assert re.search(words, sentence(response))


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "", "²", "9" * 40])
def test_a_json_length_that_is_no_number_gets_400(client: FlaskClient, length: str) -> None:
    response = client.post(INFER, data=b"{}", headers={JSON_LENGTH_HEADER: length})

    assert response.status_code == 400
    assert JSON_LENGTH_HEADER in sentence(response)


def test_an_unknown_model_or_version_gets_404_and_the_ones_there_are(client: FlaskClient) -> None:
    for path in ("/v2/models/digit", "/v2/models/digit/ready"):
        assert "this server has: digits" in sentence(client.get(path))
        assert client.get(path).status_code == 404
    assert post(client, json_body(), "/v2/models/digit/infer").status_code == 404
    response = post(client, json_body(), "/v2/models/digits/versions/2/infer")
    assert response.status_code == 404
    assert "no version '2'; its one version is '1'" in sentence(response)


def test_a_body_over_the_limit_gets_413_and_the_limit(client: FlaskClient) -> None:
    response = client.post(INFER, data=b"x" * (LIMIT_BYTES + 1))

    assert response.status_code == 413
    assert str(LIMIT_BYTES) in sentence(response)


def test_other_paths_and_methods_get_a_sentence_too(client: FlaskClient) -> None:
    assert client.get("/").status_code == 404
    assert "/v2" in sentence(client.get("/"))
    assert client.get(INFER).status_code == 405
    assert "GET" in sentence(client.get(INFER))


def test_a_failing_device_gets_500_without_its_secrets() -> None:
    model = FakeModel()

    def fail() -> None:
        raise RuntimeError("CUDA error at 0xdeadbeef")

    model.while_predicting = fail
    service = make_service(model)
    client = create_app(service, body_limit_bytes=LIMIT_BYTES).test_client()

    response = post(client, json_body())

    assert response.status_code == 500
    assert "deadbeef" not in sentence(response)
    assert service.device.in_hand == 0


def test_metrics_count_what_happened_under_bounded_labels(client: FlaskClient) -> None:
    post(client, encode_request(request_of(picture(1), b"junk", picture(2))))
    for number in range(20):
        client.get(f"/v2/models/stranger-{number}")

    lines = client.get("/metrics").text.splitlines()

    assert 'edgeburst_edge_items_total{model="digits",outcome="ok"} 2.0' in lines
    assert 'edgeburst_edge_items_total{model="digits",outcome="broken"} 1.0' in lines
    assert 'edgeburst_edge_batch_items_sum{model="digits"} 3.0' in lines
    assert 'edgeburst_edge_service_seconds_count{model="digits"} 1.0' in lines
    assert 'edgeburst_edge_responses_total{code="404"} 20.0' in lines
    assert "edgeburst_edge_batches_in_hand 0.0" in lines
    labels = f'device="cpu",identity="sha256:{"0" * 64}",model="digits",precision="fp32",runtime="fake"'
    assert f"edgeburst_edge_model_info{{{labels}}} 1.0" in lines
    assert "edgeburst_edge_ready 1.0" in lines
    assert not any("stranger" in line for line in lines)
    assert all(line.startswith(("#", "edgeburst_edge_")) for line in lines)
