"""Settings of the container, read once from its environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(ValueError):
    """Error: an environment variable cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one instance.

    Attributes:
        model: MODEL, the model of the catalogue to serve.
        weights: WEIGHTS_PATH, a file of weights; None for the shipped weights.
        weights_sha256: WEIGHTS_SHA256, the file's SHA-256 in hexadecimal.
        random_weights: whether RANDOM_WEIGHTS is the name of the model, so that it runs without trained weights.
        emulate: EDGEBURST_EMULATE, the profile whose predicted service times are emulated; None for own speed.
        device: DEVICE, torch's device: "cpu" or "cuda".
        torch_threads: TORCH_THREADS; 1 by default, because an instance has about one vCPU.
        max_batch: MAX_BATCH, the largest number of items in an invocation; None for that of the emulated profile or
            the default.
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
    """Returns the settings of an environment.

    Raises:
        SettingsError: a value must be a number and is not, or is out of range.
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
