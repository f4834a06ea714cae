"""Models' cards, `model.toml`."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz import scratch
from fuzz.mutators import of_lines
from fuzz.target import Target, one_sentence

from models.card import CARD_FILE, CardError
from models.card_reader import read_card
from models.catalogue import SHIPPED

INSTRUMENTED = ("models.card", "models.card_reader", "models.toml_lines", "models.preprocess_settings")


def check(data: bytes) -> None:
    """Reads a card, and hashes it with the files that it names."""
    folder = scratch.folder("a-model")
    (folder / CARD_FILE).write_bytes(data)
    try:
        card = read_card(folder)
    except CardError as error:
        one_sentence(error)
        return
    identity = card.identity()
    assert identity is None or identity.startswith("sha256:")
    assert card.max_batch >= 1
    assert card.all_outputs()


def seeds() -> Iterable[bytes]:
    """Yields the shipped cards and one of each other format."""
    for path in sorted(SHIPPED.glob(f"*/{CARD_FILE}")):
        yield path.read_bytes()
    tensors = (
        b'inputs = [{ name = "x", datatype = "FP32", shape = [3, -1] }]\n'
        b'outputs = [{ name = "y", datatype = "FP32", shape = [4], ragged = true, finite = false }]\n'
    )
    yield (
        b'name = "own"\nformat = "python"\nclass = "model.py:Net"\nfiles = ["a.bin"]\narguments = { a = 1 }\n' + tensors
    )
    yield b'format = "torchscript"\nfile = "a.pt"\nsha256 = "' + b"0" * 64 + b'"\nprecision = "fp16"\n' + tensors
    yield (
        b'format = "onnx"\nfile = "a.onnx"\nlabels = "labels.txt"\ntolerance = 1e-3\nactivation = "softmax"\n' + tensors
    )
    yield b"a = " + b"[" * 1500


TARGET = Target(
    name="cards",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(
        *(b'"python"', b'"onnx"', b'"state-dict"', b'"torchscript"', b'"../a"', b'"/etc"', b'"."', b"[preprocess]"),
        *(
            b"letterbox",
            b"picture = true",
            b"ragged = true",
            b"inf",
            b"nan",
            b"-1",
            b"1e400",
            b"\\u0000",
            b"[[inputs]]",
        ),
    ),
    longest_bytes=2048,
    mutate=of_lines,
)
