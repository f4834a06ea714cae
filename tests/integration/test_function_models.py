"""Models of a user's own, of every format and kind, by both hosts as processes; and their preparation for an image."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.edge_process import options_of_a_quick_server, running
from support.model_folders import FORMATS, KINDS, Arrays, Made, make

from models.card_reader import read_card
from scheduler import wire

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
# Every format and every kind, but not each with each: `test_model_formats` has those, without a host.
SERVED = (
    ("onnx", "tensors"),
    ("onnx", "ragged"),
    ("torchscript", "picture"),
    ("torch-export", "several"),
    ("state-dict", "picture"),
    ("python", "ragged"),
    ("python", "several"),
)
pytestmark = pytest.mark.xdist_group("own_models")
Ask = Callable[[str, wire.Encoded], tuple[wire.Encoded, dict[str, object]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    parent = tmp_path_factory.mktemp("models")
    models = [make(parent, model_format, kind) for model_format, kind in SERVED]
    return {model.folder.name: model for model in models}


def test_every_format_and_kind_is_among_the_served() -> None:
    assert {model_format for model_format, _ in SERVED} == set(FORMATS)
    assert {kind for _, kind in SERVED} == set(KINDS)


def folder_of(made: dict[str, Made]) -> Path:
    return next(iter(made.values())).folder.parent


def posted(port: int, path: str, body: bytes, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return dict(response.headers), answer


@pytest.fixture(scope="module")
def edge(made: dict[str, Made]) -> Iterator[Ask]:
    # An emulated device does not measure its runtimes, which would take a minute here.
    options = (*options_of_a_quick_server(), "--emulate", "orin-resnet50", "--models", str(folder_of(made)))
    with running(*options) as process:

        def ask(model: str, request: wire.Encoded) -> tuple[wire.Encoded, dict[str, object]]:
            port = int(str(process.ready["port"]))
            headers, body = posted(port, f"/v2/models/{model}/infer", request.body, request.headers)
            length = headers.get(wire.JSON_LENGTH_HEADER)
            return wire.Encoded(body, None if length is None else int(length)), {}

        yield ask


@contextmanager
def function_process(*options: str, **environ: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "serverless_fn", *options],
        cwd=ROOT,
        env={**os.environ, "FC_CUSTOM_LISTEN_PORT": str(port), "EDGEBURST_LISTEN_HOST": "127.0.0.1", **environ},
        stdout=subprocess.DEVNULL,
    )
    try:
        end_s = time.monotonic() + LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < end_s
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


@pytest.fixture(scope="module")
def function(made: dict[str, Made]) -> Iterator[Ask]:
    with function_process("--models", str(folder_of(made))) as port:

        def ask(model: str, request: wire.Encoded) -> tuple[wire.Encoded, dict[str, object]]:
            frame = wire.pack_frame({"model": model, "batch_id": "b"}, request)
            header, payload = wire.unpack_frame(posted(port, "/invoke", frame, {})[1])
            return payload, header

        yield ask


def arrays(answer: wire.Encoded) -> Arrays:
    response = wire.parse_response(answer.body, answer.json_length)
    return {tensor.name: tensor.to_numpy() for tensor in response.outputs}


@pytest.mark.parametrize("host", ["edge", "function"])
@pytest.mark.parametrize(("model_format", "kind"), SERVED)
def test_every_format_and_kind_is_answered_as_the_framework_answers(
    made: dict[str, Made], edge: Ask, function: Ask, model_format: str, kind: str, host: str
) -> None:
    model = made[f"{model_format}-{kind}"]
    ask = {"edge": edge, "function": function}[host]
    inputs = model.inputs(3)
    tensors = tuple(wire.Tensor.from_numpy(name, array) for name, array in inputs.items())
    asked = wire.encode_request(wire.InferRequest("r", tensors, binary_by_default=True))

    answer, header = ask(model.folder.name, asked)
    got, expected = arrays(answer), model.expected(inputs)

    assert {*got} - {"item_error"} == {*expected}
    for name, array in expected.items():
        assert got[name].shape == array.shape
        assert np.allclose(got[name], array, atol=2e-3), name
    if host == "function":
        assert header["identity"] == read_card(model.folder).identity()
        assert str(header["runtime"]).split()[0] in ("onnxruntime", "torch", "python")


def test_an_image_is_baked_with_onnx_files_that_the_function_serves_without_torch(tmp_path: Path) -> None:
    model = make(tmp_path / "models", "torchscript", "tensors")
    before = read_card(model.folder).identity()
    command = [sys.executable, "-m", "serverless_fn.baking", str(tmp_path / "models")]
    baked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S * 2, check=False)

    assert (baked.returncode, baked.stdout) == (0, "torchscript-tensors: converted, served by onnxruntime\n"), (
        baked.stderr
    )
    assert read_card(model.folder).identity() == before
    name = model.folder.name
    with function_process(MODELS=str(tmp_path / "models"), MODEL=name, MODEL_IDENTITY=f"{name}={before}") as port:
        inputs = model.inputs(2)
        tensors = tuple(wire.Tensor.from_numpy(name, array) for name, array in inputs.items())
        frame = wire.pack_frame({"model": name}, wire.encode_request(wire.InferRequest("r", tensors)))
        header, payload = wire.unpack_frame(posted(port, "/invoke", frame, {})[1])

    assert str(header["runtime"]).startswith("onnxruntime")
    # Torch alone would take more.
    assert int(str(header["memory_bytes"])) < 200e6
    for output, array in model.expected(inputs).items():
        assert np.allclose(arrays(payload)[output], array, atol=2e-3)


def test_a_baked_file_of_another_hash_ends_the_build(tmp_path: Path) -> None:
    model = make(tmp_path, "onnx", "tensors")
    card = model.folder / "model.toml"
    card.write_text(card.read_text().replace("\ninputs", f'\nsha256 = "{"0" * 64}"\ninputs', 1))
    command = [sys.executable, "-m", "serverless_fn.baking", str(tmp_path)]
    baked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert baked.returncode == 2
    assert "has SHA-256" in baked.stderr
