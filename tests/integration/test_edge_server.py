"""The edge server as a real process, spoken to by clients that are not ours."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from support.client_threads import client_threads
from support.edge_process import EdgeProcess, options_of_a_quick_server, refused, running
from tritonclient.utils import InferenceServerException

from models import digits_data
from models.catalogue import shipped
from models.digits_pictures import encode
from models.loading import load

pytestmark = pytest.mark.xdist_group("edge_server")
QUICK = options_of_a_quick_server()
PICTURES = 20
BODY_LIMIT_BYTES = 1_000_000
WAIT_LIMIT_S = 30


def law_s(items: int) -> float:
    """The published fit of ResNet-50 on a Jetson Orin (serverless-edge-batching)."""
    return 0.04234 + 0.008165 * items


@pytest.fixture(scope="module")
def edge() -> Iterator[EdgeProcess]:
    options = (*QUICK, "--emulate", "orin-resnet50", "--body-limit-bytes", str(BODY_LIMIT_BYTES))
    with running(*options, environ={"WATCHDOG_USEC": "400000"}) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    images, _ = digits_data.held_out()
    return [encode(image, ("jpeg", "png")[n % 2], n) for n, image in enumerate(images[:PICTURES])]


@pytest.fixture(scope="module")
def expected(pictures: list[bytes]) -> np.ndarray:
    """The model's own answer to each picture alone."""
    model = load(shipped("digits"))
    alone = [model.answer({"image": model.prepare("image", one)[np.newaxis]}, errors=[""]) for one in pictures]
    return np.concatenate([answer["probabilities"] for answer in alone])


def image_input(pictures: list[bytes], *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("image", [len(pictures)], "BYTES")
    elements = pictures if binary else [base64.b64encode(one) for one in pictures]
    made.set_data_from_numpy(np.array(elements, dtype=np.object_), binary_data=binary)
    return made


def infer(edge: EdgeProcess, pictures: list[bytes], **options: Any) -> triton.InferResult:
    client = triton.InferenceServerClient(edge.address)
    try:
        return client.infer("digits", [image_input(pictures)], **options)
    finally:
        client.close()


def wait_for_batches_in_hand(edge: EdgeProcess, count: int) -> None:
    end_s = time.monotonic() + WAIT_LIMIT_S
    wanted = f"edgeburst_edge_batches_in_hand {count}.0"
    while wanted not in requests.get(f"{edge.url}/metrics", timeout=WAIT_LIMIT_S).text:
        assert time.monotonic() < end_s, f"never {count} batches in hand"


def test_ready_is_told_on_standard_output_and_to_systemd(edge: EdgeProcess) -> None:
    assert edge.ready["event"] == "ready"
    assert (edge.ready["models"], edge.ready["emulated"]) == (["digits"], "orin-resnet50")
    told = [edge.notifications.recv(1000).decode() for _ in range(2)]

    assert told[0].splitlines()[0] == "READY=1"
    assert told[1] == "WATCHDOG=1"


def test_tritonclient_reads_health_and_metadata(edge: EdgeProcess) -> None:
    client = triton.InferenceServerClient(edge.address)

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert not client.is_model_ready("resnet50")
    assert client.get_server_metadata()["name"] == "edgeburst-edge"
    assert client.get_model_metadata("digits", "1")["inputs"][0]["datatype"] == "BYTES"
    client.close()


@pytest.mark.parametrize("binary_answer", [True, False])
def test_a_binary_batch_of_tritonclient_gets_each_pictures_own_answer(
    edge: EdgeProcess, pictures: list[bytes], expected: np.ndarray, binary_answer: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_answer) for name in ("probabilities", "item_error")]

    result = infer(edge, pictures, outputs=outputs, request_id="r-1")

    assert result.get_response()["id"] == "r-1"
    assert np.abs(result.as_numpy("probabilities") - expected).max() < 1e-3
    assert not any(result.as_numpy("item_error"))


