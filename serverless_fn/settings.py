"""What the container is told by its environment, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(ValueError):
    """An environment variable cannot be used; the message is one sentence that names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment of one instance.

    Attributes:
        model: MODEL, the model of the catalogue to serve.
        weights: WEIGHTS_PATH, a file of weights; None for those that ship.
        weights_sha256: WEIGHTS_SHA256, its SHA-256 in hexadecimal.
        random_weights: RANDOM_WEIGHTS names the model itself, the only way to run it without trained weights.
        emulate: EDGEBURST_EMULATE, the profile whose latency law the service is padded to; None for true speed.
        device: DEVICE, where torch computes: "cpu" or "cuda".
        torch_threads: TORCH_THREADS; one by default, because an instance has about one vCPU.
        max_batch: MAX_BATCH, the most items of one invocation; None leaves it to the emulated profile or the default.
        host: EDGEBURST_LISTEN_HOST; the platform requires all addresses, the local endpoint sets loopback.
        port: FC_CUSTOM_LISTEN_PORT, 9000 by default as on the platform.
        instance_id: FC_INSTANCE_ID, set by the platform.
    """

    model: str = "digits"
    weights: Path | None = None
    weights_sha256: str | None = None
    random_weights: bool = False
    emulate: str | None = None
    device: str = "cpu"
    torch_threads: int = 1
    max_batch: int | None = None
    host: str = "0.0.0.0"
    port: int = 9000
    instance_id: str = ""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Reads the environment.

    Raises:
        SettingsError: a value that must be a number is none, or is out of range.
    """
    model = environ.get("MODEL") or "digits"
    weights = environ.get("WEIGHTS_PATH")
    return Settings(
        model=model,
        weights=Path(weights) if weights else None,
        weights_sha256=environ.get("WEIGHTS_SHA256") or None,
        random_weights=environ.get("RANDOM_WEIGHTS") == model,
        emulate=environ.get("EDGEBURST_EMULATE") or None,
        device=environ.get("DEVICE") or "cpu",
        torch_threads=_number(environ, "TORCH_THREADS", 1, 256) or 1,
        max_batch=_number(environ, "MAX_BATCH", 1, 4096),
        host=environ.get("EDGEBURST_LISTEN_HOST") or "0.0.0.0",
        port=_number(environ, "FC_CUSTOM_LISTEN_PORT", 1, 65535) or 9000,
        instance_id=environ.get("FC_INSTANCE_ID", ""),
    )


def _number(environ: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdecimal() or not low <= int(text) <= high:
        raise SettingsError(f"{name} is {text!r}; set it to a whole number from {low} to {high}")
    return int(text)
