"""The shipped models: digits are read, answers do not depend on the batch, and wrong weights are refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from support.model_answers import answer

from models import digits_data
from models.card import CARD_FILE, file_sha256
from models.card_reader import read_card
from models.catalogue import SHIPPED, UnknownModel, card_of, shipped
from models.digits_pictures import encode
from models.errors import ModelError
from models.formats.torch_networks import network_of
from models.images import decode_image
from models.loading import load
from models.packages import MissingPackage
from models.preprocess import Pictures, fitted, normalise
from models.preprocess_settings import DIGITS, IMAGENET
from models.serving import ServedModel
from models.weights_file import WeightsError

MOBILE = shipped("mobilenet_v3_small")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> ServedModel:
    return load(shipped("digits"), device="cpu")


@pytest.fixture(scope="module")
def held_out() -> tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.int64]]:
    """Return pictures of all held-out digits by encoding, and the true digits."""
    images, labels = digits_data.held_out()
    pictures = {
        kind: np.array([encode(image, kind, n) for n, image in enumerate(images)], np.object_)
        for kind in ("jpeg", "png")
    }
    return pictures, labels


def probabilities(model: ServedModel, pictures: npt.NDArray[np.object_]) -> npt.NDArray[np.float32]:
    return answer(model, {"image": pictures})["probabilities"]


def saved(state: object, path: Path) -> str:
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mobile_state() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = network_of(MOBILE, None).state_dict()
    return state


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_pictures_decoded_at_a_reduced_scale_get_the_same_answers(digits: ServedModel, kind: str) -> None:
    images, _ = digits_data.held_out()
    encoded = [encode(image, kind, n) for n, image in enumerate(images[:150])]
    pictures = Pictures(DIGITS)

    def answered(prepared: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        return digits.answer({"image": np.stack(prepared)}, errors=[""] * len(prepared))["probabilities"]

    reduced = answered([pictures.prepare(element) for element in encoded])
    whole = answered([fitted(decode_image(element), DIGITS) for element in encoded])

    assert np.array_equal(reduced.argmax(axis=1), whole.argmax(axis=1))
    assert np.abs(reduced - whole).max() < (0.02 if kind == "jpeg" else 1e-6)


def test_whole_values_cost_no_label_and_little_of_a_probability(
    digits: ServedModel, held_out: tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.int64]]
) -> None:
    pictures = held_out[0]["png"]
    # The exact means of 8 x 8 pixels, as floats, into the file itself.
    session = onnxruntime.InferenceSession(str(SHIPPED / "digits" / "digits.onnx"), providers=["CPUExecutionProvider"])
    grey = np.stack([cv2.cvtColor(decode_image(picture), cv2.COLOR_BGR2GRAY) for picture in pictures])
    ink = 1.0 - grey.reshape(-1, 1, 28, 8, 28, 8).mean(axis=(3, 5), dtype=np.float64) / 255.0
    [logits] = session.run(None, {session.get_inputs()[0].name: ink.astype(np.float32)})
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = probabilities(digits, pictures)
    assert np.array_equal(found.argmax(axis=1), exact.argmax(axis=1))
    assert np.abs(found - exact).max() < 0.01


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_digits_not_used_in_training_are_read(
    digits: ServedModel, held_out: tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.int64]], kind: str
) -> None:
    pictures, labels = held_out

    assert (probabilities(digits, pictures[kind]).argmax(axis=1) == labels).mean() >= 0.985


def test_each_digit_gets_the_same_answer_alone_as_in_a_batch(
    digits: ServedModel, held_out: tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.int64]]
) -> None:
    pictures = held_out[0]["png"][:64]
    alone = np.concatenate([probabilities(digits, pictures[n : n + 1]) for n in range(len(pictures))])

    for size in (2, 5, 20, 64):
        parts = np.array_split(pictures, len(pictures) // size)
        together = np.concatenate([probabilities(digits, part) for part in parts])
        assert np.abs(together - alone).max() < 1e-5


def test_answers_are_probabilities(
    digits: ServedModel, held_out: tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.int64]]
) -> None:
    found = probabilities(digits, held_out[0]["jpeg"][:20])

    assert (found.dtype, found.shape) == (np.float32, (20, 10))
    assert found.min() >= 0
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_held_out_and_training_digits_divide_the_whole() -> None:
    seen, unseen = digits_data.training()[0], digits_data.held_out()[0]

    assert (len(seen), len(unseen)) == (1348, 449)
    assert not {image.tobytes() for image in seen} & {image.tobytes() for image in unseen}


@pytest.mark.parametrize(("kind", "low_bytes", "high_bytes"), [("jpeg", 5_500, 8_500), ("png", 14_000, 20_000)])
def test_pictures_have_the_size_they_claim_and_repeat_exactly(kind: str, low_bytes: int, high_bytes: int) -> None:
    images, _ = digits_data.held_out()
    pictures = [encode(image, kind, n) for n, image in enumerate(images[:20])]

    assert decode_image(pictures[0]).shape == (224, 224, 3)
    assert low_bytes < np.mean([len(picture) for picture in pictures]) < high_bytes
    assert encode(images[3], kind, 3) == pictures[3]
    assert encode(images[3], kind, 4) != pictures[3]


def test_the_shipped_file_is_small_has_no_trace_of_a_machine_and_needs_no_torch(digits: ServedModel) -> None:
    card = shipped("digits")
    content = card.path(card.file).read_bytes()

    assert len(content) < 1_000_000
    assert not re.search(rb"/(home|work|usr|root|tmp)/|site-packages|\.py", content)
    assert (digits.weights, digits.runtime.name) == ("card", "onnxruntime")


def test_a_trained_network_becomes_the_file_of_the_card(tmp_path: Path) -> None:
    from scripts.train_digits import DigitNetwork, write

    (tmp_path / "model.toml").write_bytes(shipped("digits").text)
    path = write(DigitNetwork(), tmp_path)

    model = load(card_of(str(tmp_path)), device="cpu")
    assert model.card.sha256 == {"digits.onnx": file_sha256(path)}
    assert not re.search(rb"/(home|work|usr|root|tmp)/|site-packages|\.py", path.read_bytes())
    batch = np.zeros((3, 28, 28, 1), np.uint8)
    assert model.answer({"image": batch}, errors=[""] * 3)["probabilities"].shape == (3, 10)


@pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
def test_weights_of_torchvision_models_are_read_from_a_file(tmp_path: Path, wrapped: str) -> None:
    state = mobile_state()
    sha256 = saved({wrapped: state, "epoch": 3} if wrapped else state, tmp_path / "mobile.pt")

    model = load(MOBILE, device="cpu", runtime="torch", weights=tmp_path / "mobile.pt", weights_sha256=sha256.upper())

    assert (model.weights, model.identity) == ("file", MOBILE.identity(sha256.lower()))
    pictures = np.random.default_rng(2).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    random = load(MOBILE, device="cpu", runtime="torch", random_weights=True)
    found, expected = (each.answer({"image": pictures}, errors=["", ""]) for each in (model, random))
    assert np.array_equal(found["probabilities"], expected["probabilities"])
    assert random.identity not in (None, model.identity)


def test_a_handler_takes_no_file_of_weights_in_place_of_its_own(tmp_path: Path) -> None:
    sha256 = saved({}, tmp_path / "mine.pt")
    (tmp_path / CARD_FILE).write_text(
        'name = "own"\nformat = "python"\nclass = "handler.py:Own"\n'
        'inputs = [{ name = "x", datatype = "FP32" }]\noutputs = [{ name = "x", datatype = "FP32" }]\n'
    )
    (tmp_path / "handler.py").write_text("class Own:\n    def predict(self, arrays): return arrays\n")
    with pytest.raises(WeightsError, match=r"own is a handler, which reads its own files: put mine.pt into its folder"):
        load(read_card(tmp_path), weights=tmp_path / "mine.pt", weights_sha256=sha256)


def test_a_wrong_hash_is_refused_and_the_found_one_told(tmp_path: Path) -> None:
    sha256 = saved({}, tmp_path / "mine.pt")

    with pytest.raises(WeightsError, match=f"mine.pt has SHA-256 {sha256}, not {'0' * 64}"):
        load(MOBILE, weights=tmp_path / "mine.pt", weights_sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights file .*absent.pt cannot be read \(No such file"):
        load(MOBILE, weights=tmp_path / "absent.pt", weights_sha256="0" * 64)


def test_a_file_without_a_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="without its SHA-256"):
        load(MOBILE, weights=tmp_path / "any.pt")


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"features.0.0.weight": torch.zeros(2)}, "does not fit torchvision:mobilenet_v3_small"),
        ({"features.0.0.weight": "text"}, "does not fit torchvision:mobilenet_v3_small"),
        ([1, 2], "holds a list, no state dictionary"),
        (torch.zeros(3), "holds a Tensor, no state dictionary"),
        ("text", "holds a str, no state dictionary"),
        (torch.nn.Linear(2, 2), "no state dictionary that can be read safely"),
    ],
    ids=["other shapes", "texts", "list", "tensor", "text", "code"],
)
def test_a_file_of_something_else_is_refused_in_one_sentence(tmp_path: Path, state: object, sentence: str) -> None:
    sha256 = saved(state, tmp_path / "odd.pt")

    with pytest.raises(ModelError, match=sentence) as refused:
        load(MOBILE, device="cpu", runtime="torch", weights=tmp_path / "odd.pt", weights_sha256=sha256)

    assert "\n" not in str(refused.value)


def test_a_weights_file_cannot_run_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    sha256 = saved({"features.0.0.weight": Trap()}, tmp_path / "trap.pt")

    with pytest.raises(ModelError, match="no state dictionary that can be read safely"):
        load(MOBILE, device="cpu", runtime="torch", weights=tmp_path / "trap.pt", weights_sha256=sha256)

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pt"
    path.write_bytes(content)

    with pytest.raises(ModelError, match="no state dictionary that can be read safely"):
        load(MOBILE, runtime="torch", weights=path, weights_sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small"])
def test_torchvision_models_come_with_random_weights_only_when_asked_and_say_so(name: str) -> None:
    with pytest.raises(WeightsError, match="comes without weights"):
        load(shipped(name))
    model = load(shipped(name), device="cpu", runtime="torch", random_weights=True)
    pictures = np.random.default_rng(2).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    found = model.answer({"image": pictures}, errors=["", ""])["probabilities"]
    alone = model.answer({"image": pictures[1:]}, errors=[""])["probabilities"]

    assert model.weights == "random"
    assert found.shape == (2, 1000)
    assert np.abs(found[1:] - alone).max() < 1e-5


def test_random_weights_are_the_same_on_every_host_and_leave_the_callers_randomness_alone() -> None:
    torch.manual_seed(5)
    first = mobile_state()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    untouched = torch.rand(1)
    second = mobile_state()

    assert torch.equal(drawn, untouched)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_file_and_random_weights_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="choose one"):
        load(MOBILE, weights=tmp_path / "any.pt", random_weights=True)


def test_a_model_with_weights_has_no_random_ones() -> None:
    with pytest.raises(WeightsError, match="has its own weights"):
        load(shipped("digits"), random_weights=True)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownModel, match="'mobilenet_v3_small'"):
        card_of("mobilenet_v3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["digits", "mobilenet_v3_small"])
def test_a_gpu_that_is_not_there_is_said_in_a_sentence(name: str) -> None:
    with pytest.raises(ModelError, match="no CUDA: choose 'cpu'"):
        load(shipped(name), device="cuda", random_weights=name != "digits")


def test_a_missing_package_is_said_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r"needs onnxruntime, which is not usable here .*pip install '.\[onnx\]'"):
        load(shipped("digits"), device="cpu")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage, match=r"needs torch, which is not usable here .*: pip install '.\[torch\]'"):
        load(MOBILE, device="cpu", random_weights=True)


def test_imagenet_preprocessing_takes_the_middle_in_red_green_blue() -> None:
    image = np.zeros((300, 900, 3), dtype=np.uint8)
    image[:, 300:600] = (255, 0, 0)
    inputs = normalise(fitted(image, IMAGENET)[np.newaxis], IMAGENET)[0]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    assert inputs.shape == (3, 224, 224)
    assert inputs.dtype == np.float32
    assert inputs[:, 112, 112] == pytest.approx((np.array([0, 0, 1]) - mean) / deviation, abs=1e-5)
    assert np.ptp(inputs, axis=(1, 2)) == pytest.approx(0, abs=1e-5)
