"""Where hundreds of batches come back in a second, few are learned from, and what is learned of them is the same."""

from random import Random

import pytest

from scheduler.estimators.lesson_budget import LESSONS_PER_S, LessonBudget
from scripts.support.steady_queue import CASES, SteadyQueue


def test_lone_batches_are_all_learned_from_and_many_are_thinned_to_the_budget() -> None:
    for rate in (1, 50, 99):
        budget = LessonBudget()
        assert all(budget.takes(number / rate) for number in range(10 * rate))
    for rate in (150, 1_000, 20_000):
        budget = LessonBudget()
        taken = [sum(budget.takes(second + n / rate) for n in range(rate)) for second in range(5)]
        assert all(LESSONS_PER_S / 2 <= count <= LESSONS_PER_S for count in taken[1:]), taken
        assert taken[0] < 7 * LESSONS_PER_S


def test_after_a_pause_batches_are_few_again() -> None:
    budget = LessonBudget()
    for n in range(5_000):
        budget.takes(n / 5_000)
    assert all([budget.takes(10.0 + n / 20) for n in range(100)][60:])


def test_which_batches_are_taken_does_not_depend_on_how_long_they_took() -> None:
    """One looked for at a time of one's choice would be a long one more often: their mean would be 10 % too long."""
    random, budget, at_s = Random(1), LessonBudget(), 0.0
    seen, learned = [], []
    for _ in range(60_000):
        took_s = random.expovariate(1_000.0)
        at_s += took_s
        seen.append(took_s)
        if budget.takes(at_s):
            learned.append(took_s)
    assert len(learned) < len(seen) / 8
    assert sum(learned) / len(learned) == pytest.approx(sum(seen) / len(seen), rel=0.03)


def test_a_second_of_lone_requests_has_no_more_lessons_than_the_budget() -> None:
    """Neither their estimates nor the call of the engine that each lesson takes."""
    queue = SteadyQueue(CASES["single requests"], 2)
    queue.serve(2_000)
    knowledge = queue.engine._control._estimates.models["m"]
    lessons, ended, began_s = knowledge.lessons, queue.ended, queue.now_s
    queue.serve(2_000)
    assert (queue.ended - ended) / (queue.now_s - began_s) > 3 * LESSONS_PER_S
    assert knowledge.lessons - lessons <= LESSONS_PER_S * (1.0 + queue.now_s - began_s)
