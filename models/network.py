"""Loads networks with verified weights, and predicts."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from models.architectures import BUILDERS
from models.catalogue import ModelSpec, spec
from models.errors import ModelError
from models.preprocess import Image, NetworkInput, digit_input, imagenet_input

SHIPPED = Path(__file__).parent / "weights"
# Fixed, so that two hosts with random weights give the same answers.
_RANDOM_WEIGHTS_SEED = 0
_PREPROCESS: dict[str, Callable[[Image], NetworkInput]] = {"digits": digit_input}

WeightsOrigin = Literal["shipped", "file", "random"]


class WeightsError(ModelError):
    """Error: weights are missing, are not the expected ones, or do not fit the network."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Network with its weights, ready to predict.

    Attributes:
        spec: inputs and outputs.
        weights: origin of the weights.
        weights_sha256: hash of the weights' file; empty if they are random.
        device: torch's name of the device that holds the network.
        network: the network in evaluation mode.
    """

    spec: ModelSpec
    weights: WeightsOrigin
    weights_sha256: str
    device: str
    network: nn.Module

    def preprocess(self, image: Image) -> NetworkInput:
        """Returns the network's input for one decoded picture.

        Args:
            image: height x width x 3, uint8, blue-green-red.

        Returns:
            Array of shape channels x height x width, float32. Any thread may call this method.
        """
        return _PREPROCESS.get(self.spec.name, imagenet_input)(image)

    def predict(self, batch: NetworkInput) -> NetworkInput:
        """Returns the probabilities of each item; except for rounding, they do not depend on the other items.

        Args:
            batch: items x channels x height x width.

        Returns:
            Array of shape items x classes, float32; each row sums to 1.
        """
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(batch).to(self.device))
            probabilities = torch.softmax(logits, dim=1).cpu().numpy()
        return np.asarray(probabilities, dtype=np.float32)


def load(
    name: str,
    *,
    weights: Path | None = None,
    weights_sha256: str | None = None,
    random_weights: bool = False,
    device: str = "cpu",
) -> LoadedModel:
    """Loads a model.

    Args:
        name: a name in the catalogue.
        weights: a file with a state dictionary written by torch.save; None for the shipped one.
        weights_sha256: the file's SHA-256 in hexadecimal; required with `weights`.
        random_weights: whether to use random weights, the same on every host, instead of trained ones.
        device: torch's name of the device, for instance "cpu" or "cuda".

    Raises:
        UnknownModel: the catalogue has no such model.
        WeightsError: there are no weights, their hash differs, or they do not fit the network.
        ModelError: there is no such device.
    """
    model_spec = spec(name)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} is not usable here, torch finds no CUDA: choose 'cpu'")
    if random_weights:
        _refuse_file_beside_random(name, weights)
        return LoadedModel(model_spec, "random", "", device, _ready(_randomly_initialised(name), device))
    origin, content, found_sha256 = _trained_weights(name, weights, weights_sha256)
    network = BUILDERS[name]()
    _fill(network, content, f"the weights of {name} ({weights or 'shipped'})")
    return LoadedModel(model_spec, origin, found_sha256, device, _ready(network, device))


def _refuse_file_beside_random(name: str, weights: Path | None) -> None:
    if weights is not None:
        raise WeightsError(f"model {name} is given both a weights file and random weights: choose one")


def _randomly_initialised(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_WEIGHTS_SEED)
        return BUILDERS[name]()


def _ready(network: nn.Module, device: str) -> nn.Module:
    return network.eval().requires_grad_(False).to(device)


def _trained_weights(name: str, weights: Path | None, expected: str | None) -> tuple[WeightsOrigin, bytes, str]:
    if weights is not None:
        if expected is None:
            raise WeightsError(f"weights file {weights} comes without its SHA-256: give it, `sha256sum` prints it")
        return "file", *_checked(weights, expected)
    shipped = SHIPPED / f"{name}.pt"
    if not shipped.exists():
        raise WeightsError(
            f"model {name} ships without weights: name a weights file and its SHA-256, or ask for random weights"
        )
    return "shipped", *_checked(shipped, shipped_sha256(name))


def shipped_sha256(name: str) -> str:
    """Returns the SHA-256 of a shipped weights file, from the file beside it in the format of sha256sum."""
    return (SHIPPED / f"{name}.sha256").read_text(encoding="ascii").split()[0]


def _checked(path: Path, expected_sha256: str) -> tuple[bytes, str]:
    """Returns the content of a file and its hash; read only once, since the file may change between two reads.

    Raises:
        WeightsError: the file cannot be read, or its hash is not the expected one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read ({error.strerror}): name one that exists") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected_sha256.strip().lower():
        raise WeightsError(
            f"weights file {path} has SHA-256 {found}, not {expected_sha256}: fetch it again or correct the hash"
        )
    return content, found


def _fill(network: nn.Module, content: bytes, whose: str) -> None:
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise WeightsError(f"{whose} do not fit the network: give a state dictionary of it (torch.save)") from error
