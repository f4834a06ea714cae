"""The relay in front of gRPC puts its one frame between two frames, wherever the stream is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.grpc.relay import GO_AWAY, Frames

FRAMES = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + b"\0\0\0\0\0\1" + content


def ends(contents: list[bytes]) -> set[int]:
    """The places where a frame ends, counted from the beginning; the beginning is one."""
    places, at = {0}, 0
    for content in contents:
        at += len(frame(content))
        places.add(at)
    return places


@given(FRAMES, st.data())
def test_a_frame_s_end_is_found_in_every_way_to_cut(contents: list[bytes], data: st.DataObject) -> None:
    stream, places = b"".join(map(frame, contents)), ends(contents)
    frames, at = Frames(), 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        first = frames.first_end(stream[at : at + size])
        # The first end, without the one that is before these bytes unless there is no other.
        expected = min((place - at for place in places if at < place <= at + size), default=None)
        assert first == (expected if expected is not None else (0 if at in places else None))
        at += size
        assert frames.between == (at in places)


def test_the_frame_is_one_of_http2_that_names_every_stream() -> None:
    assert Frames().first_end(GO_AWAY) == len(GO_AWAY)
    kind, stream, last, error = GO_AWAY[3], GO_AWAY[5:9], GO_AWAY[9:13], GO_AWAY[13:]
    assert (kind, stream, last, error) == (7, bytes(4), b"\x7f\xff\xff\xff", bytes(4))
