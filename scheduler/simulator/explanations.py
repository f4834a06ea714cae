"""Writes the explanations of a simulated run, in the lines of the daemon's explain file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from scheduler.dispatch.decision_ring import DecisionRing, Explanation
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.requests import Request
from scheduler.explain.json_lines import to_json
from scheduler.simulator.scenario import ScenarioError

EXPLAINED = ("edgeburst", "oracle-laws", "log-oracle")
"""Policies that are the engine, which records its decisions."""


def check_explainable(policy: str) -> None:
    """Raises ScenarioError for a policy that records no decisions."""
    if policy not in EXPLAINED:
        engines = f"{', '.join(EXPLAINED[:-1])} or {EXPLAINED[-1]}"
        raise ScenarioError(f"--explain needs a policy that is the engine ({engines}), not {policy}")


def whole_ring(requests: int) -> DecisionRing:
    """Returns a ring that keeps all decisions about so many requests: some 3 KB of memory each."""
    return DecisionRing(max(1, requests), whole=True)


def explanations(ring: DecisionRing, requests: Iterable[Request]) -> Iterator[Explanation]:
    """Yields what the ring knows of each request, in order."""
    found = (ring.explain(request.request_id) for request in requests)
    return (explanation for explanation in found if explanation is not None)


def write_explanations(ring: DecisionRing, requests: Iterable[Request], path: Path) -> None:
    """Writes one line of JSON a request.

    Raises:
        EdgeburstError: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{to_json(explanation)}\n" for explanation in explanations(ring, requests))
    except OSError as error:
        raise EdgeburstError(f"cannot write the explanations to {path}: {error.strerror or error}") from error
