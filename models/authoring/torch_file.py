"""Drafts from torch's files, by running them on made-up inputs: TorchScript, exported programs, state dictionaries."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import hints
from models.authoring.draft import AuthoringError, Draft
from models.card import Card, TensorSpec
from models.errors import ModelError
from models.formats.fixed_batch import fixed_batch_of, module_of
from models.formats.torch_networks import network_of

_DATATYPE_OF = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "uint8": "UINT8",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
}
_PICTURE = TensorSpec("image", "FP32", (3, 224, 224))
_SIZES = (4, 8, 16, 32)
"""Batches that networks are traced with, beside one of 1."""


def kind_of(path: Path) -> str:
    """Returns "torchscript", "torch-export" or "state-dict", by what the file contains.

    Raises:
        AuthoringError: it is none of them.
    """
    if path.suffix == ".safetensors":
        return "state-dict"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        raise AuthoringError(
            f"{path} is no file of torch (torch.jit.save, torch.export.save or torch.save): check the file"
        ) from None
    if any(name.startswith(("models/model.json", "serialized_exported_program")) for name in names):
        return "torch-export"
    if any(name.startswith("code/") or name == "constants.pkl" for name in names):
        return "torchscript"
    return "state-dict"


def from_torchscript(path: Path, inputs: Sequence[TensorSpec]) -> Draft:
    """Returns the draft of a TorchScript file; it does not say its inputs' types and shapes, so they are given.

    Raises:
        AuthoringError: torch is missing, no inputs are given, or the network fails on them.
    """
    torch = _torch()
    if not inputs:
        raise AuthoringError("TorchScript does not say what it takes: add for instance --input 'image=FP32[3,224,224]'")
    try:
        with hints.kept_back():
            network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, OSError) as error:
        raise AuthoringError(f"{path} cannot be loaded as TorchScript: {_reason(error)}") from None
    outputs, fixed = _traced(network, inputs)
    draft = Draft("torchscript", tuple(inputs), outputs, files={path.name: path}, file=path.name)
    if fixed is not None:
        draft.max_batch = fixed
        draft.notes.append(
            "the network runs on batches of 1 only: trace it with a batch of 2, without shapes as numbers as in"
            " view(1, -1), for batching is what saves money"
        )
    return draft


def from_export(path: Path) -> Draft:
    """Returns the draft of a program by `torch.export.save`, which knows names, types and shapes.

    Raises:
        AuthoringError: torch is missing, or the file cannot be loaded.
    """
    torch = _torch()
    try:
        with hints.kept_back():
            program = torch.export.load(str(path))
    except Exception as error:  # noqa: BLE001 - what loading raises depends on torch's release
        raise AuthoringError(f"{path} cannot be loaded by torch.export: {_reason(error)}") from None
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    inputs = tuple(_spec_of(name, values[name]) for name in program.graph_signature.user_inputs if name in values)
    outputs, _ = _traced(module_of(program), inputs)
    draft = Draft("torch-export", inputs, outputs, files={path.name: path}, file=path.name)
    if (fixed := fixed_batch_of(program)) is not None:
        draft.max_batch = fixed
        draft.notes.append(
            f"the program takes batches of {draft.max_batch} only: export it with a dynamic first axis"
            " (dynamic_shapes), for batching is what saves money"
        )
    return draft


def from_state_dict(
    path: Path, *, architecture: str, arguments: Mapping[str, Any], inputs: Sequence[TensorSpec]
) -> Draft:
    """Returns the draft of a state dictionary of a network of torchvision or timm.

    Raises:
        AuthoringError: torch is missing, or no architecture is given.
        ModelError: its library is missing, or it cannot be built.
    """
    _torch()
    if not architecture:
        raise AuthoringError(
            f"{path} holds weights only: name the network, for instance --architecture torchvision:resnet18"
            " --argument num_classes=12, or save it whole by torch.export.save"
        )
    library, _, name = architecture.partition(":")
    if library not in ("torchvision", "timm") or not name:
        raise AuthoringError(f"--architecture is {architecture!r}: write torchvision:NAME or timm:NAME")
    taken = tuple(inputs) or (_PICTURE,)
    # Built as hosts build it, so that weights which do not fit are refused now.
    card = Card(path.stem, path.parent, "state-dict", taken, (), architecture=architecture, arguments=arguments)
    try:
        network = network_of(card, path)
    except ModelError as error:
        raise AuthoringError(f"{error} (here --architecture and --argument)") from None
    outputs, _ = _traced(network, taken)
    return Draft(
        "state-dict",
        taken,
        outputs,
        files={path.name: path},
        file=path.name,
        architecture=architecture,
        arguments=dict(arguments),
    )


def _torch() -> Any:
    try:
        with hints.kept_back():
            import torch
    except ImportError:
        raise AuthoringError("torch is missing: pip install 'edgeburst[torch]', or the board's own build") from None
    return torch


def _traced(network: Any, inputs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], int | None]:
    """Runs the network and returns its outputs; axes that follow an input's open axis are open.

    It may run on batches of one item only, as networks do that were traced so; then the second value is 1, else None.

    Raises:
        AuthoringError: it fails, or an output has no batch axis.
    """
    try:
        return _specs(network, inputs, (2, 3)), None
    except AuthoringError as error:
        any_size = error
    try:
        return _specs(network, inputs, (1, 1)), 1
    except AuthoringError:
        pass
    if not _runs(network, inputs, 2):
        for size in filter(lambda size: _runs(network, inputs, size), _SIZES):
            raise AuthoringError(
                f"the network runs on batches of {size}, not on other sizes: trace it without shapes as numbers, as in"
                f" view({size}, -1), or save it by torch.export with a dynamic first axis (dynamic_shapes)"
            )
    raise any_size


def _runs(network: Any, inputs: Sequence[TensorSpec], items: int) -> bool:
    try:
        _outputs(network, inputs, items=items, length=8)
    except AuthoringError:
        return False
    return True


def _specs(network: Any, inputs: Sequence[TensorSpec], items: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """Returns the outputs as two batches of so many items show them."""
    first = _outputs(network, inputs, items=items[0], length=8)
    second = _outputs(network, inputs, items=items[1], length=9)
    specs = []
    for name, value in first.items():
        other = second.get(name)
        if other is None or not value.shape or len(value.shape) != len(other.shape):
            raise AuthoringError(
                f"output {name!r} of the network has no batch axis: let it return tensors, batch first"
            )
        if (value.shape[0], other.shape[0]) != items:
            raise AuthoringError(
                f"output {name!r} has {value.shape[0]} rows for {items[0]} items and {other.shape[0]} for {items[1]};"
                " for outputs with rows of their own, as of detectors, write a handler (format python)"
            )
        shape = tuple(int(a) if a == b else -1 for a, b in zip(value.shape[1:], other.shape[1:], strict=True))
        specs.append(TensorSpec(name, _datatype(value), shape))
    return tuple(specs)


def _outputs(network: Any, inputs: Sequence[TensorSpec], *, items: int, length: int) -> dict[str, Any]:
    torch = _torch()
    given = [
        torch.zeros((items, *(length if axis == -1 else axis for axis in spec.shape)), dtype=_torch_dtype(spec))
        for spec in inputs
    ]
    try:
        with torch.inference_mode():
            value = network(*given)
    except Exception as error:  # noqa: BLE001 - a user's network may raise anything
        raise AuthoringError(f"the network fails on a batch of zeros: {_reason(error)}; see --input") from None
    if isinstance(value, Mapping):
        named = dict(value)
    elif isinstance(value, tuple | list):
        named = {f"output{index}": entry for index, entry in enumerate(value)}
    else:
        named = {"output": value}
    for name, entry in named.items():
        if not isinstance(entry, torch.Tensor):
            raise AuthoringError(
                f"output {name!r} of the network is a {type(entry).__name__}, not a tensor; for such networks, as for"
                " detectors, write a handler (format python)"
            )
    return named


def _torch_dtype(spec: TensorSpec) -> Any:
    torch = _torch()
    for dtype, datatype in _DATATYPE_OF.items():
        if datatype == spec.datatype:
            return getattr(torch, dtype)
    raise AuthoringError(f"input {spec.name!r} is {spec.datatype}, which torch does not have")


def _datatype(value: Any) -> str:
    name = str(value.dtype).removeprefix("torch.")
    return _DATATYPE_OF.get(name, "FP32")


def _spec_of(name: str, value: Any) -> TensorSpec:
    shape = tuple(length if isinstance(length, int) else -1 for length in value.shape[1:])
    return TensorSpec(name, _datatype(value), shape)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