def test_a_json_batch_of_base64_text_gets_the_same_answers(
    edge: EdgeProcess, pictures: list[bytes], expected: np.ndarray
) -> None:
    client = triton.InferenceServerClient(edge.address)
    result = client.infer("digits", [image_input(pictures[:4], binary=False)])
    client.close()

    assert np.abs(result.as_numpy("probabilities") - expected[:4]).max() < 1e-3


def test_a_person_with_requests_gets_json(edge: EdgeProcess, pictures: list[bytes], expected: np.ndarray) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(pictures[0]).decode()]}

    answer = requests.post(f"{edge.url}/v2/models/digits/infer", json={"inputs": [tensor]}, timeout=WAIT_LIMIT_S).json()

    by_name = {output["name"]: output["data"] for output in answer["outputs"]}
    assert by_name["probabilities"] == pytest.approx(expected[0].tolist(), abs=1e-3)
    assert by_name["item_error"] == [""]


def test_a_broken_picture_in_a_batch_fails_alone(
    edge: EdgeProcess, pictures: list[bytes], expected: np.ndarray
) -> None:
    result = infer(edge, [pictures[0], pictures[1][: len(pictures[1]) // 2], pictures[2]])

    probabilities = result.as_numpy("probabilities")
    assert np.abs(probabilities[[0, 2]] - expected[[0, 2]]).max() < 1e-3
    assert not probabilities[1].any()
    errors = result.as_numpy("item_error")
    assert [bool(error) for error in errors] == [False, True, False]
    assert b"truncated" in errors[1]


@pytest.mark.parametrize("items", [1, 4, 20])
def test_an_emulated_batch_takes_at_least_the_law(edge: EdgeProcess, pictures: list[bytes], items: int) -> None:
    parameters = infer(edge, pictures[:items]).get_response()["parameters"]

    assert parameters["service_s"] >= law_s(items)


def test_batches_at_the_same_time_queue_and_beyond_the_queue_are_refused(
    edge: EdgeProcess, pictures: list[bytes], expected: np.ndarray
) -> None:
    with client_threads(3) as callers:
        taken = [callers.submit(infer, edge, pictures) for _ in range(3)]
        wait_for_batches_in_hand(edge, 3)
        with pytest.raises(triton.InferenceServerException, match="queue of 2 is full") as refusal:
            infer(edge, pictures)
        results = [future.result() for future in taken]

    assert refusal.value.status() == "503"
    assert all(np.abs(result.as_numpy("probabilities") - expected).max() < 1e-3 for result in results)
    served = sorted(
        (parameters["queue_s"], parameters["service_s"])
        for parameters in (result.get_response()["parameters"] for result in results)
    )
    assert all(service_s >= law_s(PICTURES) for _, service_s in served)
    assert served[2][0] >= 0.9 * law_s(PICTURES), "the last one waited for at least one whole batch"


def test_a_refusal_tells_tritonclient_why(edge: EdgeProcess, pictures: list[bytes]) -> None:
    with pytest.raises(triton.InferenceServerException, match="33 items, but model digits takes at most 32"):
        infer(edge, [pictures[0]] * 33)


def test_a_body_over_the_limit_is_answered_and_not_cut_off(edge: EdgeProcess) -> None:
    somewhat = requests.post(
        f"{edge.url}/v2/models/digits/infer", data=b"x" * (2 * BODY_LIMIT_BYTES), timeout=WAIT_LIMIT_S
    )
    # Declared only: what is immense is refused before it is sent.
    immense = http.client.HTTPConnection(edge.address, timeout=WAIT_LIMIT_S)
    immense.putrequest("POST", "/v2/models/digits/infer")
    immense.putheader("Content-Length", str(10**12))
    immense.endheaders()
    answer = immense.getresponse()

    assert (somewhat.status_code, answer.status) == (413, 413)
    assert f"over the limit of {BODY_LIMIT_BYTES} bytes: send a smaller batch" in somewhat.json()["error"]
    assert json.loads(answer.read()) == somewhat.json()


def test_sigterm_finishes_what_is_queued_takes_no_more_and_exits_with_0(
    pictures: list[bytes], expected: np.ndarray
) -> None:
    with running(*QUICK, "--emulate", "orin-resnet50") as edge, client_threads(3) as callers:
        taken = [callers.submit(infer, edge, pictures) for _ in range(3)]
        wait_for_batches_in_hand(edge, 3)
        edge.process.terminate()
        assert "stopping" in refusal_once_stopping(edge, pictures)

        assert all(np.abs(one.result().as_numpy("probabilities") - expected).max() < 1e-3 for one in taken)
        assert edge.process.wait(timeout=WAIT_LIMIT_S) == 0
        told = [edge.notifications.recv(1000).decode().splitlines()[0] for _ in range(2)]
        assert told == ["READY=1", "STOPPING=1"]


def refusal_once_stopping(edge: EdgeProcess, pictures: list[bytes]) -> str:
    while requests.get(f"{edge.url}/v2/health/ready", timeout=WAIT_LIMIT_S).ok:
        pass
    with pytest.raises(triton.InferenceServerException) as refusal:
        infer(edge, pictures[:1])
    return str(refusal.value)


def test_what_a_handler_prints_does_not_come_before_the_line_for_programs(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(
        'name = "talks"\nformat = "python"\nclass = "handler.py:Talks"\n'
        'inputs = [{ name = "x", datatype = "FP32" }]\noutputs = [{ name = "x", datatype = "FP32" }]\n'
    )
    (tmp_path / "handler.py").write_text(
        "print('on import')\nclass Talks:\n    def load(self, device): print('on load')\n"
        "    def predict(self, arrays):\n        print('on predict')\n        return arrays\n"
    )
    with running("--model", str(tmp_path)) as process:
        assert process.ready["models"] == ["talks"]
        assert process.stop() == 0
        assert process.process.stdout is not None
        assert process.process.stdout.read() == ""


def test_a_port_in_use_is_one_sentence_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = refused("--port", str(port))

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert f"port {port}" in ended.stderr
    assert "choose another --port" in ended.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "digit"], "digits"),
        (["--weights", "digits=/nowhere.pt", "--weights-sha256", f"digits={'0' * 64}"], "/nowhere.pt"),
        (["--models", "/nowhere"], "there is no folder /nowhere of models"),
        (["--runtime", "tensorflow"], "there is no runtime 'tensorflow'"),
        (["--mps-percentage", "30"], "--mps-percentage"),
        (["--weights", "resnet50=/nowhere.pt"], "add --model resnet50"),
        (["--emulate", "orin-resnet"], "orin-resnet50"),
        (["--emulate", "orin-resnet50", "--max-batch", "65"], "lower --max-batch"),
        (["--emulate", "fc-resnet50-1gb"], "not of an edge device"),
    ],
)
def test_what_cannot_be_served_is_one_sentence_and_no_traceback(options: list[str], words: str) -> None:
    ended = refused(*options)

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert words in ended.stderr.splitlines()[-1]
    assert ended.stderr.startswith("edgeburst-edge: ") or "INFO" in ended.stderr.splitlines()[0]
    assert "Traceback" not in ended.stderr


LOST_GPU = """
from models.errors import DeviceLost

class Net:
    def predict(self, inputs):
        if (inputs["x"] > 1).any():
            raise DeviceLost("the GPU answers nothing to this process any more")
        return {"y": inputs["x"]}
"""


def test_a_server_whose_gpu_is_lost_says_so_and_ends_for_its_service_manager(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "handler.py").write_text(LOST_GPU)
    tensor = '[{ name = "NAME", datatype = "FP32", shape = [1] }]'
    card = f'format = "python"\nclass = "handler.py:Net"\ninputs = {tensor}\noutputs = {tensor}\n'
    (folder / "model.toml").write_text(card.replace("NAME", "x", 1).replace("NAME", "y", 1))
    with running("--model", str(folder)) as server:
        client = triton.InferenceServerClient(server.address)
        tensors = [triton.InferInput("x", [1, 1], "FP32").set_data_from_numpy(np.full((1, 1), 2, np.float32))]
        with pytest.raises(InferenceServerException, match="the GPU answers nothing any more, the server starts again"):
            client.infer("net", tensors)
        assert server.process.wait(timeout=30) == 1
