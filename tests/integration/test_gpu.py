"""What only a GPU can show. `.venv/bin/python -m pytest -rs tests/integration/test_gpu.py` runs it; skipped without."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.edge_process import STOP_LIMIT_S, running
from support.model_folders import make

from models.card_reader import read_card
from models.errors import OutOfDeviceMemory
from models.loading import load
from models.prepared import prepared_rehearsal
from models.runtime_names import RUNTIMES

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name.startswith("torch")])
def test_each_runtime_of_torch_agrees_with_the_cpu(tmp_path: Path, name: str) -> None:
    card = read_card(make(tmp_path, "state-dict", "picture").folder)
    batch = prepared_rehearsal(card, 5)
    wanted = load(card, device="cpu", runtime="torch").answer(batch, errors=[""] * 5)
    found = load(card, device="cuda", runtime=name).answer(batch, errors=[""] * 5)
    for spec in card.outputs:
        assert np.abs(found[spec.name] - wanted[spec.name]).max() < card.tolerance


@pytest.mark.parametrize("model_format", ["torchscript", "torch-export", "state-dict"])
def test_the_fastest_is_chosen_among_all_and_runs_there(tmp_path: Path, model_format: str) -> None:
    made = make(tmp_path, model_format, "picture")
    model = load(read_card(made.folder), device="cuda", measure_s=10.0)
    assert model.runtime.device == "cuda"
    assert sum(isinstance(outcome, float) for outcome in model.runtime.tried.values()) >= 3
    assert not any("CUDA error" in str(outcome) for outcome in model.runtime.tried.values())


def test_onnx_runtime_uses_the_gpu(tmp_path: Path) -> None:
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    model = load(read_card(make(tmp_path, "onnx", "picture").folder), device="cuda")
    assert (model.runtime.name, model.runtime.device) == ("onnxruntime", "cuda")
    assert model.answer(prepared_rehearsal(model.card, 3), errors=[""] * 3)["probabilities"].shape[0] == 3


class Hungry(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Needs a gigabyte an item, and asserts on the device that no number is above 9."""

    def forward(self, x: Any) -> Any:
        """Looks numbers up, with room for far more of them."""
        room = torch.zeros((x.shape[0], 2**28), device=x.device)
        table = torch.arange(10, device=x.device, dtype=torch.float32)
        return table[x.long()].sum(1, keepdim=True) + room[:, :1]


def hungry(folder: Path) -> Path:
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Hungry()), str(folder / "net.pt"))
    (folder / "model.toml").write_text(
        'format = "torchscript"\nfile = "net.pt"\nmax_batch = 2\n'
        'inputs = [{ name = "x", datatype = "INT64", shape = [3] }]\n'
        'outputs = [{ name = "y", datatype = "FP32", shape = [1] }]\n'
    )
    return folder


def test_a_batch_without_room_is_told_so_and_the_next_one_is_served(tmp_path: Path) -> None:
    model = load(read_card(hungry(tmp_path / "hungry")), device="cuda", runtime="torch")
    free_items = torch.cuda.mem_get_info()[1] // 2**30 + 1
    with pytest.raises(OutOfDeviceMemory):
        model.answer({"x": np.zeros((free_items, 3), np.int64)}, errors=[""] * free_items)
    assert model.answer({"x": np.ones((1, 3), np.int64)}, errors=[""])["y"].tolist() == [[3.0]]


def test_a_lost_gpu_ends_the_server_with_status_1(tmp_path: Path) -> None:
    with running("--model", str(hungry(tmp_path / "hungry")), "--device", "cuda", "--runtime", "torch") as server:

        def asked(number: int) -> int:
            tensor = {"name": "x", "datatype": "INT64", "shape": [1, 3], "data": [number, 0, 0]}
            body = json.dumps({"inputs": [tensor]}).encode()
            try:
                with urllib.request.urlopen(f"{server.url}/v2/models/hungry/infer", body, timeout=60) as response:
                    return int(response.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert asked(9) == 200
        assert asked(10) == 503
        assert server.process.wait(timeout=STOP_LIMIT_S) == 1


def test_a_share_by_mps_is_what_the_process_gets(tmp_path: Path) -> None:
    listed = subprocess.run(["pgrep", "-f", "nvidia-cuda-mps-control"], capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("MPS's control daemon does not run: nvidia-cuda-mps-control -d")
    folder = str(make(tmp_path, "state-dict", "picture").folder)
    with running("--model", folder, "--mps-percentage", "30") as server:
        name = next(iter(server.ready["models"]))  # type: ignore[call-overload]
        with urllib.request.urlopen(f"{server.url}/v2/models/{name}", timeout=60) as response:
            share = json.load(response)["parameters"]["mps"]
    whole = torch.cuda.get_device_properties(0).multi_processor_count
    assert 0 < share["multiprocessors"] <= 0.4 * whole
