"""The simulated policies by hand: requests arrive, batches come back, and what is sent for it is told."""

from collections.abc import Sequence
from dataclasses import replace

from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.messages import AnswerRequest, BatchFinished, RequestArrived, SendBatch
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline
from scheduler.simulator.policies.site import Site, site_of
from scheduler.simulator.scenario import Scenario, SimulatedClass


def scenario_of(policy: str, *, slo_s: float = 1.0) -> Scenario:
    """Returns the default scenario under a policy, with one class of this SLO."""
    return Scenario(policy=policy, classes=(SimulatedClass(ServiceClass(slo_s=slo_s)),))


def site(*, slo_s: float = 1.0, noise: float = 0.0, rate_rps: float = 100.0) -> Site:
    """Returns the site of the default scenario."""
    scenario = replace(scenario_of("edf", slo_s=slo_s), edge_noise=noise, function_noise=noise)
    return replace(site_of(scenario, ()), mean_rate_rps=rate_rps)


def requests_at(*arrivals_s: float, slo_s: float = 1.0, class_name: str = "default", first: int = 1) -> list[Request]:
    """Returns requests that arrive at these times, numbered from `first` on."""
    return [
        Request(number, "simulated", at_s, at_s + slo_s, body_bytes=100, class_name=class_name)
        for number, at_s in enumerate(arrivals_s, start=first)
    ]


def give(policy: Baseline, requests: Sequence[Request], now_s: float) -> list[Batch]:
    """Lets requests arrive and returns the batches sent for it."""
    commands = policy.handle([RequestArrived(request) for request in requests], now_s)
    return [command.batch for command in commands if isinstance(command, SendBatch)]


def finish(policy: Baseline, batch: Batch, now_s: float) -> list[Batch]:
    """Lets a batch come back, checks that its requests are answered, and returns the batches sent for it."""
    report = BatchReport(elapsed_s=now_s - batch.sent_at_s)
    commands = policy.handle([BatchFinished(batch.batch_id, report)], now_s)
    answered = {command.request_id for command in commands if isinstance(command, AnswerRequest)}
    assert answered == set(batch.request_ids)
    return [command.batch for command in commands if isinstance(command, SendBatch)]
