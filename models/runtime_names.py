"""Names of runtimes as hosts are told them, for all models or for one. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from models.errors import ModelError

RUNTIMES = (
    "torch",
    "torch-channels_last",
    "torch-bf16",
    "torch-fp16",
    "torch-channels_last-bf16",
    "torch-channels_last-fp16",
    "onnxruntime",
    "onnxruntime-tensorrt",
    "python",
)
"""Names for `--runtime`, beside "auto"."""


@dataclass(frozen=True, slots=True)
class RuntimeNames:
    """Which runtime each model gets.

    Attributes:
        usual: of every model that has none of its own; "auto": the host chooses.
        by_model: of single models.
    """

    usual: str = "auto"
    by_model: Mapping[str, str] = field(default_factory=dict)

    def of(self, model: str) -> str:
        """Returns the name for a model.

        >>> RuntimeNames("torch", {"sums": "onnxruntime"}).of("sums")
        'onnxruntime'
        """
        return self.by_model.get(model, self.usual)


def check_name(runtime: str) -> None:
    """Checks a name for `--runtime`.

    Raises:
        ModelError: there is no such runtime.
    """
    if runtime != "auto" and runtime not in RUNTIMES:
        raise ModelError(f"there is no runtime {runtime!r}: choose auto, {', '.join(RUNTIMES)}")


def read_runtimes(texts: Iterable[str]) -> RuntimeNames:
    """Returns what texts like "torch" (for all models) and "sums=torch" (for one) say; the last one counts.

    Raises:
        ModelError: there is no runtime of that name, or no model in front of the sign.

    >>> read_runtimes(["torch", "sums=onnxruntime"])
    RuntimeNames(usual='torch', by_model={'sums': 'onnxruntime'})
    """
    usual, by_model = "auto", {}
    for text in texts:
        model, sign, name = (part.strip() for part in text.rpartition("="))
        check_name(name)
        if sign and not model:
            raise ModelError(f"runtime {text!r} names no model: write NAME for all models, or MODEL=NAME")
        if sign:
            by_model[model] = name
        else:
            usual = name
    return RuntimeNames(usual, by_model)
