"""What a backend says of its own run, believed only as far as it agrees with what was measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

INITIALIZER_TIMEOUT_S = 300.0
"""Longest run of an initializer that the provider allows; no billed start of an instance can be longer."""
_ROUNDING_S = 1e-6
"""The clocks of two machines, and sums of floats, may differ by so much in an honest report. Judgement."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted of a run when it was sent, and takes the place of what cannot be believed; seconds."""

    service_s: float
    init_s: float


@dataclass(frozen=True, slots=True)
class Claims:
    """A run as it is believed; None: the function says nothing about it.

    Attributes:
        duration_s: seconds of the invocation, at most those that were measured from outside.
        service_s: seconds of the prediction itself, at most those of the invocation where they are believed.
        init_s: seconds of the instance's initializer. With a cold start they are a part of the measured time too;
            otherwise the initializer ran before, and no longer than the provider allows.
        cold_start: whether the invocation waited for the start of an instance.
        disbelieved: the fields that were replaced by predictions.
    """

    duration_s: float | None
    service_s: float | None
    init_s: float | None
    cold_start: bool | None
    disbelieved: tuple[str, ...] = ()


def believed(header: Mapping[str, object], *, elapsed_s: float, predicted: Prediction | None = None) -> Claims:
    """Returns what is believed of the header of a function's answer.

    Args:
        header: of the answer's frame, as the function sent it.
        elapsed_s: seconds from the send to the answer, measured here.
        predicted: what takes the place of a value that is no number, negative, or larger than what was measured; None:
            nothing does.

    >>> said = {"duration_s": 1e9, "service_s": 0.1, "cold_start": False}
    >>> claims = believed(said, elapsed_s=0.5, predicted=Prediction(0.2, 1.0))
    >>> claims.duration_s, claims.service_s, claims.disbelieved
    (0.2, 0.1, ('duration_s',))
    """
    cold_start = header.get("cold_start")
    cold_start = cold_start if isinstance(cold_start, bool) else None
    disbelieved: list[str] = []

    def value(name: str, at_most_s: float, instead_s: float | None) -> float | None:
        said = header.get(name)
        if said is None:
            return None
        seconds = _seconds(said)
        if seconds is not None and seconds <= at_most_s + _ROUNDING_S:
            return min(seconds, at_most_s)
        disbelieved.append(name)
        return None if instead_s is None else min(max(0.0, instead_s), at_most_s)

    expected_s, start_s = (None, None) if predicted is None else (predicted.service_s, predicted.init_s)
    duration_s = value("duration_s", elapsed_s, expected_s)
    ran_s = elapsed_s if duration_s is None else duration_s
    # A duration that is not believed says nothing against the service.
    service_s = value("service_s", elapsed_s if disbelieved else ran_s, expected_s)
    init_s = value("init_s", elapsed_s - ran_s if cold_start else INITIALIZER_TIMEOUT_S, start_s)
    return Claims(duration_s, service_s, init_s, cold_start, tuple(disbelieved))


def waited_s(said: object, *, at_most_s: float) -> float | None:
    """Returns the seconds that a batch waited at a server, as it says; None if it says nothing that can be believed.

    >>> waited_s(0.2, at_most_s=0.5), waited_s(0.6, at_most_s=0.5), waited_s("long", at_most_s=0.5)
    (0.2, None, None)
    """
    seconds = _seconds(said)
    return None if seconds is None or seconds > at_most_s + _ROUNDING_S else seconds


def beside_device_s(
    decoded: object, service_s: float | None, queue_s: float | None, *, elapsed_s: float
) -> float | None:
    """Returns the seconds of a batch in which a server's device could serve another one: its way and its decoding.

    Args:
        decoded: seconds of `service_s` for which it was decoded beside the device, as the server says.
        service_s: as believed.
        queue_s: as believed.
        elapsed_s: from the send to the answer.

    >>> round(beside_device_s(0.03, 0.23, 0.1, elapsed_s=0.34), 6)
    0.04
    >>> print(beside_device_s(0.3, 0.23, 0.1, elapsed_s=0.34))
    None
    """
    decode_s = _seconds(decoded)
    if decode_s is None or service_s is None or queue_s is None or decode_s > service_s + _ROUNDING_S:
        return None
    return max(0.0, elapsed_s - queue_s - service_s + decode_s)


def _seconds(value: object) -> float | None:
    """Returns a value if it is a number of seconds; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
