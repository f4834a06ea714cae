"""Trains the `digits` network on pictures of scikit-learn's digits, encoded as PNG and JPEG; writes its ONNX file."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models import digits_data
from models.card import CARD_FILE, file_sha256
from models.catalogue import shipped
from models.digits_pictures import encode
from models.images import decode_image
from models.onnx_file import clean
from models.preprocess import DIGIT_SIDE, digit_input
from scheduler.terminal import counted
from scripts.support.script import run_script

_BATCH = 64
_TOP_LEARNING_RATE = 5e-3


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


def main() -> None:
    """Trains, evaluates on the held-out digits, and writes the file, and its SHA-256 into the card."""
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    network = DigitNetwork()
    _train(network, *_tensors(*digits_data.training()), epochs=arguments.epochs)
    accuracy = _accuracy(network, *_tensors(*digits_data.held_out()))
    path = write(network, arguments.out)
    print(f"held-out accuracy {accuracy:.4f} over both encodings; wrote {path}, SHA-256 {file_sha256(path)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=shipped("digits").folder, help="folder of the model, with its card")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training digits")
    parser.add_argument("--seed", type=int, default=1, help="seed of initial weights, order and augmentation")
    return parser.parse_args()


def _tensors(images: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the network's input for each digit after encoding and decoding it in both formats, and the labels."""
    seen = [
        digit_input(decode_image(encode(image, kind, index)))
        for kind in ("jpeg", "png")
        for index, image in enumerate(images)
    ]
    return torch.from_numpy(np.stack(seen)), torch.from_numpy(np.tile(labels, 2))


def _train(network: nn.Module, ink: torch.Tensor, labels: torch.Tensor, *, epochs: int) -> None:
    steps = epochs * (len(ink) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_TOP_LEARNING_RATE, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    network.train()
    for _ in counted(range(epochs), "training", "epochs"):
        order = torch.randperm(len(ink))
        for start in range(0, len(ink) - _BATCH + 1, _BATCH):
            chosen = order[start : start + _BATCH]
            optimizer.zero_grad()
            loss_of(network(_augmented(ink[chosen])), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    network.eval()


def _augmented(ink: torch.Tensor) -> torch.Tensor:
    """Returns the pictures slightly rotated, scaled and shifted, with varied ink and light, as in photographs."""
    count = len(ink)
    angle = (torch.rand(count) - 0.5) * 0.5
    scale = 1 + (torch.rand(count) - 0.5) * 0.3
    shift = (torch.rand(count, 2) - 0.5) * 0.24
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    turn = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).view(count, 2, 3)
    grid = nn.functional.affine_grid(turn, list(ink.shape), align_corners=False)
    moved = nn.functional.grid_sample(ink, grid, padding_mode="border", align_corners=False)
    contrast = 0.7 + 0.6 * torch.rand(count, 1, 1, 1)
    light = (torch.rand(count, 1, 1, 1) - 0.5) * 0.2
    return moved * contrast + light + 0.02 * torch.randn_like(moved)


def _accuracy(network: nn.Module, ink: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((network(ink).argmax(dim=1) == labels).float().mean())


def write(network: nn.Module, folder: Path) -> Path:
    """Writes the network as the ONNX file of a folder's card, and the file's hash into the card; returns the file."""
    path = folder / "digits.onnx"
    ink = torch.zeros(2, 1, DIGIT_SIDE, DIGIT_SIDE)
    with warnings.catch_warnings():
        # The exporters tell developers of each other.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (ink,),
            str(path),
            dynamo=False,
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_axes={"image": {0: "items"}, "probabilities": {0: "items"}},
        )
    clean(path)
    card = folder / CARD_FILE
    line = f'sha256 = "{file_sha256(path)}"'
    card.write_text(re.sub(r'^sha256 = ".*"$', line, card.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(run_script("train_digits", main))
