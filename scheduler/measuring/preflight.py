"""Checks before a measurement: whether the server answers, knows the model, and which input the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from scheduler.measuring.errors import MeasuringError

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A server's description of a model.

    Attributes:
        input_name: name of the model's only input, BYTES.
        parameters: further facts: device, largest batch, origin of the weights, emulation.
    """

    input_name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def served_model(url: str, model: str) -> ServedModel:
    """Returns a model's description from a server of the Open Inference Protocol.

    Raises:
        MeasuringError: the URL is not valid, no server answers, the model is unknown, or it does not take pictures.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise MeasuringError(f"{url!r} is not a URL; write it like http://127.0.0.1:8600")
    address = f"{url.rstrip('/')}/v2/models/{quote(model, safe='')}"
    try:
        response = requests.get(address, timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        raise MeasuringError(f"cannot reach {url} ({_reason(error)}); start the server, or correct the URL") from error
    if response.status_code != 200:
        raise MeasuringError(f"{url} does not serve the model {model!r}: {_sentence(response)}")
    return _described(response, model)


def _described(response: requests.Response, model: str) -> ServedModel:
    try:
        metadata = response.json()
        inputs = [(str(entry["name"]), str(entry["datatype"])) for entry in metadata["inputs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise MeasuringError(
            f"{response.url} does not describe the model {model!r}; name a server of the Open Inference Protocol"
        ) from error
    if [datatype for _, datatype in inputs] != ["BYTES"]:
        taken = ", ".join(f"{name} ({datatype})" for name, datatype in inputs) or "nothing"
        raise MeasuringError(f"model {model!r} takes {taken}; name a model with one input of encoded pictures (BYTES)")
    parameters = metadata.get("parameters")
    return ServedModel(inputs[0][0], parameters if isinstance(parameters, dict) else {})


def _sentence(response: requests.Response) -> str:
    try:
        return str(response.json()["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {_TIMEOUT_S:g} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__
