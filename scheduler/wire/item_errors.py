"""The output in which a backend names the items that it could not process."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.wire.tensor import Tensor

ITEM_ERROR = "item_error"
"""Name of the output: BYTES, shape [n], one sentence for each item; empty for an item that was processed."""


def item_errors(outputs: Sequence[Tensor]) -> list[str]:
    """Returns one sentence for each item, empty for an item that was processed; no sentences without that output.

    Raises:
        WireError: the output's lengths do not add up to its data.

    >>> item_errors([Tensor.from_elements("item_error", [b"", b"not a picture"])])
    ['', 'not a picture']
    """
    found = next((output for output in outputs if output.name == ITEM_ERROR and output.datatype == "BYTES"), None)
    if found is None:
        return []
    raw = found.raw
    if len(raw) == 4 * found.items and not any(raw):
        return [""] * found.items  # no item has a sentence, as nearly always
    return [element.decode(errors="replace") for element in found.elements()]
