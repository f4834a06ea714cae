"""What the live engine gets, as an engine of another configuration would have got it."""

from dataclasses import replace

from scheduler.domain.messages import (
    LimitsChanged,
    Message,
    ModelBarred,
    ProbeMeasured,
    RequestArrived,
    RequestCancelled,
    SettingsChanged,
)
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import FUNCTIONS, Place, Request

_SAME_S = 1e-6
"""Two deadlines that differ by less are the same: they were added and taken apart again."""


class Translation:
    """Of the messages of one engine into those of another."""

    def __init__(self, live: EngineSettings, shadow: EngineSettings, *, answer_reserve_s: float) -> None:
        """Stores both sides.

        Args:
            live: settings of the engine that gets the messages.
            shadow: settings of the other one.
            answer_reserve_s: what a daemon of the other configuration keeps of each deadline for its own work.
        """
        self._live = _by_name(live)
        self._models = _by_name(shadow)
        self._answer_reserve_s = answer_reserve_s
        edges = {Place.edge(edge.name) for edge in shadow.edges}
        self._places = edges | ({FUNCTIONS} if any(model.tiers for model in shadow.models) else set())

    def of(self, message: Message) -> Message | None:
        """Returns the other engine's message; None where it gets none.

        Outcomes, bills, plans and money are its own. A reload of the live configuration changes what deadlines mean.
        """
        match message:
            case RequestArrived(request):
                return RequestArrived(self._request(request))
            case RequestCancelled() | LimitsChanged():
                return message
            case ProbeMeasured(place) if place.endpoint in self._places:
                return message
            case ModelBarred(model, place) if model in self._models and place.endpoint in self._places:
                return message
            case SettingsChanged(settings):
                self._live = _by_name(settings)
        return None

    def too_large(self, request: Request) -> bool:
        """Whether the other daemon would not take a request in at all, for its items."""
        model = self._models.get(request.model)
        return model is not None and request.items > model.max_items

    def _request(self, request: Request) -> Request:
        model = self._models.get(request.model)
        if model is None:
            return request
        service_class = _class(model, request.class_name)
        timeout_s = self._own_timeout_s(request)
        timeout_s = service_class.slo_s if timeout_s is None else timeout_s
        reserve_s = min(self._answer_reserve_s, timeout_s / 2)
        return replace(
            request,
            deadline_s=request.arrived_at_s + timeout_s - reserve_s,
            reserve_s=reserve_s,
            class_name=service_class.name,
        )

    def _own_timeout_s(self, request: Request) -> float | None:
        """Returns the deadline that the client asked for; None: its class's."""
        timeout_s = request.deadline_s + request.reserve_s - request.arrived_at_s
        model = self._live.get(request.model)
        known = () if model is None else model.classes
        slo_s = next((each.slo_s for each in known if each.name == request.class_name), None)
        return None if slo_s is not None and abs(timeout_s - slo_s) < _SAME_S else timeout_s


def _by_name(settings: EngineSettings) -> dict[str, ModelSettings]:
    return {model.name: model for model in settings.models}


def _class(model: ModelSettings, name: str) -> ServiceClass:
    """Returns the class of that name, or the model's first one."""
    return next((each for each in model.classes if each.name == name), model.classes[0])
