"""A trace is taken up only from headers that W3C's standard allows, and passed on as it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.wire.trace_context import TraceContext, trace_of

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def hexadecimal(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


@given(hexadecimal(32), hexadecimal(16), st.booleans(), st.sampled_from(["", "a=1", "tenant@vendor=x y,b=2"]))
def test_a_context_is_read_as_it_was_written(trace_id: str, span_id: str, sampled: bool, state: str) -> None:
    context = TraceContext(trace_id, span_id, sampled, state)
    headers = context.headers()
    assert trace_of([headers["traceparent"]], [state] if state else []) == context
    assert headers.get("tracestate", "") == state


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}-more",
        f"{PARENT}x",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"01-{TRACE_ID}-{SPAN_ID}-01more",
    ],
)
def test_a_parent_that_breaks_the_rules_starts_no_trace(parent: str) -> None:
    assert trace_of([parent], ["a=1"]) is None


def test_a_parent_that_comes_twice_or_not_at_all_starts_no_trace() -> None:
    assert trace_of([PARENT, PARENT]) is None
    assert trace_of([]) is None


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("fe", False)]
)
def test_only_the_flag_of_sampling_is_kept(flags: str, sampled: bool) -> None:
    context = trace_of([f"00-{TRACE_ID}-{SPAN_ID}-{flags}"])
    assert context is not None
    assert context.sampled is sampled
    assert context.headers()["traceparent"][-2:] == f"{int(sampled):02x}"


def test_a_later_version_is_read_as_far_as_it_is_known_and_passed_on_as_the_first() -> None:
    context = trace_of([f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-will-be-like"])
    assert context is not None
    assert context.headers() == {"traceparent": PARENT}


@pytest.mark.parametrize("state", ["a", "a=", "A=1", "a=1,a=2", "a=b=c", "a =1", "=1", "a=1\x7f", "tenant@1=x"])
def test_a_state_that_breaks_the_rules_is_dropped_and_the_trace_kept(state: str) -> None:
    context = trace_of([PARENT], [state])
    assert context is not None
    assert context.state == ""


def test_several_states_are_one_list_without_its_empty_entries() -> None:
    context = trace_of([PARENT], ["a=1, b=2 ,,", "\tc=3"])
    assert context is not None
    assert context.state == "a=1,b=2,c=3"


def test_a_long_state_loses_its_long_entries_first_and_then_its_last() -> None:
    short = [f"k{number:02}=" + "v" * 40 for number in range(15)]
    long = "long=" + "v" * 200
    context = trace_of([PARENT], [",".join([short[0], long, *short[1:]])])
    assert context is not None
    assert context.state == ",".join(short[:11])
    assert len(context.state) <= 512


def test_more_than_32_entries_are_not_valid() -> None:
    context = trace_of([PARENT], [",".join(f"k{number}=v" for number in range(33))])
    assert context is not None
    assert context.state == ""
