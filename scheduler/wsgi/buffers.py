"""Memory for bodies, used again: fresh memory of some 100 KB costs more than receiving into it."""

from __future__ import annotations

_KEPT = 4
_KEPT_BYTES = 4 * 2**20


class Buffers:
    """A few buffers, each for one body at a time. Thread-safe."""

    def __init__(self) -> None:
        """Begins with none."""
        self._free: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """Returns a buffer of at least so many bytes that nothing else looks at."""
        try:
            buffer = self._free.pop()
            if len(buffer) >= size and _is_free(buffer):
                return buffer
        except IndexError:
            pass
        return bytearray(size)

    def give(self, buffer: bytearray) -> None:
        """Takes a buffer back, though views of it may be alive: then it is not used again before they are gone."""
        if len(buffer) <= _KEPT_BYTES and len(self._free) < _KEPT:
            self._free.append(buffer)


def _is_free(buffer: bytearray) -> bool:
    """Returns whether no view of a buffer is alive.

    >>> buffer = bytearray(8)
    >>> view = memoryview(buffer)[2:4]
    >>> _is_free(buffer)
    False
    >>> view.release()
    >>> _is_free(buffer), len(buffer)
    (True, 8)
    """
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
