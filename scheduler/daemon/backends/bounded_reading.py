"""Reads the answer of a backend up to a limit: an endless body costs no more than the largest one that is possible."""

from __future__ import annotations

import aiohttp


class TooLarge(aiohttp.ClientError):
    """An answer has more bytes than it can have; its connection is closed."""

    def __init__(self, limit_bytes: int) -> None:
        """Stores the sentence."""
        super().__init__(
            f"it is over {limit_bytes} bytes, more than the model's outputs can take; correct the model there, or"
            " raise `max_answer_bytes` of the model if its outputs have no fixed size"
        )


async def read_within(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Returns the body of a response.

    Raises:
        TooLarge: it has more bytes; the rest is not read.
    """
    length = response.content_length
    if length is not None and length <= limit_bytes:
        return await response.read()
    pieces, size = [], 0
    if length is None:
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > limit_bytes:
                break
            pieces.append(piece)
        else:
            return b"".join(pieces)
    response.close()
    raise TooLarge(limit_bytes)
