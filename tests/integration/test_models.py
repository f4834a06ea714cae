"""The networks: right on digits they never saw, the same alone and in a batch, and honest about their weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models import digits_data
from models.catalogue import UnknownModel
from models.digits_pictures import encode
from models.errors import ModelError
from models.images import decode_image
from models.network import SHIPPED, LoadedModel, WeightsError, load
from models.preprocess import Pictures, normalise
from models.preprocess_settings import DIGITS


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> LoadedModel:
    return load("digits")


@pytest.fixture(scope="module")
def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the network's inputs of all held-out digits by encoding, and the true digits."""
    model = load("digits")
    images, labels = digits_data.held_out()
    inputs = {
        kind: np.stack([model.preprocess(decode_image(encode(image, kind, n))) for n, image in enumerate(images)])
        for kind in ("jpeg", "png")
    }
    return inputs, labels


def saved(state: object, path: Path) -> str:
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_pictures_decoded_at_a_reduced_scale_get_the_same_answers(
    digits: LoadedModel, held_out: tuple[dict[str, np.ndarray], np.ndarray], kind: str
) -> None:
    images, _ = digits_data.held_out()
    pictures = Pictures(DIGITS)
    prepared = np.stack([pictures.prepare(encode(image, kind, n)) for n, image in enumerate(images)])

    reduced, whole = digits.predict(normalise(prepared, DIGITS)), digits.predict(held_out[0][kind])

    assert np.array_equal(reduced.argmax(axis=1), whole.argmax(axis=1))
    assert np.abs(reduced - whole).max() < (0.02 if kind == "jpeg" else 1e-6)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_digits_not_used_in_training_are_read(
    digits: LoadedModel, held_out: tuple[dict[str, np.ndarray], np.ndarray], kind: str
) -> None:
    inputs, labels = held_out

    assert (digits.predict(inputs[kind]).argmax(axis=1) == labels).mean() >= 0.985


def test_each_digit_gets_the_same_answer_alone_as_in_a_batch(
    digits: LoadedModel, held_out: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    inputs = held_out[0]["png"][:64]
    alone = np.concatenate([digits.predict(inputs[n : n + 1]) for n in range(len(inputs))])

    for size in (2, 5, 20, 64):
        together = np.concatenate([digits.predict(part) for part in np.array_split(inputs, len(inputs) // size)])
        assert np.abs(together - alone).max() < 1e-5


def test_answers_are_probabilities(digits: LoadedModel, held_out: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    answer = digits.predict(held_out[0]["jpeg"][:20])

    assert (answer.dtype, answer.shape) == (np.float32, (20, *digits.spec.outputs[0].shape))
    assert answer.min() >= 0
    assert answer.sum(axis=1) == pytest.approx(1, abs=1e-5)


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


def test_shipped_weights_are_small_and_say_what_they_are(digits: LoadedModel) -> None:
    content = (SHIPPED / "digits.pt").read_bytes()

    assert len(content) < 1_000_000
    assert digits.weights == "shipped"
    assert digits.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_the_same_weights_from_a_file_give_the_same_answers(
    tmp_path: Path, digits: LoadedModel, held_out: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    path = tmp_path / "mine.pt"
    sha256 = saved(digits.network.state_dict(), path)
    model = load("digits", weights=path, weights_sha256=sha256.upper())
    inputs = held_out[0]["png"][:8]

    assert (model.weights, model.weights_sha256) == ("file", sha256)
    assert np.array_equal(model.predict(inputs), digits.predict(inputs))


def test_a_wrong_hash_is_refused_and_the_found_one_told(tmp_path: Path, digits: LoadedModel) -> None:
    sha256 = saved(digits.network.state_dict(), tmp_path / "mine.pt")

    with pytest.raises(WeightsError, match=f"mine.pt has SHA-256 {sha256}, not {'0' * 64}"):
        load("digits", weights=tmp_path / "mine.pt", weights_sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights file .*absent.pt cannot be read \(No such file"):
        load("resnet50", weights=tmp_path / "absent.pt", weights_sha256="0" * 64)


def test_a_file_without_a_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="without its SHA-256"):
        load("resnet50", weights=tmp_path / "any.pt")


@pytest.mark.parametrize(
    "state",
    [
        {"features.0.weight": torch.zeros(2)},
        [1, 2],
        torch.zeros(3),
        {"features.0.weight": "text"},
        torch.nn.Linear(2, 2),
        "text",
    ],
    ids=["other shapes", "list", "tensor", "texts", "code", "text"],
)
def test_a_file_of_something_else_is_refused_in_one_sentence(tmp_path: Path, state: object) -> None:
    sha256 = saved(state, tmp_path / "odd.pt")

    with pytest.raises(WeightsError, match="do not fit the network") as refused:
        load("digits", weights=tmp_path / "odd.pt", weights_sha256=sha256)

    assert "\n" not in str(refused.value)


def test_a_weights_file_cannot_run_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    sha256 = saved({"features.0.weight": Trap()}, tmp_path / "trap.pt")

    with pytest.raises(WeightsError, match="do not fit the network"):
        load("digits", weights=tmp_path / "trap.pt", weights_sha256=sha256)

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pt"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match="do not fit the network"):
        load("digits", weights=path, weights_sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small"])
def test_torchvision_models_come_with_random_weights_only_when_asked_and_say_so(name: str) -> None:
    with pytest.raises(WeightsError, match="ships without weights"):
        load(name)
    model = load(name, random_weights=True)
    images = np.random.default_rng(2).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    inputs = np.stack([model.preprocess(image) for image in images])
    answer = model.predict(inputs)

    assert (model.weights, model.weights_sha256) == ("random", "")
    assert answer.shape == (2, 1000)
    assert np.abs(answer[1:] - model.predict(inputs[1:])).max() < 1e-5


def test_random_weights_are_the_same_on_every_host_and_leave_the_callers_randomness_alone() -> None:
    torch.manual_seed(5)
    first = load("mobilenet_v3_small", random_weights=True).network.state_dict()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    untouched = torch.rand(1)
    second = load("mobilenet_v3_small", random_weights=True).network.state_dict()

    assert torch.equal(drawn, untouched)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_weights_of_torchvision_models_are_read_from_a_file(tmp_path: Path) -> None:
    network = load("mobilenet_v3_small", random_weights=True).network
    sha256 = saved(network.state_dict(), tmp_path / "mobile.pt")

    assert load("mobilenet_v3_small", weights=tmp_path / "mobile.pt", weights_sha256=sha256).weights == "file"


def test_a_file_and_random_weights_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="choose one"):
        load("digits", weights=tmp_path / "any.pt", random_weights=True)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownModel, match="'mobilenet_v3_small'"):
        load("mobilenet_v3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said_in_a_sentence() -> None:
    with pytest.raises(ModelError, match="no CUDA: choose 'cpu'"):
        load("digits", device="cuda")


def test_imagenet_preprocessing_takes_the_middle_in_red_green_blue() -> None:
    model = load("mobilenet_v3_small", random_weights=True)
    image = np.zeros((300, 900, 3), dtype=np.uint8)
    image[:, 300:600] = (255, 0, 0)
    inputs = model.preprocess(image)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    assert inputs.shape == (3, 224, 224)
    assert inputs.dtype == np.float32
    assert inputs[:, 112, 112] == pytest.approx((np.array([0, 0, 1]) - mean) / deviation, abs=1e-5)
    assert np.ptp(inputs, axis=(1, 2)) == pytest.approx(0, abs=1e-5)
