"""The limits that operators set for each model, on top of its plan."""

from collections.abc import Callable, Mapping

from scheduler.domain.messages import LimitsChanged
from scheduler.domain.plans import Limits


class ModelLimits:
    """Window and batch caps of each model, as they were set last."""

    def __init__(
        self,
        post: Callable[[LimitsChanged], None],
        *,
        before: Mapping[str, Limits] | None = None,
        save: Callable[[str, Limits], None] | None = None,
    ) -> None:
        """Starts with the limits of an earlier process, if there are any.

        Args:
            post: gives each change to the engine.
            before: limits that the engine has already, by model.
            save: keeps a model's limits for the next process.
        """
        self._post = post
        self._save = save
        self._by_model: dict[str, Limits] = dict(before or {})

    def set(self, model: str, limits: Limits) -> None:
        """Replaces a model's limits from now on."""
        self._by_model[model] = limits
        self._post(LimitsChanged(model, limits))
        if self._save is not None:
            self._save(model, limits)

    def of(self, model: str) -> Limits:
        """Returns a model's limits; all None before they are first set."""
        return self._by_model.get(model, Limits())

    def by_model(self) -> Mapping[str, Limits]:
        """Returns the limits of every model for which some were set."""
        return dict(self._by_model)
