"""A draft from a model of a Triton model repository: NAME/config.pbtxt and NAME/VERSION/model.*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.authoring.draft import AuthoringError, Draft
from models.authoring.onnx_file import files_of
from models.authoring.text_format import Message, parse_text_format
from models.card import Format, TensorSpec
from models.card_reader import DATATYPES
from models.errors import ModelError, last_line

CONFIG = "config.pbtxt"
_FORMATS: dict[str, tuple[Format, str]] = {
    "onnxruntime": ("onnx", "model.onnx"),
    "onnxruntime_onnx": ("onnx", "model.onnx"),
    "pytorch": ("torchscript", "model.pt"),
    "pytorch_libtorch": ("torchscript", "model.pt"),
}
_CARRIED = {"name", "platform", "backend", "max_batch_size", "input", "output", "default_model_filename"}
_WITHOUT_MEANING = {
    # Batching is what the daemon does; a folder has one version.
    "dynamic_batching": "the daemon decides which requests share a batch",
    "version_policy": "a folder holds one version",
    "instance_group": "the edge server runs one batch at a time on its device",
    "model_warmup": "the server warms up every batch size itself",
}


def from_triton(folder: Path) -> Draft:
    """Returns the draft of one model of a repository.

    Args:
        folder: the model's folder, which holds config.pbtxt.

    Raises:
        AuthoringError: the configuration cannot be read, or the model needs a backend that only Triton has.
    """
    try:
        return _drafted(folder)
    except ModelError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AuthoringError(
            f"{folder / CONFIG} is no configuration of a model, a field has a value of another kind"
            f" ({last_line(error)}): correct it"
        ) from None


def _drafted(folder: Path) -> Draft:
    config = _config(folder)
    backend = str(_one(config, "backend", "") or _one(config, "platform", ""))
    version = _version(folder)
    if backend not in _FORMATS:
        backend = _by_file(version, backend)
    card_format, usual = _FORMATS[backend]
    name = str(_one(config, "default_model_filename", usual))
    if not (version / name).exists():
        raise AuthoringError(f"{version} holds no {name}, which {CONFIG} says it does: copy the whole model here")
    files = files_of(version / name) if card_format == "onnx" else {name: version / name}
    draft = Draft(card_format, files=files, file=name)
    # Triton's name of a model is that of its folder.
    draft.name = str(_one(config, "name", folder.resolve().name))
    batched = int(_one(config, "max_batch_size", 0))
    draft.max_batch = max(1, batched)
    draft.inputs = tuple(_tensor(entry, draft, batched=batched > 0) for entry in config.get("input", []))
    draft.outputs = tuple(_tensor(entry, draft, batched=batched > 0) for entry in config.get("output", []))
    if not draft.inputs or not draft.outputs:
        raise AuthoringError(
            f"{folder / CONFIG} has no `{'output' if draft.inputs else 'input'}`: Triton can fill it in by itself, a"
            f" card needs it; try --from {version / name}"
        )
    _labels(folder, config, draft)
    for key in config:
        if key not in _CARRIED:
            reason = _WITHOUT_MEANING.get(key, "a card has nothing like it")
            draft.notes.append(f"`{key}` of {CONFIG} is not carried over: {reason}")
    return draft


def _config(folder: Path) -> Message:
    path = folder / CONFIG
    try:
        return parse_text_format(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise AuthoringError(f"{path} cannot be read: {error}") from None
    except AuthoringError as error:
        raise AuthoringError(f"{path}, {error}") from None


def _version(folder: Path) -> Path:
    """Returns the folder of the highest version, which Triton serves by default."""
    versions = [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]
    if not versions:
        raise AuthoringError(f"{folder} holds no version, a folder like 1: copy the whole model here")
    return max(versions, key=lambda path: int(path.name))


def _by_file(version: Path, backend: str) -> str:
    """Returns the backend that the version's file needs, for a configuration that leaves it out."""
    for known, (_, usual) in _FORMATS.items():
        if not backend and (version / usual).exists():
            return known
    what = f"backend {backend!r}" if backend else f"the model in {version}"
    raise AuthoringError(
        f"{what} can be served by Triton only: serve it there, and name Triton as the edge ([edge] url), or in a"
        " function by `edgeburst-function --forward`"
    )


def _tensor(entry: Any, draft: Draft, *, batched: bool) -> TensorSpec:
    name, kind = str(_one(entry, "name", "")), str(_one(entry, "data_type", ""))
    datatype = {"TYPE_STRING": "BYTES"}.get(kind, kind.removeprefix("TYPE_"))
    if datatype == "BF16":
        raise AuthoringError(f"tensor {name!r} is BF16, which the Open Inference Protocol here has not: use FP32")
    dims = tuple(int(length) for length in entry.get("dims", []))
    if "reshape" in entry:
        reshaped = tuple(int(length) for length in entry["reshape"][0].get("shape", []))
        draft.notes.append(f"`reshape` of {name!r} is applied: clients send the network's own shape, {list(reshaped)}")
        dims = reshaped
    if not batched:
        # Without batching Triton's dims are the whole shape. A first axis that is open can only be the batch.
        if dims[:1] == (-1,):
            draft.notes.append(f"max_batch_size is 0, so the first axis of {name!r} is taken as the batch")
            draft.max_batch = None
        elif dims[:1] != (1,):
            raise AuthoringError(
                f"max_batch_size is 0 and {name!r} has the fixed shape {list(dims)}: export the network with a batch"
                " axis"
            )
        dims = dims[1:]
    if datatype not in (*DATATYPES, "BYTES"):
        raise AuthoringError(f"tensor {name!r} has data_type {kind or 'missing'}: correct it")
    return TensorSpec(name, datatype, dims)


def _labels(folder: Path, config: Message, draft: Draft) -> None:
    named = [str(_one(entry, "label_filename", "")) for entry in config.get("output", [])]
    for index, name in enumerate(named):
        if name and index == 0 and (folder / name).exists():
            draft.labels = name
            draft.files[name] = folder / name
        elif name:
            draft.notes.append(f"the labels {name!r} are not carried over: a card has those of the first output")


def _one(message: Message, key: str, default: Any) -> Any:
    return message[key][-1] if message.get(key) else default
