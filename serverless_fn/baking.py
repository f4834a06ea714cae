"""Prepares models while an image is built: `python -m serverless_fn.baking FOLDER`, called by the Dockerfile.

Models of torch's formats are converted to ONNX, so that the instances start without torch; every model's files are
checked. What cannot be converted is served by torch, which the image then needs (build argument TORCH=yes).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from models.card import Card
from models.catalogue import cards_in
from models.errors import ModelError
from models.onnx_external import check_external

_TORCH = ("torchscript", "torch-export", "state-dict")


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares every model of a folder; returns the exit status: 2 if a model's files are not what its card says."""
    parser = argparse.ArgumentParser(prog="python -m serverless_fn.baking", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of models")
    given = parser.parse_args(argv)
    try:
        for card in cards_in(given.folder):
            card.check_files()
            if card.format == "onnx":
                check_external(card, card.path(card.file), own=True)
            print(f"{card.name}: {_prepared(card)}", flush=True)
    except ModelError as error:
        print(f"baking: {error}", file=sys.stderr)
        return 2
    return 0


def _prepared(card: Card) -> str:
    """Returns in words how the model will be served."""
    if card.format not in _TORCH:
        return f"format {card.format}, served as it is"
    if card.format == "state-dict" and not card.file:
        return "without weights in its folder, served by torch with the file that WEIGHTS_PATH names"
    from models.loading import load

    try:
        report = load(card, device="cpu", runtime="onnxruntime").runtime
    except ModelError as error:
        return f"served by torch: {error}"
    return f"converted, served by {report.name}"


if __name__ == "__main__":
    sys.exit(main())
