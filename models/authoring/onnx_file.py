"""A draft from an ONNX file: inputs and outputs as ONNX Runtime reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.authoring.draft import AuthoringError, Draft
from models.card import ROWS_SUFFIX, TensorSpec
from models.onnx_external import external_files_of
from models.runtime import NUMPY_DTYPES

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    **{f"tensor({kind}int{bits})": f"{kind.upper()}INT{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)},
}


def from_onnx(path: Path) -> Draft:
    """Returns the draft of an ONNX file.

    Raises:
        AuthoringError: ONNX Runtime is missing, the file cannot be read, or it has no input or output of tensors.
    """
    try:
        import onnxruntime
    except ImportError:
        raise AuthoringError("onnxruntime is missing: pip install 'edgeburst[onnx]'") from None
    files = files_of(path)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its errors have no common class below Exception
        reason = str(error).strip().splitlines()[0][:300]
        raise AuthoringError(f"{path} cannot be read as ONNX: {reason}") from None
    draft = Draft("onnx", files=files, file=path.name)
    draft.inputs = _specs(session.get_inputs(), draft, "input")
    draft.outputs = _with_ragged(session, draft, _specs(session.get_outputs(), draft, "output"))
    if not draft.inputs or not draft.outputs:
        raise AuthoringError(
            f"{path} has no {'output' if draft.inputs else 'input'} that is a tensor with a batch axis"
        )
    _fixed_batch(session.get_inputs(), draft)
    return draft


def files_of(path: Path) -> dict[str, Path]:
    """Returns an ONNX file and those with its weights, by their names in the model's folder.

    Raises:
        AuthoringError: one of them is not in the file's folder, or not there.
    """
    found = {path.name: path}
    for name in external_files_of(path):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise AuthoringError(f"{path} has weights in {name!r}, outside its folder: save it with them beside it")
        if not (path.parent / name).is_file():
            raise AuthoringError(f"{path} has weights in {name!r}, which is not beside it: copy it there")
        found[name] = path.parent / name
    return found


def _specs(nodes: Sequence[Any], draft: Draft, kind: str) -> tuple[TensorSpec, ...]:
    specs = []
    for node in nodes:
        datatype = _DATATYPES.get(node.type)
        if datatype is None:
            hint = "; skl2onnx: options={'zipmap': False}" if "map" in node.type else ""
            draft.notes.append(f"{kind} {node.name!r} is left out: it is a {node.type}, not a tensor{hint}")
        elif not node.shape:
            draft.notes.append(f"{kind} {node.name!r} is left out: it has no batch axis")
        else:
            shape = tuple(map(_length, node.shape[1:]))
            specs.append(TensorSpec(node.name, datatype, shape))
    return tuple(specs)


def _with_ragged(session: Any, draft: Draft, outputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Returns the outputs, those marked whose rows are not the items, as of detectors; what counts them is left out."""
    given, gives = session.get_inputs(), {node.name: node for node in session.get_outputs()}
    batch = {node.shape[0] for node in given if node.shape}
    doubtful = [spec for spec in outputs if gives[spec.name].shape[0] not in batch]
    if not doubtful or len(batch) != 1:
        return outputs
    items = next(iter(batch)) if isinstance(next(iter(batch)), int) else 3
    rows = _rows(session, items)
    ragged = {spec.name for spec in doubtful if rows.get(spec.name, items) != items}
    if not ragged:
        return outputs
    counts = {name + ROWS_SUFFIX for name in ragged} & {spec.name for spec in outputs if not spec.shape}
    names = ", ".join(sorted(ragged))
    draft.notes.append(f"{names}: the rows are not the items, so they are ragged, as detections are")
    if not counts:
        draft.notes.append(
            "the file does not count the rows of each item, so items run one after the other; an output"
            f" {min(ragged)}{ROWS_SUFFIX} (INT64, one number for each item) would let them run together"
        )
    return tuple(replace(spec, ragged=spec.name in ragged) for spec in outputs if spec.name not in counts)


def _rows(session: Any, items: int) -> dict[str, int]:
    """Returns how many rows each output has for a batch of made-up items; empty where the network fails on them."""
    specs = [
        TensorSpec(node.name, _DATATYPES.get(node.type, ""), tuple(_length(length) for length in node.shape[1:]))
        for node in session.get_inputs()
    ]
    if any(spec.datatype in ("", "BYTES") for spec in specs):
        return {}
    made = {
        spec.name: np.zeros(
            (items, *(8 if length == -1 else length for length in spec.shape)), NUMPY_DTYPES[spec.datatype]
        )
        for spec in specs
    }
    try:
        values = session.run(None, made)
    except Exception:  # noqa: BLE001 - made-up items are not everything to every network
        return {}
    named = zip(session.get_outputs(), values, strict=True)
    return {node.name: len(value) for node, value in named if getattr(value, "ndim", 0)}


def _length(length: object) -> int:
    return length if isinstance(length, int) and length > 0 else -1


def _fixed_batch(nodes: Sequence[Any], draft: Draft) -> None:
    fixed = [node.shape[0] for node in nodes if node.shape and isinstance(node.shape[0], int)]
    if fixed:
        draft.max_batch = max(1, min(fixed))
        draft.notes.append(
            f"the file takes batches of {draft.max_batch} only: export it with a batch axis of any length, for batching"
            " is what saves money"
        )
