"""Networks of torch from their files: TorchScript, exported programs, and architectures filled with a state."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models import hints
from models.card import Card
from models.errors import ModelError, last_line
from models.formats.fixed_batch import module_of
from models.packages import needed

# Fixed, so that two hosts with random weights give the same answers.
RANDOM_WEIGHTS_SEED = 0
_STATE_KEYS = ("state_dict", "model_state_dict", "model")
# What DataParallel, and torch.compile, put in front of every name.
_WRAPPERS = ("module.", "_orig_mod.")


def network_of(card: Card, file: Path | None, device: str = "cpu") -> Any:
    """Returns a card's network in evaluation mode, as a function of tensors.

    Args:
        card: of format torchscript, torch-export or state-dict.
        device: an exported program is made for that device; all others are on the CPU and can be moved.
        file: its file; None: an architecture with random weights, the same on every host.

    Raises:
        ModelError: the file does not hold such a network, its state does not fit the architecture, or there is no such
            architecture.
    """
    torch = needed("torch", f"model {card.name}, of format {card.format},")
    if card.format == "state-dict":
        return _architecture_of(card, file)
    assert file is not None
    try:
        with hints.kept_back():
            if card.format == "torchscript":
                network = torch.jit.load(str(file), map_location="cpu").eval()
                for parameter in network.parameters():
                    parameter.requires_grad_(False)
                return network
            program = torch.export.load(str(file))
            if device != "cpu":
                program = importlib.import_module("torch.export.passes").move_to_device_pass(program, device)
            return module_of(program)
    except Exception as error:  # noqa: BLE001 - torch raises whatever its readers and C++ code raise.
        how = "torch.jit.save" if card.format == "torchscript" else "torch.export.save"
        raise ModelError(
            f"model {card.name}: {file} is no file of {how} that this torch {torch.__version__} can read"
            f" ({last_line(error)}): write it again, or correct `format` in the card"
        ) from error


def _architecture_of(card: Card, file: Path | None) -> Any:
    torch = needed("torch", f"model {card.name}")
    build = _builder(card)
    if file is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_WEIGHTS_SEED)
            return build().eval().requires_grad_(False)
    state = _state(card, file)
    # On the device "meta" no memory is filled with random values that the state replaces: that halves the time.
    with torch.device("meta"):
        network = build()
    try:
        network.load_state_dict(state, assign=True)
        if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
            # Some buffer is not in the state, but made when the network is built.
            network = build()
            network.load_state_dict(state)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ModelError(
            f"model {card.name}: {file} does not fit {card.architecture} with arguments {dict(card.arguments)}"
            f" ({_mismatch(error)}): correct `architecture` or `arguments` in the card, or give the right file"
        ) from error
    return network.eval().requires_grad_(False)


def _builder(card: Card) -> Callable[[], Any]:
    library, _, name = card.architecture.partition(":")
    package = needed("torchvision.models" if library == "torchvision" else library, f"model {card.name}")
    arguments = dict(card.arguments)
    if library == "timm":
        if name not in package.list_models():
            raise ModelError(
                f"model {card.name}: timm has no architecture {name!r}: correct `architecture` in the card"
            )
        return lambda: _built(card, lambda: package.create_model(name, pretrained=False, **arguments))
    try:
        builder = package.get_model_builder(name)
    except ValueError:
        raise ModelError(
            f"model {card.name}: torchvision has no architecture {name!r}: correct `architecture` in the card"
        ) from None
    arguments.setdefault("weights", None)
    if "weights_backbone" in inspect.signature(builder).parameters:
        # Detectors would download weights of their backbone.
        arguments.setdefault("weights_backbone", None)
    return lambda: _built(card, lambda: builder(**arguments))


def _built(card: Card, build: Callable[[], Any]) -> Any:
    try:
        # torchvision and timm tell of arguments that change with UserWarning.
        with hints.kept_back(UserWarning):
            return build()
    except Exception as error:  # noqa: BLE001 - an architecture raises what it likes on wrong arguments.
        raise ModelError(
            f"model {card.name}: {card.architecture} cannot be built with arguments {dict(card.arguments)}"
            f" ({last_line(error)}): correct `arguments` in the card"
        ) from error


def _state(card: Card, file: Path) -> Mapping[str, Any]:
    torch = needed("torch", f"model {card.name}")
    try:
        if file.suffix == ".safetensors":
            content: Any = needed("safetensors.torch", f"model {card.name}: {file}").load_file(str(file))
        else:
            content = torch.load(str(file), map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - the unpickler, zip and torch each raise their own.
        raise ModelError(
            f"model {card.name}: {file} holds no state dictionary that can be read safely ({last_line(error)}):"
            " write it by torch.save(network.state_dict(), FILE)"
        ) from error
    for key in _STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ModelError(
            f"model {card.name}: {file} holds a {type(content).__name__}, no state dictionary: write it by"
            " torch.save(network.state_dict(), FILE)"
        )
    for wrapper in _WRAPPERS:
        if content and all(str(name).startswith(wrapper) for name in content):
            content = {str(name)[len(wrapper) :]: value for name, value in content.items()}
    return dict(content)


def _mismatch(error: BaseException) -> str:
    """Returns the first mismatch that load_state_dict lists."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 else last_line(error))[:400]
