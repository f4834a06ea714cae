"""Models of every format and kind, served by edge and function, asked through the daemon by Triton's own clients.

Every answer is compared with what the framework itself gives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from support import edge_process, local_fc_process, model_folders, operators
from support.daemon_process import Running, daemon_process, environment
from support.model_folders import FORMATS, KINDS, Made

from models.card_reader import read_card
from models.runtime import NUMPY_DTYPES

pytestmark = [pytest.mark.xdist_group("own-models"), pytest.mark.timeout(600)]

torch = pytest.importorskip("torch")
MATRIX = [(model_format, kind) for model_format in FORMATS for kind in KINDS]

CONFIG = """
[daemon]
port = 0
max_timeout_s = 600.0
[grpc]
port = 0
{backend}
"""
MODEL = """
[[model]]
card = "{folder}"
{backend}
[[model.class]]
slo_s = 300.0
"""
FUNCTION = """
[function]
endpoint = "{address}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
"""
TIER = """
[[model.tier]]
name = "cpu"
function = "infer"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""
ENDPOINT = """
[access_keys]
{key} = "{secret}"
[images.models]
command = ["{python}", "-m", "serverless_fn", "--models", "{folder}"]
env = {{ PYTHONPATH = "{path}" }}
[[function]]
functionName = "infer"
runtime = "custom-container"
handler = "index.handler"
cpu = 2
memorySize = 4096
diskSize = 512
timeout = 120
customContainerConfig = {{ image = "models" }}
instanceLifecycleConfig = {{ initializer = {{ handler = "index.initialize", timeout = 120 }} }}
provisionConfig = {{ defaultTarget = 1 }}
"""


@dataclass(frozen=True)
class Asked:
    """A daemon with one backend, and the models that it serves by format and kind."""

    daemon: Running
    backend: str
    models: Mapping[tuple[str, str], Made]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Made]:
    parent = tmp_path_factory.mktemp("models")
    return {(model_format, kind): model_folders.make(parent, model_format, kind) for model_format, kind in MATRIX}


@pytest.fixture(scope="module", params=["edge", "function"])
def asked(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    models: Mapping[tuple[str, str], Made],
) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp(f"by-{request.param}")
    parent = next(iter(models.values())).folder.parent
    with ExitStack() as stack:
        if request.param == "edge":
            # An emulated device does not measure its runtimes, which would take a minute here.
            options = ("--emulate", "orin-resnet50")
            edge = stack.enter_context(edge_process.running(*options, "--models", str(parent), "--max-batch", "4"))
            backend, of_model = f'[edge]\nurl = "{edge.url}"\n', 'edge_profile = "orin-resnet50"'
        else:
            endpoint = stack.enter_context(
                local_fc_process.running(
                    folder,
                    ENDPOINT.format(
                        key=local_fc_process.KEY,
                        secret=local_fc_process.SECRET,
                        python=sys.executable,
                        folder=parent,
                        path=environment({})["PYTHONPATH"],
                    ),
                )
            )
            backend, of_model = FUNCTION.format(address=endpoint.address), TIER
            # A call that waits for its instance teaches the daemon a service that fits no deadline.
            local_fc_process.eventually(lambda: endpoint.instances("infer", "Running"), limit_s=120.0)
        config = folder / "edgeburst.toml"
        sections = [
            MODEL.format(folder=made.folder, backend="" if "tier" in of_model else of_model) for made in models.values()
        ]
        if "tier" in of_model:
            sections = [section + of_model for section in sections]
        config.write_text(CONFIG.format(backend=backend) + "".join(sections))
        keys = {"TEST_KEY_ID": local_fc_process.KEY, "TEST_KEY_SECRET": local_fc_process.SECRET}
        daemon = stack.enter_context(daemon_process(config, environ=keys))
        for made in models.values():
            # Batches leave at once: a function batch would wait most of a minute for others.
            limits = f"{daemon.url}/v1/models/{made.folder.name}/limits"
            operators.put(limits, {"window_s": 0.0})
        yield Asked(daemon, request.param, models)


def by_http(daemon: Running, made: Made, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{daemon.port}", network_timeout=120) as client:
        return answers(client, tritonclient.http, made, inputs)


def by_grpc(daemon: Running, made: Made, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{daemon.ready['grpc_port']}") as client:
        return answers(client, tritonclient.grpc, made, inputs)


def answers(
    client: Any, library: Any, made: Made, inputs: Mapping[str, npt.NDArray[Any]]
) -> dict[str, npt.NDArray[Any]]:
    card = read_card(made.folder)
    tensors = []
    for spec in card.inputs:
        tensor = library.InferInput(spec.name, list(inputs[spec.name].shape), spec.datatype)
        tensor.set_data_from_numpy(inputs[spec.name])
        tensors.append(tensor)
    result = client.infer(card.name, tensors)
    return {spec.name: result.as_numpy(spec.name) for spec in card.all_outputs()}


@pytest.mark.parametrize("ask", [by_http, by_grpc], ids=["http", "grpc"])
@pytest.mark.parametrize(("model_format", "kind"), MATRIX, ids=lambda part: part)
def test_the_answer_is_that_of_the_framework(asked: Asked, model_format: str, kind: str, ask: Any) -> None:
    made = asked.models[model_format, kind]
    card = read_card(made.folder)
    items = 1 if kind == "several" and model_format == "state-dict" else 3
    inputs = made.inputs(items)

    given = ask(asked.daemon, made, inputs)

    expected = made.expected(inputs)
    for spec in card.outputs:
        assert given[spec.name].dtype == NUMPY_DTYPES[spec.datatype]
        np.testing.assert_allclose(given[spec.name], expected[spec.name], rtol=card.tolerance, atol=card.tolerance)
        if spec.ragged:
            assert given[spec.rows_name].tolist() == expected[spec.rows_name].tolist()
    if card.has_pictures:
        assert given["item_error"].tolist() == [b""] * items


def test_daemon_and_backend_agree_on_what_the_models_are(asked: Asked) -> None:
    for made in asked.models.values():
        by_http(asked.daemon, made, made.inputs(1))
    status = requests.get(f"{asked.daemon.url}/v1/status", timeout=30).json()
    for made in asked.models.values():
        row = status["models"][made.folder.name]
        assert row["places"], row
        assert {row["identity"], *row["places"].values()} == {read_card(made.folder).identity()}
        assert row["agree"] is True
