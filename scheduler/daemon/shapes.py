"""Numbers for the shapes of requests' items: the engine lets only requests with the same number share a batch."""

from collections import OrderedDict

Shapes = tuple[tuple[int, ...], ...]
"""The shape of one item of each input, in the model's order."""

KEPT = 64
"""Shapes of a model that are kept although no request has them. Judgement: a bound of memory and of the engine's
lanes; a shape that comes back after so many others gets a number anew."""


class ShapeIds:
    """The numbers of the shapes of each model: 0 for the first, and small.

    A number is given to another shape only when no request with its old one is open.

    >>> ids = ShapeIds()
    >>> ids.id_of("m", ((3, 8),)), ids.id_of("m", ((3, 9),)), ids.id_of("m", ((3, 8),)), ids.id_of("other", ((3, 9),))
    (0, 1, 0, 0)
    """

    def __init__(self) -> None:
        """Starts without shapes."""
        self._known: dict[str, OrderedDict[Shapes, list[int]]] = {}
        """By model and shapes, least recently used first: number, open requests."""

    def id_of(self, model: str, shapes: Shapes) -> int:
        """Returns the number of the shapes of a request that arrives."""
        return self._entry(model, shapes)[0]

    def opened(self, model: str, shapes: Shapes) -> int:
        """Counts a request that is open from now on; returns the number of its shapes."""
        entry = self._entry(model, shapes)
        entry[1] += 1
        return entry[0]

    def closed(self, model: str, shapes: Shapes) -> None:
        """Counts a request out that has ended."""
        self._known[model][shapes][1] -= 1

    def _entry(self, model: str, shapes: Shapes) -> list[int]:
        known = self._known.setdefault(model, OrderedDict())
        entry = known.get(shapes)
        if entry is None:
            known[shapes] = entry = [_free_id(known), 0]
        elif len(known) > 1:
            known.move_to_end(shapes)
        return entry


def _free_id(known: "OrderedDict[Shapes, list[int]]") -> int:
    if len(known) >= KEPT:
        unused = next((shapes for shapes, (_, requests) in known.items() if not requests), None)
        if unused is not None:
            return known.pop(unused)[0]
    return len(known)
