"""NaN in an answer is the input's fault where the input has NaN too, and the backend's otherwise."""

from __future__ import annotations

import asyncio
import math

import numpy as np

from scheduler.daemon.bodies import PendingCall
from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.finite_answers import NotFinite, sorted_by_fault
from scheduler.wire import Tensor


def members(*inputs: list[float]) -> list[PendingCall]:
    loop = asyncio.new_event_loop()
    made = []
    for number, values in enumerate(inputs, start=1):
        tensor = Tensor.from_numpy("x", np.array(values, np.float32))
        call = InferenceCall("m", (tensor,), items=len(values), body_bytes=4, received_at_s=0.0)
        made.append(PendingCall(number, call, loop.create_future()))
    loop.close()
    return made


def test_members_are_told_apart_by_their_own_inputs_and_items() -> None:
    batch = members([1.0, 2.0], [math.nan], [3.0], [4.0, math.inf])
    assert sorted_by_fault(batch, {1, 2, 5}) == NotFinite(by_input=frozenset({2, 4}), by_backend=frozenset({1}))
    assert sorted_by_fault(batch, {3}) == NotFinite(by_backend=frozenset({3}))
    assert sorted_by_fault(batch, ()) == NotFinite()


def test_texts_and_whole_numbers_are_finite() -> None:
    call = InferenceCall(
        "m",
        (Tensor.from_elements("t", [b"nan"]), Tensor.from_numpy("k", np.array([1]))),
        items=1,
        body_bytes=4,
        received_at_s=0.0,
    )
    loop = asyncio.new_event_loop()
    pending = PendingCall(7, call, loop.create_future())
    loop.close()
    assert sorted_by_fault([pending], {0}).by_backend == {7}
