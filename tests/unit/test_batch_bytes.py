"""A function batch carries no more bytes than the platform takes in one call, and than the uplink carries in time."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support.engine_kit import ORIN, TIER, arrive, refused, run_until_idle, sent, settings

from scheduler import wire
from scheduler.domain.batches import Batch
from scheduler.domain.decisions import Reason
from scheduler.domain.errors import RefusalKind
from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import RequestArrived
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.planner.catalogue.prices import load_sheet

MB = 1_000_000
LIMIT = load_sheet("cny-gbs-2023").max_body_bytes(beside=wire.FRAME_BYTES)
WIDE = replace(TIER, latency=LatencyModel(0.2, 0.02, 16), max_body_bytes=LIMIT)


def functions(*, slo_s: float = 20.0, edge: bool = False, uplink_bytes_per_s: float | None = None) -> EngineSettings:
    model = ModelSettings("m", 64, (ServiceClass(slo_s=slo_s),), ORIN if edge else None, (WIDE,))
    return EngineSettings((model,), uplink_bytes_per_s=uplink_bytes_per_s, changepoints=False)


def batches_of(engine: Engine, bodies: Sequence[int], *, slo_s: float = 20.0) -> list[Batch]:
    """Returns the batches of requests that arrive together."""
    requests = [Request(i, "m", 0.0, slo_s, body_bytes=body) for i, body in enumerate(bodies, start=1)]
    commands = engine.handle([RequestArrived(request) for request in requests], 0.0)
    commands = run_until_idle(engine, commands, 0.0, slo_s + 60.0)
    batches = sent(commands, Backend.FUNCTION)
    gone = [i for batch in batches for i in batch.request_ids]
    assert {*gone, *refused(commands)} == {request.request_id for request in requests}
    return batches


def test_eight_requests_of_twelve_megabytes_are_no_batch_of_96() -> None:
    batches = batches_of(Engine(functions()), [12 * MB] * 8)
    assert sum(batch.items for batch in batches) == 8
    assert {batch.body_bytes for batch in batches} == {24 * MB}


@examples(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 34 * MB), min_size=1, max_size=20))
def test_no_batch_exceeds_the_limit_of_a_call(bodies: list[int]) -> None:
    batches = batches_of(Engine(functions()), bodies)
    assert max((batch.body_bytes for batch in batches), default=0) <= LIMIT
    assert sum(batch.items for batch in batches) == sum(body <= LIMIT for body in bodies)


def test_a_request_that_no_call_can_carry_is_refused_with_the_reason() -> None:
    engine = Engine(functions())
    refusal = refused(arrive(engine, 0.0, 1, slo_s=20.0, body_bytes=LIMIT + 1))[1].refusal
    assert (refusal.kind, refusal.status, refusal.reason) == (RefusalKind.TOO_LARGE, 413, Reason.TOO_LARGE.value)
    assert f"at most {LIMIT} bytes" in refusal.message
    commands = arrive(engine, 0.0, 2, slo_s=20.0, body_bytes=LIMIT)
    assert refused(run_until_idle(engine, commands, 0.0, 30.0)) == {}


def test_a_request_that_no_call_can_carry_waits_for_the_edge() -> None:
    engine = Engine(functions(edge=True, slo_s=0.4))
    commands = [*arrive(engine, 0.0, 1, slo_s=0.4), *arrive(engine, 0.0, 2, slo_s=0.4, body_bytes=LIMIT + 1)]
    commands = run_until_idle(engine, commands, 0.0, 5.0)
    assert [batch.backend for batch in sent(commands)] == [Backend.EDGE, Backend.EDGE]


@pytest.mark.parametrize("megabytes", [2, 4])
def test_no_more_go_together_than_the_uplink_carries_in_time(megabytes: int) -> None:
    # Each second 10 MB: eight of 4 MB take 3.2 s together, and each has 2 s.
    engine = Engine(functions(slo_s=2.0, uplink_bytes_per_s=10.0 * MB))
    batches = batches_of(engine, [megabytes * MB] * 8, slo_s=2.0)
    assert max(batch.items for batch in batches) > 1
    for batch in batches:
        assert batch.items == 1 or batch.predicted_finish_s <= batch.deadline_s


def test_the_limit_leaves_room_for_frame_and_base64() -> None:
    tensors = [wire.Tensor.from_numpy(f"input-{i:0120}", np.zeros((1, 2, 2, 2, 2, 2, 2), np.uint8)) for i in range(20)]
    request = wire.encode_request(wire.InferRequest(id="x" * 128, inputs=tuple(tensors)))
    frame = wire.pack_frame({"model": "m" * 128, "batch_id": "b" * 64}, request)
    assert len(frame) - sum(len(tensor.raw) for tensor in tensors) <= wire.FRAME_BYTES
    lambda_bytes = load_sheet("aws-lambda-x86-usd").max_body_bytes(beside=wire.FRAME_BYTES)
    assert (lambda_bytes + wire.FRAME_BYTES) * 4 / 3 <= 6 * 2**20
    assert settings().models[0].tiers[0].max_body_bytes > 2**40
