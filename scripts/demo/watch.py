"""Observes the daemon twice a second through its HTTP interface: state, batches, plans."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import requests

from scripts.demo.errors import DemoError

POLL_S = 0.5
_LIMIT_S = 5.0
_BATCHES_A_TIME = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """State of the daemon at one time.

    Attributes:
        at_s: time of the monotonic clock, which all processes share.
        rate_rps: estimated rate, requests a second.
        waiting_requests: requests without an answer.
        queued_requests: requests that have not been sent to a backend.
        spent_cny: cost that the daemon has booked.
        uplink_bytes_per_s: estimated bandwidth; None without an estimate.
        function_batches: function batches in flight.
        provisioning_cny: the part of the booked cost that is for starts of provisioned instances.
    """

    at_s: float
    rate_rps: float
    waiting_requests: int
    queued_requests: int
    spent_cny: float
    uplink_bytes_per_s: float | None
    function_batches: int = 0
    provisioning_cny: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch that has ended.

    Attributes:
        batch_id: its number.
        backend: edge or function.
        requests: number of its requests.
        sent_at_s: time of sending.
        finished_at_s: time of its answer or failure.
        predicted_service_s: service time predicted by the daemon.
        service_s: service time reported by the backend; None if it reports none.
        start_kind: cold or warm; empty on the edge.
        instance_id: id of the function instance.
        cost_cny: cost that the daemon booked.
        error: kind and sentence of its failure; empty if it was answered.
    """

    batch_id: int
    backend: str
    requests: int
    sent_at_s: float
    finished_at_s: float
    predicted_service_s: float
    service_s: float | None
    start_kind: str
    instance_id: str
    cost_cny: float
    error: str
    place: str
    """`edge:NAME` or `function:TIER`."""
    reason: str
    """What decided the place of most of its requests."""

    def counted_from(self, start_s: float) -> Batch:
        """Returns the batch with its times counted from a time of the monotonic clock."""
        return replace(self, sent_at_s=self.sent_at_s - start_s, finished_at_s=self.finished_at_s - start_s)


def write_batches(batches: Sequence[Batch], path: Path) -> None:
    """Writes batches.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Batch)])
        writer.writeheader()
        writer.writerows(asdict(batch) for batch in batches)


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """Plan with its cause.

    Attributes:
        plan_id: its number.
        at_s: time at which it was made.
        cause: start, rate, bandwidth, edge-service, expiry, limits or settings.
        detail: the cause in numbers.
        edge_batch_cap: the largest edge batch; None if the plan was replaced before it was read.
        function_target_batch: planned size of a function batch; None as above, or without functions.
        expected_cost_cny_per_s: expected cost a second; None as above.
    """

    plan_id: int
    at_s: float
    cause: str
    detail: str
    edge_batch_cap: int | None = None
    function_target_batch: int | None = None
    expected_cost_cny_per_s: float | None = None


class Watch:
    """Observations of the daemon.

    Args:
        url: address of the daemon.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()
        self._http.trust_env = False
        self._last_record = 0
        self._by_id: dict[int, Batch] = {}
        self._plans: dict[int, PlanSeen] = {}
        self.samples: list[Sample] = []

    @property
    def batches(self) -> list[Batch]:
        """All batches so far, in the order of sending; a later record of a batch replaces an earlier one."""
        return sorted(self._by_id.values(), key=lambda batch: batch.sent_at_s)

    @property
    def plans(self) -> list[PlanSeen]:
        """All plans so far, the oldest first."""
        return [self._plans[plan_id] for plan_id in sorted(self._plans)]

    def look(self) -> Sample:
        """Requests state, batches and plans once.

        Raises:
            DemoError: the daemon does not answer.
        """
        status = self._get("/v1/status")
        engine = status["engine"]
        sample = Sample(
            at_s=float(status["now_s"]),
            rate_rps=engine["rate_rps"],
            waiting_requests=status["waiting_requests"],
            queued_requests=engine["queued_requests"],
            spent_cny=engine["spent"],
            uplink_bytes_per_s=engine["uplink_bytes_per_s"],
            function_batches=engine["function_batches_in_flight"],
            provisioning_cny=sum(row["amount"] for row in engine.get("spending", ()) if row["what"] == "provisioning"),
        )
        self.samples.append(sample)
        self._note_plans(status["plans"], engine["plan"])
        self._follow_batches()
        return sample

    def settled(self, *, limit_s: float) -> Sample:
        """Waits until no function batch is in flight, and returns the state: all money is booked then.

        Raises:
            DemoError: the daemon does not answer, or a batch is still in flight after the limit.
        """
        end_s = time.monotonic() + limit_s
        while (sample := self.look()).function_batches:
            if time.monotonic() > end_s:
                raise DemoError(f"{sample.function_batches} function batches did not end within {limit_s:g} s")
            self.rest(time.monotonic())
        return sample

    def rest(self, since_s: float) -> None:
        """Sleeps until the next observation is due."""
        time.sleep(max(0.0, since_s + POLL_S - time.monotonic()))

    def _note_plans(self, plans: list[Mapping[str, Any]], current: Mapping[str, Any] | None) -> None:
        for plan in plans:
            seen = PlanSeen(plan["plan_id"], plan["at_s"], plan["cause"], plan["detail"])
            self._plans.setdefault(seen.plan_id, seen)
        if current is not None and current["groups"]:
            group = current["groups"][0]
            self._plans[current["plan_id"]] = PlanSeen(
                current["plan_id"],
                current["made_at_s"],
                current["cause"],
                current["detail"],
                group["edge_batch_cap"],
                group["buffers"][0]["target_batch"] if group["buffers"] else None,
                group["expected_cost_per_s"],
            )

    def _follow_batches(self) -> None:
        while rows := self._get(f"/v1/batches?after={self._last_record}&limit={_BATCHES_A_TIME}")["batches"]:
            for row in rows:
                self._by_id[row["batch_id"]] = _batch(row)
            self._last_record = rows[-1]["record"]

    def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = self._http.get(self.url + path, timeout=_LIMIT_S)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise DemoError(f"the daemon does not answer: {error}") from error
        content: dict[str, Any] = answer.json()
        return content


def _batch(row: Mapping[str, Any]) -> Batch:
    return Batch(
        batch_id=row["batch_id"],
        backend=row["backend"],
        requests=row["requests"],
        sent_at_s=row["sent_at_s"],
        finished_at_s=row["finished_at_s"],
        predicted_service_s=row["predicted_service_s"],
        service_s=row["service_s"],
        start_kind=row["start_kind"],
        instance_id=row["instance_id"],
        cost_cny=row["cost"],
        error=row["error"],
        place=row["place"],
        reason=row["reason"],
    )
