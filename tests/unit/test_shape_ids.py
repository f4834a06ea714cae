"""Numbers of shapes: no two shapes that wait share one, one shape is always number 0, and they stay small."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.shapes import KEPT, ShapeIds, Shapes


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 200)), max_size=600))
def test_no_two_shapes_that_wait_share_a_number(steps: Sequence[tuple[bool, int]]) -> None:
    ids, open_now = ShapeIds(), Counter[Shapes]()
    number_of: dict[Shapes, int] = {}
    for opens, length in steps:
        shapes: Shapes = ((3, length),)
        if opens:
            number = ids.id_of("m", shapes)
            ids.opened("m", shapes)
            assert number_of.get(shapes, number) == number or not open_now[shapes]
            number_of[shapes] = number
            open_now[shapes] += 1
        elif open_now[shapes]:
            ids.closed("m", shapes)
            open_now[shapes] -= 1
        waiting = [number_of[shapes] for shapes, requests in open_now.items() if requests]
        assert len(set(waiting)) == len(waiting)
        assert max(waiting, default=0) <= KEPT + len(waiting)


def test_the_number_of_a_shape_that_nothing_waits_with_goes_to_a_new_one() -> None:
    ids = ShapeIds()
    for length in range(KEPT):
        assert ids.id_of("m", ((length,),)) == length
        ids.opened("m", ((length,),))
    ids.closed("m", ((5,),))
    assert ids.id_of("m", ((1000,),)) == 5
    # All others still have requests that wait.
    ids.opened("m", ((1000,),))
    assert ids.id_of("m", ((1001,),)) == KEPT


def test_a_model_with_one_shape_has_number_0() -> None:
    ids = ShapeIds()
    for _ in range(3):
        assert ids.id_of("m", ((), (4, 4))) == 0
        ids.opened("m", ((), (4, 4)))
