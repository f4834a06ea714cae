"""The structure of each network, without weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from models.preprocess import DIGIT_SIDE


class DigitNetwork(nn.Module):
    """Network of three small convolutions and a linear layer: about 30,000 parameters, 2 million products a digit."""

    def __init__(self) -> None:
        """Creates the layers."""
        super().__init__()
        last_side = DIGIT_SIDE // 2 // 2 // 2
        self.features = nn.Sequential(*_stage(1, 16), *_stage(16, 32), *_stage(32, 64))
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * last_side**2, 10))

    def forward(self, ink: torch.Tensor) -> torch.Tensor:
        """Returns logits n x 10 for ink n x 1 x 28 x 28."""
        logits: torch.Tensor = self.classify(self.features(ink))
        return logits


def _stage(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.MaxPool2d(2)


def _resnet50() -> nn.Module:
    # Imported here: importing torchvision takes a second, which a cold start of `digits` should not need.
    from torchvision.models import resnet50

    network: nn.Module = resnet50(weights=None)
    return network


def _mobilenet_v3_small() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    network: nn.Module = mobilenet_v3_small(weights=None)
    return network


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "digits": DigitNetwork,
    "resnet50": _resnet50,
    "mobilenet_v3_small": _mobilenet_v3_small,
}
