"""Runs a simulation while a person watches: its progress, and what there is when Ctrl-C ends it early."""

from __future__ import annotations

from dataclasses import replace

from scheduler.simulator.shell import Journal, Simulation
from scheduler.terminal import first_interrupt, progress


def run_watched(
    simulation: Simulation, *, requests: int | None, duration_s: float | None = None, shown: bool = True
) -> tuple[Journal, str]:
    """Runs a simulation, and shows its progress on a terminal.

    Args:
        simulation: not yet run.
        requests: how many requests there will be; None if that is not known.
        duration_s: the virtual seconds that it takes then; None if that is not known either.
        shown: whether to show progress at all.

    Returns:
        The journal, and a sentence that says what it lacks; empty if it is whole. After Ctrl-C it has the requests that
        had ended, and the batches that had.
    """
    total, unit = (requests, "requests") if requests is not None else (duration_s, "virtual seconds")
    last_s = 0.0
    with progress("simulating", total, unit, shown=shown) as work, first_interrupt() as interrupted:

        def goes_on(journal: Journal, now_s: float) -> bool:
            nonlocal last_s
            last_s = now_s
            work.reach(len(journal.ended_at_s) if requests is not None else now_s)
            return not interrupted()

        journal = simulation.run(goes_on)
    ended = [request for request in journal.requests if request.request_id in journal.ended_at_s]
    if len(ended) == len(journal.requests) and not interrupted():
        return journal, ""
    batches = {number: sent for number, sent in journal.batches.items() if sent.outcome.at_s <= last_s}
    of_all = f" of {requests}" if requests is not None else ""
    sentence = f"interrupted when {len(ended)}{of_all} requests had ended; the cost is that of the batches that had"
    return replace(journal, requests=ended, batches=batches), sentence
