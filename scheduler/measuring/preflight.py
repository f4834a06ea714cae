"""Checks before a measurement: whether the server answers, knows the model, and which input the model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from models.card import TensorSpec
from scheduler.client_access import NO_ACCESS, ClientAccess, set_up
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.inputs import described, takes_pictures
from scheduler.wire.servers import said_of_model

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A server's description of a model.

    Attributes:
        name: its name.
        inputs: what it takes; the shapes are those of one item.
        parameters: further facts: device, largest batch, origin of the weights, emulation.
        server: the server's name of itself; empty: it gives none.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""

    @property
    def input_name(self) -> str:
        """The name of the model's only input, which takes encoded pictures.

        Raises:
            MeasuringError: it does not take them.
        """
        if not takes_pictures(self.inputs):
            raise MeasuringError(
                f"model {self.name!r} takes {described(self.inputs)};"
                " name a model with one input of encoded pictures (BYTES)"
            )
        return self.inputs[0].name


def served_model(url: str, model: str, access: ClientAccess = NO_ACCESS) -> ServedModel:
    """Returns a model's description from a server of the Open Inference Protocol, which is shown `access`.

    Raises:
        MeasuringError: the URL is not valid, no server answers, or the model is unknown.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise MeasuringError(f"{url!r} is not a URL; write it like http://127.0.0.1:8600")
    address = f"{url.rstrip('/')}/v2/models/{quote(model, safe='')}"
    with requests.Session() as session:
        set_up(session, access)

        def get(at: str) -> requests.Response:
            return session.get(at, timeout=_TIMEOUT_S, verify=access.verify)

        try:
            response = get(address)
        except requests.RequestException as error:
            sentence = f"cannot reach {url} ({_reason(error)}); start the server, or correct the URL"
            raise MeasuringError(sentence) from error
        if response.status_code != 200:
            raise MeasuringError(f"{url} does not serve the model {model!r}: {_sentence(response)}")
        server = str(_json(get, f"{url.rstrip('/')}/v2").get("name") or "")
        return _described(response, model, config=_json(get, f"{address}/config"), server=server)


def _json(get: Callable[[str], requests.Response], address: str) -> Mapping[str, Any]:
    """Returns what a server says there, an empty object where it says nothing: not every server has every path."""
    try:
        response = get(address)
        found = response.json() if response.status_code == 200 else {}
    except (requests.RequestException, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _described(response: requests.Response, model: str, *, config: Mapping[str, Any], server: str) -> ServedModel:
    try:
        metadata = response.json()
        inputs = tuple(_spec(entry) for entry in metadata["inputs"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MeasuringError(
            f"{response.url} does not describe the model {model!r}; name a server of the Open Inference Protocol"
        ) from error
    parameters = metadata.get("parameters")
    said = said_of_model(metadata, config)
    facts = {**(parameters if isinstance(parameters, dict) else {}), **said}
    return ServedModel(model, inputs, facts, server)


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    """Returns one input of the metadata, whose shape begins with the batch axis."""
    return TensorSpec(str(entry["name"]), str(entry["datatype"]), tuple(int(axis) for axis in entry["shape"][1:]))


def _sentence(response: requests.Response) -> str:
    try:
        return str(response.json()["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP status {response.status_code}"


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {_TIMEOUT_S:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS fails: check its certificate, --ca-file and --client-certificate"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__
