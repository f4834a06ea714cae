"""Files of explanations: lines of JSON, as `edgeburst explain --file` reads them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from functools import partial

from fuzz import scratch
from fuzz.mutators import of_json
from fuzz.target import Target, one_sentence

from scheduler.daemon.explain.command import Wanted, _described, _in_files
from scheduler.dispatch.decision_ring import Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Cause, Decision, Offer, Reason
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Attempt, Backend, Place, Request
from scheduler.explain.json_lines import from_json, to_json
from scheduler.explain.text import Context

INSTRUMENTED = ("scheduler.explain", "scheduler.daemon.explain.command")


def check(data: bytes) -> None:
    """Finds a request in the file and words it; and each line on its own, written again where it can be read."""
    path = scratch.written("decisions.jsonl", data)
    try:
        found = _in_files(path, Wanted("7"))
        json.dumps({"explanations": found})
        assert isinstance(_described(found[0]), str)
    except EdgeburstError as error:
        one_sentence(error)
    for line in data.decode(errors="replace").splitlines()[:4]:
        try:
            written = to_json(*from_json(line))
        except ValueError:
            continue
        assert to_json(*from_json(written)) == written


def seeds() -> Iterable[bytes]:
    """Yields requests that were answered, refused and sent twice."""
    request = Request(7, "digits", 100.0, 101.0, body_bytes=24_000, items=2)
    edge = partial(Offer, Place.edge(), State.EDGE_BATCH)
    function = partial(Offer, Place.function("1gb"), State.FUNCTION)
    offers = (
        edge(None, 100.1, 100.2, 8, 0.004, 0.0, 1e-7, 2e-7),
        function(None, 100.05, 100.6, 3, 0.01, 2.5e-6, 0.0, 2.6e-6),
    )
    gates = (edge(Reason.BATCH_FULL, 100.1, 100.2, 8, 1.0, 0.0, 0.0, float("inf")), offers[1])
    first = Decision(request, 100.0, Cause.ARRIVAL, 1, 1e-5, True, offers, 0)
    attempted = Request(7, "digits", 100.0, 101.0, attempts=(Attempt(Backend.EDGE, 1, 100.1),))
    second = Decision(attempted, 100.3, Cause.FAILURE, 1, 1e-5, True, gates, 1)
    refused = Decision(request, 100.0, Cause.ARRIVAL, 1, 1e-5, True, (gates[0],), -1)
    sendings = (
        Sending(a_batch(Place.edge()), 100.3, None, FailureKind.SERVER, 0.0),
        Sending(a_batch(Place.function("1gb")), 100.6, BatchReport(0.3, service_s=0.2), None, 1e-6),
    )
    context = Context("mine", "2026-05-04T10:00:00+00:00", "CNY", "lab", 0.5)
    made = (
        Explanation(request, (first,), 0, sendings[1:], 100.6, "answered"),
        Explanation(request, (first, second), 2, sendings, 100.6, "answered"),
        Explanation(request, (refused,), 0, (), 100.0, "deadline"),
        Explanation(request, (), 0, (), None, ""),
    )
    for explanation in made:
        yield to_json(explanation, context).encode()
    yield "\n".join(to_json(explanation) for explanation in made).encode()
    yield b'{"version":2,"request_id":7,"a":' + b"[" * 1200 + b"]" * 1200 + b"}"
    yield b'{"version":2,"request_id":' + b"9" * 5000 + b"}"


def a_batch(place: Place) -> Batch:
    """Returns a batch of the request."""
    return Batch(
        batch_id=1,
        place=place,
        model="digits",
        request_ids=(7,),
        items=2,
        body_bytes=24_000,
        sent_at_s=100.1,
        deadline_s=101.0,
        predicted_finish_s=100.4,
        predicted_service_s=0.2,
        give_up_at_s=101.0,
    )


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes values in one line."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = of_json(lines[at], rng)
    return b"\n".join(lines)


TARGET = Target(
    name="explain",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(
        b'"version":2',
        b'"request_id":7',
        b"NaN",
        b"Infinity",
        b"-1",
        b"null",
        b"1e999",
        b'"offers":[',
        b"\xc2\x85",
    ),
    longest_bytes=8192,
    mutate=mutated,
)
