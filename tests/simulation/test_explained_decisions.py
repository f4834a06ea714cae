"""What is kept of every request of a run agrees with what happened to it, and there are words for all of it."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.cli import main
from scheduler.dispatch.decision_ring import ANSWERED, Explanation
from scheduler.domain.decisions import Cause
from scheduler.domain.plans import ServiceClass
from scheduler.explain.json_lines import from_json
from scheduler.explain.text import describe
from scheduler.explain.words import CAUSES, OUTCOMES, REASONS
from scheduler.simulator.explanations import explanations, whole_ring
from scheduler.simulator.faults import Fault
from scheduler.simulator.scenario import POLICIES, Scenario, SimulatedClass, SpendCaps
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

CLASSES = (
    SimulatedClass(ServiceClass("high"), priority=1),
    SimulatedClass(ServiceClass("low", serve_late=True), priority=3),
    SimulatedClass(ServiceClass("local", edge_only=True)),
    SimulatedClass(ServiceClass("patient", slo_s=5.0, deferrable=True)),
)
ROUGH = Scenario(
    classes=CLASSES,
    edge_noise=0.2,
    function_noise=0.25,
    rtt_s=0.02,
    edge_faults=(Fault("slow", 2.0, 3.0, 30.0), Fault("down", 5.0, 6.0)),
    function_faults=(Fault("throttle", 6.5, 7.0), Fault("slow", 7.5, 8.5, 8.0)),
)
CAPS = [SpendCaps(), SpendCaps(2e-4, None, "refuse-low-priority")]


def run(scenario: Scenario) -> tuple[Journal, list[Explanation]]:
    """Simulates 800 requests; returns the journal and the explanation of each of them."""
    requests = make_requests(scenario, poisson(70.0, rng=generators(1)[0], requests=800))
    ring = whole_ring(len(requests))
    journal = make_simulation(scenario, requests, ring=ring).run()
    return journal, list(explanations(ring, requests))


@pytest.mark.parametrize("caps", CAPS, ids=["uncapped", "capped"])
def test_every_request_is_explained_by_what_happened_to_it(caps: SpendCaps) -> None:
    journal, kept = run(replace(ROUGH, caps=caps))
    assert [explanation.request for explanation in kept] == list(journal.requests)
    causes = set()
    for one in kept:
        refusal = journal.refusals.get(one.request_id)
        assert one.outcome == (ANSWERED if refusal is None else refusal.kind.value)
        assert one.ended_at_s == journal.ended_at_s[one.request_id]
        assert one.decisions[0].cause is Cause.ARRIVAL
        assert one.decisions[0].at_s == one.request.arrived_at_s
        assert one.left_out == 0
        if refusal is None:
            assert journal.answered_by[one.request_id] in [s.batch.batch_id for s in one.sendings]
        for sending in one.sendings:
            assert sending.batch == journal.batches[sending.batch.batch_id].batch
        assert one.outcome in {ANSWERED, *OUTCOMES}
        causes |= {decision.cause for decision in one.decisions}
        assert describe(one).startswith(f"request {one.request_id}\n")
    assert {Cause.ARRIVAL, Cause.FAILURE} <= causes <= CAUSES.keys()


@pytest.mark.parametrize("caps", CAPS, ids=["uncapped", "capped"])
def test_a_refusal_has_the_reason_of_the_decision_that_led_to_it(caps: SpendCaps) -> None:
    journal, kept = run(replace(ROUGH, caps=caps))
    refused = [one for one in kept if one.decisions[-1].choice is None]
    assert {journal.refusals[one.request_id].reason for one in refused} <= {reason.value for reason in REASONS}
    for one in refused:
        assert journal.refusals[one.request_id].reason == one.decisions[-1].reason.value
    assert len(refused) > 10
    if caps.per_hour_cny is not None:
        assert "spend-cap" in {journal.refusals[one.request_id].reason for one in refused}


def test_a_refused_edge_only_request_was_refused_for_its_class() -> None:
    journal, kept = run(replace(ROUGH, caps=CAPS[1]))
    by_choice = [one for one in kept if one.request.class_name == "local" and one.decisions[-1].choice is None]
    assert {journal.refusals[one.request_id].reason for one in by_choice} == {"class"}


def test_each_member_of_a_batch_has_the_reason_that_put_it_there() -> None:
    journal, kept = run(ROUGH)
    batches = [sent.batch for sent in journal.batches.values() if not sent.batch.warming]
    assert all(len(batch.reasons) == len(batch.request_ids) for batch in batches)
    counted = Counter(reason for batch in batches for reason in batch.reasons)
    told = Counter(
        dict(zip(sending.batch.request_ids, sending.batch.reasons, strict=True))[one.request_id]
        for one in kept
        for sending in one.sendings
    )
    assert counted == told
    assert len(counted) > 4


ARGUMENTS = ["simulate", "--poisson", "180", "--requests", "1500", "--edge-noise", "0.1", "--edge-fault", "down:3,4"]


@pytest.mark.parametrize("policy", ["edgeburst", "oracle-laws", "log-oracle"])
def test_simulate_writes_a_line_for_each_request_with_all_its_decisions(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, rows = tmp_path / "why.jsonl", tmp_path / "rows.csv"
    assert main([*ARGUMENTS, "--policy", policy, "--explain", str(file), "--rows", str(rows)]) == 0
    told = [from_json(line)[0] for line in file.read_text().splitlines()]
    with rows.open(newline="") as table:
        happened = [(int(row["request_id"]), row["outcome"], row["batch_id"]) for row in csv.DictReader(table)]
    assert [(one.request_id, one.outcome) for one in told] == [row[:2] for row in happened]
    for one, (_, outcome, batch_id) in zip(told, happened, strict=True):
        assert one.left_out == 0
        assert outcome != ANSWERED or int(batch_id) in [sending.batch.batch_id for sending in one.sendings]
    capsys.readouterr()
    assert main(["explain", "700", "--file", str(file)]) == 0
    assert capsys.readouterr().out == describe(told[699]) + "\n"


@pytest.mark.parametrize("policy", sorted({*POLICIES} - {"edgeburst", "oracle-laws", "log-oracle"}))
def test_a_policy_that_is_not_the_engine_has_no_explanations(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "why.jsonl"
    assert main([*ARGUMENTS, "--policy", policy, "--explain", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"edgeburst: --explain needs a policy that is the engine (edgeburst, oracle-laws or log-oracle), not {policy}\n"
    )
    assert not file.exists()


def test_a_file_of_explanations_that_cannot_be_written_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "why.jsonl"
    assert main(["simulate", "--poisson", "50", "--requests", "5", "--json", "--explain", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"edgeburst: cannot write the explanations to {file}: No such file or directory\n"


def test_simulated_explanations_are_what_programs_read(tmp_path: Path) -> None:
    file = tmp_path / "why.jsonl"
    assert main(["simulate", "--poisson", "50", "--requests", "5", "--json", "--explain", str(file)]) == 0
    values = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["request_id"] for one in values] == [1, 2, 3, 4, 5]
    assert {(one["version"], one["model"], one["client_id"]) for one in values} == {(2, "simulated", "")}
