"""Every format of model with every kind of tensors: a batch answers as each item alone, and as the framework itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.model_answers import answer, assert_same
from support.model_folders import FORMATS, KINDS, Arrays, Made, make

from models.authoring.command import main
from models.card_reader import read_card
from models.loading import load

ITEMS = 3


def joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(
    scope="module", params=[(model_format, kind) for model_format in FORMATS for kind in KINDS], ids="-".join
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("models"), *request.param)


def test_a_batch_answers_as_the_framework_and_as_each_item_alone(made: Made) -> None:
    model = load(read_card(made.folder), device="cpu")
    inputs = made.inputs(ITEMS)

    together = answer(model, inputs)
    alone = [answer(model, {name: array[at : at + 1] for name, array in inputs.items()}) for at in range(ITEMS)]

    assert_same(together, made.expected(inputs))
    assert_same(joined(alone), together)
    assert model.runtime.device == "cpu"
    assert model.identity is not None


def test_weights_as_safetensors_fill_a_network_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    safetensors = pytest.importorskip("safetensors.torch")
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=3).eval()
    (folder := tmp_path / "mine").mkdir()
    safetensors.save_file(network.state_dict(), folder / "weights.safetensors")
    arguments = ["--architecture", "timm:test_resnet", "--argument", "num_classes=3", "--input", "x=FP32[3,64,64]"]
    assert main(["new", str(folder), "--from", str(folder / "weights.safetensors"), *arguments]) == 0
    batch = np.random.default_rng(0).random((ITEMS, 3, 64, 64), np.float32)

    together = answer(load(read_card(folder), device="cpu"), {"x": batch})

    with torch.inference_mode():
        assert_same(together, {"output": network(torch.from_numpy(batch)).numpy()})


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("mine:x", "write torchvision:NAME or timm:NAME"),
        ("torchvision:", "write torchvision:NAME or timm:NAME"),
        ("torchvision:nosuch", "torchvision has no architecture 'nosuch'"),
        # Its backbone's weights must not be fetched.
        ("torchvision:fasterrcnn_mobilenet_v3_large_fpn", "w.pth does not fit"),
    ],
)
def test_an_architecture_that_no_card_can_be_written_for_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], architecture: str, sentence: str
) -> None:
    import torch

    torch.save({}, tmp_path / "w.pth")
    arguments = ["--architecture", architecture, "--input", "x=FP32[3,64,64]"]
    assert main(["new", str(tmp_path / "mine"), "--from", str(tmp_path / "w.pth"), *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
