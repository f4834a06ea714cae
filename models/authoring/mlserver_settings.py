"""A draft from MLServer's model-settings.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.authoring.draft import AuthoringError, Draft
from models.card import TensorSpec
from models.card_reader import DATATYPES
from models.errors import ModelError, last_line

SETTINGS = "model-settings.json"
_SKLEARN = "mlserver_sklearn.SKLearnModel"
_CARRIED = {"name", "implementation", "inputs", "outputs", "parameters", "max_batch_size"}
_WITHOUT_MEANING = {"max_batch_time": "the daemon decides how long a batch waits"}

_HANDLER = '''\
"""Serves a model of scikit-learn; written by `edgeburst-model new` from MLServer's settings."""

from pathlib import Path

import joblib
import numpy as np


class Model:
    """The estimator in {file}."""

    def load(self, device):
        """Loads the file, which is a pickle: only from a source that you trust."""
        self.estimator = joblib.load(Path(__file__).parent / {file!r})

    def predict(self, inputs):
        """Returns {outputs} for the one input, items x features."""
        (features,) = inputs.values()
        return {{
{answers}
        }}
'''


def from_mlserver(path: Path) -> Draft:
    """Returns the draft of MLServer's settings of a model of scikit-learn.

    Raises:
        AuthoringError: the settings cannot be read, or the model needs a runtime that only MLServer has.
    """
    settings = _settings(path)
    try:
        return _drafted(path, settings)
    except ModelError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AuthoringError(
            f"{path} has a value of another kind than MLServer's settings have ({last_line(error)}): correct it"
        ) from None


def _drafted(path: Path, settings: dict[str, Any]) -> Draft:
    implementation = str(settings.get("implementation", ""))
    if implementation != _SKLEARN:
        raise AuthoringError(
            f"{implementation or 'a model without `implementation`'} runs in MLServer only: serve it there, and name"
            " MLServer as the edge ([edge] url), or write a handler (format python, models/README.md)"
        )
    parameters = settings.get("parameters") or {}
    file = path.parent / str(parameters.get("uri") or "model.joblib")
    if file.is_dir():
        file = next(
            (file / name for name in ("model.joblib", "model.pickle", "model.pkl") if (file / name).exists()), file
        )
    if not file.is_file():
        raise AuthoringError(f"{file} is not there, which {path} names as the model: copy it here")
    draft = Draft("python", handler="handler.py:Model", name=str(settings.get("name") or ""))
    draft.inputs = tuple(_tensor(entry) for entry in settings.get("inputs") or [])
    draft.outputs = tuple(_tensor(entry) for entry in settings.get("outputs") or [])
    if len(draft.inputs) != 1:
        raise AuthoringError(
            f"{path} describes {len(draft.inputs)} inputs, a model of scikit-learn has one: add"
            ' "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, N]}]'
        )
    if not draft.outputs:
        draft.outputs = (TensorSpec("predict", "INT64"),)
        draft.notes.append("the settings name no outputs: the card has `predict`, INT64; correct it for a regression")
    draft.files = {file.name: file}
    draft.max_batch = settings.get("max_batch_size") or None
    draft.notes.append(
        "the folder needs a requirements.txt with scikit-learn and joblib, in the release that made the file"
    )
    for key in settings:
        if key not in _CARRIED and settings[key] not in (None, {}, []):
            draft.notes.append(
                f"`{key}` is not carried over: {_WITHOUT_MEANING.get(key, 'a card has nothing like it')}"
            )
    return draft


def handler_text(draft: Draft) -> str:
    """Returns the handler's source for a draft of `from_mlserver`."""
    answers = "\n".join(
        f"            {spec.name!r}: np.asarray(self.estimator.{_method(spec.name)}(features)),"
        for spec in draft.outputs
    )
    outputs = ", ".join(spec.name for spec in draft.outputs)
    return _HANDLER.format(file=next(iter(draft.files)), outputs=outputs, answers=answers)


def _method(output: str) -> str:
    # MLServer asks for the estimator's methods by the names of the outputs.
    return output if output in ("predict", "predict_proba", "transform") else "predict"


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise AuthoringError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(settings, dict):
        raise AuthoringError(f"{path} must hold a JSON object")
    return settings


def _tensor(entry: Any) -> TensorSpec:
    shape = [int(length) for length in entry.get("shape") or []]
    if entry["datatype"] not in (*DATATYPES, "BYTES"):
        raise AuthoringError(f"tensor {entry['name']!r} has datatype {entry['datatype']!r}: correct it")
    # The first axis is the batch's.
    return TensorSpec(
        str(entry["name"]), str(entry["datatype"]), tuple(length if length > 0 else -1 for length in shape[1:])
    )
