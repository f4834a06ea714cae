"""Bodies are joined and cut without a byte out of place, and counted while they are held."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.bodies import BodyStore, PendingCall, joined_inputs, whole_failure
from scheduler.daemon.calls import InferenceCall
from scheduler.wire import Tensor, WireError, part_outputs


def a_call(*tensors: Tensor, body_bytes: int = 0) -> InferenceCall:
    return InferenceCall("digits", tensors, tensors[0].items, body_bytes, 0.0)


@given(st.lists(st.lists(st.tuples(st.binary(max_size=9), st.integers(-9, 9)), min_size=1, max_size=4), min_size=1))
def test_what_is_joined_and_then_parted_is_what_it_was(requests: list[list[tuple[bytes, int]]]) -> None:
    calls = []
    for index, items in enumerate(requests):
        picture = Tensor.from_elements("image", [element for element, _ in items])
        number = Tensor.from_numpy("number", np.array([[value] for _, value in items], dtype=np.int32))
        calls.append(a_call(*((picture, number) if index % 2 else (number, picture))))
    joined = joined_inputs(calls)
    assert [tensor.items for tensor in joined] == [sum(map(len, requests))] * 2
    for items, tensors in zip(requests, part_outputs(joined, [len(items) for items in requests]), strict=True):
        by_name = {tensor.name: tensor for tensor in tensors}
        assert by_name["image"].elements() == [element for element, _ in items]
        assert by_name["number"].to_numpy().ravel().tolist() == [value for _, value in items]


@pytest.mark.parametrize(
    "others", [[("image",), ("image", "mask")], [("image", "mask"), ("image",)], [("image",), ("picture",)]]
)
def test_calls_with_different_inputs_do_not_join(others: list[tuple[str, ...]]) -> None:
    calls = [a_call(*(Tensor.from_elements(name, [b"x"]) for name in names)) for names in others]
    with pytest.raises(WireError, match="cannot share a batch"):
        joined_inputs(calls)


@pytest.mark.parametrize(
    ("errors", "sentence"), [([b"bad"], "bad"), ([b"bad", b""], ""), ([b"", b""], ""), ([b"a", b"b"], "a")]
)
def test_a_request_has_failed_as_a_whole_only_if_every_item_has(errors: list[bytes], sentence: str) -> None:
    assert whole_failure([Tensor.from_elements("item_error", errors)]) == sentence


def test_outputs_without_item_errors_have_not_failed() -> None:
    assert whole_failure([Tensor.from_numpy("item_error", np.ones((1, 1), np.float32))]) == ""


def test_the_store_counts_what_it_holds() -> None:
    async def main() -> None:
        store, loop = BodyStore(), asyncio.get_running_loop()
        for number in (1, 2, 3):
            call = a_call(Tensor.from_elements("image", [b"x"]), body_bytes=10 * number)
            store.add(PendingCall(number, call, loop.create_future()))
        assert (len(store), store.body_bytes) == (3, 60)
        assert [pending.request_id for pending in store.members([3, 1])] == [3, 1]
        popped = store.pop(2)
        assert popped is not None
        assert store.pop(2) is None
        assert (len(store), store.body_bytes) == (2, 40)

    asyncio.run(main())
