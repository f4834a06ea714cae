"""Which card and files each model is expected to have, and which places are refused because they serve others."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from scheduler.daemon.logs import log
from scheduler.domain.messages import ModelBarred
from scheduler.domain.requests import Backend, Place

_MAX_LENGTH = 128
TRY_AGAIN_S = 30.0
"""Between trials of refused functions. Judgement: each costs one batch a second try on the other side."""


class AcceptedBy(str, Enum):
    """Where the expected identity is from; the values are public words."""

    OPERATOR = "operator"
    """`PUT /v1/models/NAME/identity`."""
    CONFIG = "config"
    """`identity` in [[model]]."""
    CARD = "card"
    """The card that [[model]] names."""
    FIRST_REPORT = "first-report"
    """What the first place reported since the start; nothing says which it should be."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An identity that an operator has accepted, for as long as the configuration expects what it did then."""

    identity: str
    instead_of: str
    """What the configuration expected; empty: nothing."""


@dataclass(slots=True)
class _Model:
    """What is known of one model."""

    configured: str = ""
    """The identity that the configuration expects; empty: it expects none."""
    source: AcceptedBy = AcceptedBy.FIRST_REPORT
    accepted: Acceptance | None = None
    first: str = ""
    earlier: tuple[str, AcceptedBy] = ("", AcceptedBy.FIRST_REPORT)
    """What was expected before the configuration last changed that, and why."""
    since_s: float = -math.inf
    """When it changed."""
    heard: dict[str, str] = field(default_factory=dict)
    """By place: what it reported last; empty: it reports nothing."""
    reported: set[tuple[str, bool]] = field(default_factory=set)
    """Places that have reported one, and whether they were asked: some do it with answers, some if asked, some both."""
    refused: dict[str, str] = field(default_factory=dict)
    """By place: the sentence."""

    @property
    def expected(self) -> tuple[str, AcceptedBy]:
        """The identity that answers must come from, empty if any is taken, and why it is that one."""
        if self.accepted is not None and self.accepted.instead_of == self.configured:
            return self.accepted.identity, AcceptedBy.OPERATOR
        if self.configured:
            return self.configured, self.source
        return self.first, AcceptedBy.FIRST_REPORT


