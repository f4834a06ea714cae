"""The limits that operators set for each model, on top of its plan."""

from collections.abc import Callable, Mapping

from scheduler.domain.messages import LimitsChanged
from scheduler.domain.plans import Limits


class ModelLimits:
    """Window and batch caps of each model, as they were set last."""

    def __init__(self, post: Callable[[LimitsChanged], None]) -> None:
        """Starts without limits.

        Args:
            post: gives each change to the engine.
        """
        self._post = post
        self._by_model: dict[str, Limits] = {}

    def set(self, model: str, limits: Limits) -> None:
        """Replaces a model's limits from now on."""
        self._by_model[model] = limits
        self._post(LimitsChanged(model, limits))

    def of(self, model: str) -> Limits:
        """Returns a model's limits; all None before they are first set."""
        return self._by_model.get(model, Limits())

    def by_model(self) -> Mapping[str, Limits]:
        """Returns the limits of every model for which some were set."""
        return dict(self._by_model)
