"""What computes a model's outputs: the interface of every runtime, and what a host reports of the one it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
"""An array with the batch axis first; elements of BYTES are Python bytes in an object array."""


class Runtime(Protocol):
    """A loaded network on a device; called by one thread at a time."""

    report: RuntimeReport
    """Which runtime, device and precision this is."""

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array | Sequence[Array]]:
        """Returns the network's outputs, before the card's activation.

        Args:
            inputs: by the names of the card. A picture with [preprocess] comes as it was prepared: uint8, items x
                height x width x channels; the runtime normalises the whole batch, on the device if it can.

        Returns:
            The card's outputs by name. A ragged output is the rows of all items with NAME_rows beside it, or a
            sequence with one array of rows for each item.

        Raises:
            ModelError: the network failed on these inputs; the message says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """The runtime in use, for metadata and metrics.

    Attributes:
        name: for instance "onnxruntime", "torch", "torch channels_last", "python".
        device: for instance "cpu", "cuda".
        precision: "fp32", "bf16" or "fp16".
        tried: by candidate, the measured seconds of a rehearsal batch, or the reason why it is not used.
    """

    name: str
    device: str
    precision: str = "fp32"
    tried: Mapping[str, float | str] = field(default_factory=dict)


NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{8 * size}": np.dtype(f"u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)},
    "BYTES": np.dtype(np.object_),
}
"""The array type of each datatype of the Open Inference Protocol."""


def stacked(items: Sequence[Array]) -> Array:
    """Returns prepared items as one batch; an object array of arrays if their shapes differ.

    >>> stacked([np.zeros((2, 3)), np.zeros((2, 3))]).shape
    (2, 2, 3)
    >>> stacked([np.zeros((2, 3)), np.zeros((4, 3))]).shape
    (2,)
    """
    if len({(item.shape, item.dtype) for item in items}) <= 1:
        return np.stack(items)
    batch = np.empty(len(items), np.object_)
    for index, item in enumerate(items):
        batch[index] = item
    return batch