class Identities:
    """Compares what places report with what is expected, and keeps models from backends that serve others."""

    def __init__(
        self,
        *,
        before: Mapping[str, Acceptance] | None = None,
        save: Callable[[str, Acceptance | None], None] = lambda *_: None,
    ) -> None:
        """Stores its parts.

        Args:
            before: what operators had accepted in an earlier process, by model.
            save: keeps what an operator accepts for the next process; None: nothing any more.
        """
        self._before = dict(before or {})
        self._save = save
        self._models: dict[str, _Model] = {}
        self._next_try_s = -math.inf
        self.post: Callable[[ModelBarred], None] = lambda _: None
        """Gives the engine a message."""
        self.refused: Callable[[str], None] = lambda _: None
        """Told of each place that is refused, when it begins."""

    def reload(self, configured: Mapping[str, tuple[str, AcceptedBy]], *, now_s: float = -math.inf) -> None:
        """Follows a configuration: by model what it expects, empty for nothing, and where it says so.

        Where that is another identity than before, what places reported earlier says nothing about what they serve now:
        they are compared by their next reports.
        """
        for name in self._models.keys() - configured.keys():
            self._let_all(name, self._models.pop(name))
        for name, (identity, source) in configured.items():
            model = self._models.setdefault(name, _Model(accepted=self._before.get(name)))
            before = model.expected
            model.configured, model.source = identity, source
            if model.expected[0] != before[0]:
                model.earlier, model.since_s = before, now_s
                model.heard.clear()
                self._let_all(name, model)

    def forget(self, places: Collection[str]) -> None:
        """Forgets what places served that there are no more."""
        for name, model in self._models.items():
            for place in places:
                model.heard.pop(place, None)
                if model.refused.pop(place, None) is not None:
                    self._tell(name, model, place)

    def expected(self, name: str) -> tuple[str, AcceptedBy]:
        """Returns the expected identity of a model, empty for any, and why; KeyError for an unknown model."""
        return self._models[name].expected

    def accept(self, name: str, identity: str | None) -> None:
        """Expects an identity from now on; None: what the configuration says, or what is reported first from now on."""
        model = self._models[name]
        model.accepted = None if identity is None else Acceptance(identity, model.configured)
        if identity is None:
            model.first = ""
            model.heard.clear()
            model.reported.clear()
            self._let_all(name, model)
        self._compare_all(name, model)
        self._before.pop(name, None)
        if model.accepted is not None:
            self._before[name] = model.accepted
        self._save(name, model.accepted)

    def heard(
        self, name: str, place: str, identity: object, *, asked: bool = False, sent_at_s: float = math.inf
    ) -> str:
        """Notes what a place reports of a model, with an answer or when it is asked for its metadata.

        A report to what was sent before another identity was expected is compared with the earlier one, and not noted.

        Returns:
            Why its answers cannot be used, in one sentence; empty if they can.
        """
        model = self._models.get(name)
        if model is None:
            return ""
        said, way = identity[:_MAX_LENGTH] if isinstance(identity, str) else "", (place, asked)
        if sent_at_s < model.since_s:
            return _sentence(name, place, said, *model.earlier) if said and model.earlier[0] not in ("", said) else ""
        if not said and way not in model.reported:
            model.heard.setdefault(place, "")
            return model.refused.get(place, "")
        if said:
            model.heard[place] = said
            model.reported.add(way)
            if not model.expected[0]:
                model.first = said
        return self._compare(name, model, place, said)

    def let_functions_try(self, now_s: float) -> None:
        """Lets refused functions answer again, twice a minute: only their answers tell what they serve."""
        if now_s < self._next_try_s:
            return
        self._next_try_s = now_s + TRY_AGAIN_S
        for name, model in self._models.items():
            for place in [place for place in model.refused if Place.parse(place).backend is Backend.FUNCTION]:
                del model.refused[place]
                self._tell(name, model, place)

    def edge_refused(self) -> bool:
        """Whether an edge server is refused for a model."""
        return any(
            Place.parse(place).backend is Backend.EDGE for model in self._models.values() for place in model.refused
        )

    def row(self, name: str) -> dict[str, object]:
        """Returns a model's part of GET /v1/status."""
        model = self._models[name]
        identity, why = model.expected
        return {
            "expected": identity or None,
            "expected_by": why.value if identity else None,
            "unidentified": sorted(place for place, said in model.heard.items() if not said),
            "refused": dict(model.refused),
        }

    def _compare_all(self, name: str, model: _Model) -> None:
        for place, said in list(model.heard.items()):
            if said:
                self._compare(name, model, place, said)

    def _compare(self, name: str, model: _Model, place: str, said: str) -> str:
        expected, why = model.expected
        known = model.refused.get(place, "")
        if said == expected or not expected:
            if known:
                del model.refused[place]
                log(logging.INFO, "identity_accepted", model=name, place=place, identity=said)
                self._tell(name, model, place)
            return ""
        sentence = _sentence(name, place, said, expected, why)
        model.refused[place] = sentence
        if known != sentence:
            log(logging.ERROR, "identity_refused", model=name, place=place, message=sentence)
            self.refused(place)
        self._tell(name, model, place)
        return sentence

    def _let_all(self, name: str, model: _Model) -> None:
        for place in list(model.refused):
            del model.refused[place]
            self._tell(name, model, place)

    def _tell(self, name: str, model: _Model, place: str) -> None:
        endpoint = Place.parse(place).endpoint
        barred = any(Place.parse(other).endpoint == endpoint for other in model.refused)
        self.post(ModelBarred(name, endpoint, barred))


_WHY: Mapping[AcceptedBy, str] = {
    AcceptedBy.OPERATOR: "an operator accepted it",
    AcceptedBy.CONFIG: "`identity` in [[model]]",
    AcceptedBy.CARD: "the card in [[model]]",
    AcceptedBy.FIRST_REPORT: "it was the first that was reported",
}


def _sentence(name: str, place: str, said: str, expected: str, why: AcceptedBy) -> str:
    return (
        f"{place} serves model {name} with the identity {said or 'that it no longer reports'}, but {expected} is"
        f" expected ({_WHY[why]}); bring the same card and files there, or accept what it serves with"
        f" `identity` in [[model]] or PUT /v1/models/{name}/identity"
    )
