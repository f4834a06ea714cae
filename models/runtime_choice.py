"""Which runtime serves a model: the named one, the usual one, or the fastest of those whose outputs agree."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from models.agreement import disagreement
from models.candidates import Candidate, of_conversion, of_onnx, of_torch
from models.card import Card
from models.errors import DeviceLost, ModelError
from models.onnx_external import check_external
from models.prepared import prepared_rehearsal
from models.runtime import Array, Runtime
from models.runtime_names import check_name
from models.weights_file import Weights

_log = logging.getLogger("models")

_ROUNDS: Final = 5
# A batch of the largest size may take at most this part of the time for each run of each candidate.
_RUNS_OF_EACH: Final = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host asks for.

    Attributes:
        device: "auto", "cpu" or "cuda".
        runtime: "auto" or one of `runtime_names.RUNTIMES`.
        threads: threads of one operation on the CPU.
        max_batch: largest batch.
        measure_s: seconds for measuring; 0: none.
    """

    device: str
    runtime: str
    threads: int
    max_batch: int
    measure_s: float


def runtime_for(card: Card, weights: Weights, wanted: Wanted) -> Runtime:
    """Returns the runtime that serves a model of any format but python.

    Raises:
        ModelError: it cannot be loaded, or the named runtime does not run it.
    """
    candidates = _candidates(card, weights, wanted)
    if wanted.runtime != "auto":
        return _named(card, candidates, wanted.runtime).open()
    fit, tried = _of_precision(card, candidates)
    if wanted.measure_s <= 0 or len(fit) == 1:
        runtime = fit[0].open()
        runtime.report = replace(runtime.report, tried=tried)
        return runtime
    return fastest(
        card,
        fit,
        tried=tried,
        max_batch=wanted.max_batch,
        budget_s=wanted.measure_s,
        labels=weights.origin != "random",
    )


def _candidates(card: Card, weights: Weights, wanted: Wanted) -> Sequence[Candidate]:
    check_name(wanted.runtime)
    device, threads = wanted.device, wanted.threads
    if card.format == "onnx":
        assert weights.file is not None
        check_external(card, weights.file, own=weights.origin == "card")
        return of_onnx(card, weights.file, device, threads)
    on_onnx = wanted.runtime.startswith("onnxruntime")
    measured = wanted.runtime == "auto" and wanted.measure_s > 0
    usual = wanted.runtime == "auto" and not measured and not device.startswith("cuda")
    # Without torch: a third of the time to start, and half of the memory.
    if (on_onnx or usual) and (found := of_conversion(card, weights, device, threads)):
        return found
    return of_torch(card, weights, device, threads, with_onnx=measured or on_onnx)


def _named(card: Card, candidates: Sequence[Candidate], name: str) -> Candidate:
    for candidate in candidates:
        if candidate.name == name:
            return candidate
    raise ModelError(
        f"model {card.name}, of format {card.format}, cannot run on {name!r} on this device: choose auto,"
        f" {', '.join(candidate.name for candidate in candidates)}"
    )


def _of_precision(card: Card, candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, float | str]]:
    """Returns the candidates of the card's precision, at least the usual one, and why the others are not tried."""
    problems: dict[str, float | str] = {each.name: each.problem for each in candidates if each.problem is not None}
    fit = [each for each in candidates if each.problem is None]
    if card.precision == "auto":
        return fit, problems
    chosen = [each for each in fit if each.precision == card.precision] or [fit[0]]
    return chosen, problems


@dataclass(slots=True)
class _Trial:
    """A candidate under measurement; `seconds` by batch size."""

    candidate: Candidate
    runtime: Runtime
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def run(self, inputs: Mapping[str, Array], items: int, clock: Callable[[], float]) -> Mapping[str, Any]:
        started_s = clock()
        outputs = self.runtime.run(inputs)
        self.seconds.setdefault(items, []).append(clock() - started_s)
        return outputs

    def median_s(self, items: int) -> float:
        return statistics.median(self.seconds[items])


def fastest(
    card: Card,
    candidates: Sequence[Candidate],
    *,
    tried: Mapping[str, float | str],
    max_batch: int,
    budget_s: float,
    labels: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> Runtime:
    """Returns the fastest of the candidates whose outputs agree with the first's, by batches of one and of many.

    Args:
        card: with the tolerance.
        candidates: the first is the reference.
        tried: why others are not among them, for the report.
        max_batch: largest batch; a smaller one is measured where that would take too long.
        budget_s: about how long to measure, seconds; what comes after it is not tried.
        labels: whether the place of the largest value must agree too.
        clock: returns seconds.

    Raises:
        ModelError: the first candidate cannot be loaded.
    """
    ends_s = clock() + budget_s
    reference = _Trial(candidates[0], candidates[0].open())
    one = prepared_rehearsal(card, 1)
    try:
        reference.run(one, 1, clock)
    except DeviceLost:
        raise
    except ModelError as error:
        # Made-up inputs are not everything to every network; that is no reason not to serve.
        reference.runtime.report = replace(reference.runtime.report, tried={reference.candidate.name: str(error)})
        return reference.runtime
    reference.seconds.clear()
    expected = {1: reference.run(one, 1, clock)}
    affordable = budget_s / (_RUNS_OF_EACH * len(candidates) * max(reference.median_s(1), 1e-6))
    many = max(1, min(max_batch, int(affordable)))
    batches = {1: one, many: prepared_rehearsal(card, many)}
    expected[many] = reference.run(batches[many], many, clock)
    trials, why = [reference], dict(tried)
    for candidate in candidates[1:]:
        if clock() > ends_s:
            why[candidate.name] = "there was no time to measure it"
            continue
        outcome = _tried(card, candidate, batches, expected, labels, clock)
        if isinstance(outcome, _Trial):
            trials.append(outcome)
        else:
            why[candidate.name] = outcome
    for trial in trials:
        # The first run of each size is slower: kernels are chosen and memory is allocated.
        trial.seconds.clear()
    for number in range(_ROUNDS):
        if number and clock() > ends_s:
            break
        for trial in trials:
            for items, inputs in batches.items():
                trial.run(inputs, items, clock)
    best = min(trials, key=lambda trial: trial.median_s(1) * trial.median_s(many))
    measured = {trial.candidate.name: round(trial.median_s(many), 6) for trial in trials}
    report = replace(best.runtime.report, tried={**measured, **why})
    best.runtime.report = report
    _log.info("Model %s runs on %s; seconds at batch %d, or why not: %s", card.name, report.name, many, report.tried)
    return best.runtime


def _tried(
    card: Card,
    candidate: Candidate,
    batches: Mapping[int, Mapping[str, Array]],
    expected: Mapping[int, Mapping[str, Any]],
    labels: bool,
    clock: Callable[[], float],
) -> _Trial | str:
    """Returns a candidate ready to be measured, or why it is not used."""
    try:
        trial = _Trial(candidate, candidate.open())
        for items, inputs in batches.items():
            problem = disagreement(card, expected[items], trial.run(inputs, items, clock), labels=labels)
            if problem is not None:
                return problem
    except DeviceLost:
        raise
    except ModelError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - moving and casting a network raises whatever torch raises.
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    return trial
