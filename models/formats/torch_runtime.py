"""Networks of torch: a batch to the device, through the network, and back; pictures are normalised there."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.binding import named_outputs
from models.card import Card
from models.errors import ModelError, last_line, of_device
from models.packages import needed
from models.preprocess_settings import Preprocess
from models.runtime import Array, RuntimeReport

_HALVES = ("bf16", "fp16")


class TorchRuntime:
    """A network of torch on a device."""

    def __init__(
        self, card: Card, network: Any, *, device: str, precision: str = "fp32", channels_last: bool = False
    ) -> None:
        """Moves the network to the device.

        Args:
            card: what the network takes and gives.
            network: in evaluation mode; one whose weights change is copied.
            device: torch's device.
            precision: "fp32", "bf16" or "fp16".
            channels_last: whether weights and pictures have the channel as their fastest axis.

        Raises:
            ModelError: the card has an input that torch cannot take.
        """
        torch = needed("torch", f"model {card.name}")
        self._torch = torch
        self._card = card
        for spec in card.inputs:
            if spec.datatype == "BYTES" and not spec.picture:
                raise ModelError(
                    f"input {spec.name!r} of model {card.name} is BYTES, which torch has not: use format python"
                )
        # Arrays of requests are views of what came over the wire; torch only reads them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._device = device
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self._half = precision in _HALVES
        self._channels_last = channels_last
        self._network = self._moved(network)
        self._scale, self._shift = self._normalisation()
        name = "torch channels_last" if channels_last else "torch"
        self.report = RuntimeReport(name, device.partition(":")[0], precision)

    def _moved(self, network: Any) -> Any:
        if not hasattr(network, "to"):
            return network
        if self._half or self._channels_last:
            network = copy.deepcopy(network).to(self._dtype)
        network = network.to(self._device)
        return network.to(memory_format=self._torch.channels_last) if self._channels_last else network

    def _normalisation(self) -> tuple[Any, Any]:
        settings = self._card.preprocess
        if settings is None:
            return None, None
        stds = np.array(settings.stds, np.float32)
        scale, shift = 1 / (255 * stds), -np.array(settings.means, np.float32) / stds
        return tuple(self._torch.from_numpy(array).to(self._device) for array in (scale, shift))

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array | Sequence[Array]]:
        """Returns the network's outputs; `Runtime.run` says more."""
        with self._torch.inference_mode():
            try:
                result = self._network(*self.arguments(inputs))
                named = named_outputs(self._card, result)
                return {name: self._arrays(value) for name, value in named.items()}
            except ModelError:
                raise
            except Exception as error:  # noqa: BLE001 - a network raises whatever its operations raise.
                if self._device != "cpu":
                    items = len(next(iter(inputs.values())))
                    if (told := of_device(error, name=self._card.name, items=items)) is not None:
                        raise told from error
                raise ModelError(f"model {self._card.name} failed in torch: {last_line(error)}") from error

    def arguments(self, inputs: Mapping[str, Array]) -> tuple[Any, ...]:
        """Returns the arguments of the network for inputs of `run`, on the device."""
        return tuple(self._tensor(spec.picture, inputs[spec.name]) for spec in self._card.inputs)

    def _tensor(self, picture: bool, array: Array) -> Any:
        settings = self._card.preprocess
        if picture and settings is not None:
            tensor = self._normalised(array, settings)
        else:
            tensor = self._on_device(array)
            if self._channels_last and tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=self._torch.channels_last)
        return tensor.to(self._dtype) if self._half and tensor.dtype == self._torch.float32 else tensor

    def _on_device(self, array: Array) -> Any:
        tensor = self._torch.from_numpy(np.ascontiguousarray(array))
        if self._device == "cpu":
            return tensor
        # Pinned memory lets the GPU fetch the batch by itself.
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _normalised(self, pictures: Array, settings: Preprocess) -> Any:
        """Returns prepared pictures as the network's input in fp32, since half of it has too few digits for this."""
        swapped = settings.layout == "CHW"
        if self._device == "cpu":
            # OpenCV takes a tenth of the time that torch takes for this on a CPU.
            from models.preprocess import normalise

            if swapped and self._channels_last:
                return self._torch.from_numpy(normalise(pictures, settings, layout="HWC")).permute(0, 3, 1, 2)
            return self._torch.from_numpy(normalise(pictures, settings))
        values = self._on_device(pictures).to(self._torch.float32)
        tensor = self._torch.addcmul(self._shift, values, self._scale)
        if swapped:
            tensor = tensor.permute(0, 3, 1, 2)
        return tensor if self._channels_last else tensor.contiguous()

    def _arrays(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._arrays(part) for part in value]
        if not isinstance(value, self._torch.Tensor):
            return np.asarray(value)
        if value.dtype == self._torch.bfloat16 or (self._half and value.dtype == self._dtype):
            value = value.float()
        return value.detach().cpu().numpy()


def _computes_bf16(torch: Any) -> bool:
    """Returns whether the GPU itself computes in bf16: torch also counts those on which it would only imitate it."""
    try:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    except TypeError:  # before torch 2.5
        return bool(torch.cuda.is_bf16_supported())


def half_precision_problem(device: str, precision: str) -> str | None:
    """Returns why a device should not compute in half precision; None if it may."""
    torch: Any = needed("torch", "half precision")
    if device != "cpu":
        return None if precision != "bf16" or _computes_bf16(torch) else "this GPU has no bf16"
    supported: Callable[[], bool] | None = getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_device_supported", None)
    try:
        return None if supported is not None and supported() else f"this processor does not compute in {precision}"
    except (RuntimeError, AttributeError):
        return f"this processor does not compute in {precision}"
