"""A closed loop: clients of which each sends its next request when it has an answer, as benchmark tools do."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from scheduler.domain.requests import Request
from scheduler.simulator.scenario import ScenarioError

MAX_CLIENTS = 100_000
MAX_THINK_S = 3600.0


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Description of clients that wait for their answers.

    Attributes:
        clients: how many.
        think_s: mean of the exponential time between an answer, or a refusal, and the client's next request, seconds.
        requests: after which no client sends another one; None: no limit.
        duration_s: after which none does; None: no limit.
    """

    clients: int
    think_s: float = 0.001
    requests: int | None = 20_000
    duration_s: float | None = None

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ScenarioError: one is out of range; the message names the flag of the command.
        """
        if not 1 <= self.clients <= MAX_CLIENTS:
            raise ScenarioError(f"--clients must be from 1 to {MAX_CLIENTS}, not {self.clients}")
        if not 0 < self.think_s <= MAX_THINK_S:
            raise ScenarioError(f"--think-s must be above 0 and at most {MAX_THINK_S:g}, not {self.think_s:g}")
        if self.requests is not None and self.requests < 1:
            raise ScenarioError(f"--requests must be at least 1, not {self.requests}")


class Clients:
    """The clients of a closed loop while they run."""

    def __init__(
        self,
        loop: ClosedLoop,
        *,
        make: Callable[[int, float], Request],
        rng: np.random.Generator,
        first_id: int = 1,
    ) -> None:
        """Stores its parts.

        Args:
            loop: its description.
            make: returns the request with an id that arrives at a time.
            rng: draws the times between answer and request.
            first_id: id of the first request; the following ones ascend.
        """
        self._loop, self._make, self._rng = loop, make, rng
        self._first_id = self._next_id = first_id

    def begin(self) -> Iterable[Request]:
        """Returns the first request of each client."""
        first = [self._next(0.0) for _ in range(self._loop.clients)]
        return [request for request in first if request is not None]

    def after(self, request_id: int, now_s: float) -> Request | None:
        """Returns the request that follows the end of another; None after the last, and where that was no client's."""
        return self._next(now_s) if request_id >= self._first_id else None

    def _next(self, now_s: float) -> Request | None:
        loop = self._loop
        arrives_s = now_s + float(self._rng.exponential(loop.think_s))
        sent = self._next_id - self._first_id
        if (loop.requests is not None and sent >= loop.requests) or (
            loop.duration_s is not None and arrives_s > loop.duration_s
        ):
            return None
        request = self._make(self._next_id, arrives_s)
        self._next_id += 1
        return request
