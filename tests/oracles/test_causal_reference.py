"""The causal decision process against a closed form, a linear programme, and the limit with every arrival known."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from scheduler.simulator.limit import NoisyBatch, NoisySite, late_probability
from scheduler.workloads import poisson
from scripts.evaluation.options import NOISY, with_slo
from scripts.limits import causal
from scripts.limits.causal import CausalProblem, CausalProcess
from scripts.limits.references import causal_reference, clairvoyant_reference, local_rates

scipy_optimize = pytest.importorskip("scipy.optimize")


@pytest.mark.parametrize("rate_rps", [2.0, 5.0, 12.0])
def test_one_at_a_time_without_noise_it_is_the_renewal_formula(rate_rps: float) -> None:
    """Only a request that comes in the last 0.2 of the 0.3 s of a service can wait for the next: a cycle serves one."""
    one = CausalProblem(rate_rps, NoisySite(0.5, np.array([0.3]), 0.0, 0.0, (NoisyBatch(1, 0.05, 1.0),)), steps=50)
    none_waits = math.exp(-rate_rps * 0.2)
    expected = 1.0 - 1.0 / (rate_rps * 0.3 + none_waits)
    assert CausalProcess(one).solve(100.0) == pytest.approx(expected, abs=5e-5)


class Programme:
    """The same process as a linear programme: the largest gain g with h(x) + g t(x, a) <= c(x, a) + E h(next)."""

    def __init__(self, problem: CausalProblem, w: float) -> None:
        self.problem, self.site, self.w, self.h = problem, problem.site, w, problem.site.slo_s / problem.steps
        self.columns: dict[object, int] = {"gain": 0}
        self.rows: list[tuple[dict[int, float], float]] = []
        self.sizes = len(problem.site.edge_s)
        self.longest = 1 + math.ceil(problem.site.edge_s[-1] * math.exp(3.5 * problem.site.edge_noise) / self.h)
        self.left_ages = problem.steps // 3 + 1
        self.ages = self.longest + self.left_ages + 1
        self.most = self.sizes + max(causal.LEFT, self.sizes // 4)
        self.mean = problem.rate_rps * self.h

    def column(self, state: object) -> int:
        return self.columns.setdefault(state, len(self.columns))

    def rule(self, state: object, cost: float, seconds: float, after: list[tuple[float, object]]) -> None:
        row = {0: seconds, self.column(state): 1.0}
        for chance, other in after:
            row[self.column(other)] = row.get(self.column(other), 0.0) - chance
        self.rows.append((row, cost))

    def law(self, b: int) -> list[float]:
        normal = NormalDist(math.log(self.site.edge_s[b - 1]), self.site.edge_noise)
        below = [0.0, *(normal.cdf(math.log((t + 0.5) * self.h)) for t in range(1, self.longest)), 1.0]
        return [0.0, *np.diff(below)]

    def joined(self, waiting: int, age: int, steps: int) -> tuple[float, list[tuple[float, object]]]:
        """Cost and states of an edge that is free after some steps in which others joined the waiting."""
        cost, after, mean = 0.0, [], steps * self.mean
        for more in range(60):
            chance = math.exp(-mean) * mean**more / math.factorial(more)
            n = waiting + more
            cost += chance * max(0, n - self.most) * self.cheapest()
            after.append((chance, ("free", min(n, self.most), age + steps)))
        return cost, after

    def cheapest(self) -> float:
        return min(self.w, *(cost / k for k, cost in self.function_costs(0).items()))

    def function_costs(self, age: int) -> dict[int, float]:
        """Cost of a function batch whose members' ages are even from 0 to `age`."""
        costs = {1: self.w}
        for one in self.site.functions:
            late = [
                late_probability(self.site.slo_s - y * self.h, one.median_s, self.site.function_noise)
                for y in range(age + 1)
            ]
            mean = late[0] if age == 0 else float(np.trapezoid(late)) / age
            costs[one.items] = min(costs.get(one.items, math.inf), one.cost + self.w * one.items * mean)
        return costs

    def given(self, items: int, age: float) -> float:
        def at(whole: int) -> float:
            costs, best = self.function_costs(whole), [0.0]
            for n in range(1, items + 1):
                best.append(min(cost + best[n - k] for k, cost in costs.items() if k <= n))
            return best[items]

        whole = min(int(age), self.ages - 2)
        return at(whole) * (1 - age + whole) + at(whole + 1) * (age - whole)

    def late(self, b: int, oldest: int, youngest: float) -> float:
        def one(age: int) -> float:
            slack_s = self.site.slo_s - age * self.h
            return late_probability(slack_s, self.site.edge_s[b - 1], self.site.edge_noise)

        def below(age: float) -> float:
            whole = int(age)
            parts = [float(np.trapezoid([one(y) for y in range(end + 1)])) for end in (whole, whole + 1)]
            return parts[0] * (1 - age + whole) + parts[1] * (age - whole)

        width = oldest - youngest
        others = one(oldest) if width < 1e-9 else (below(oldest) - below(youngest)) / width
        return one(oldest) + (b - 1) * others

    def gathered(self) -> dict[int, float]:
        """Cost of a function batch of consecutive arrivals."""
        costs = {1: self.w}
        for one in self.site.functions:
            late = 0.0
            for gaps in range(one.items):
                waits_s = np.linspace(0, 12 / self.problem.rate_rps, 4001) if gaps else np.zeros(1)
                weights = waits_s ** max(gaps - 1, 0) * np.exp(-self.problem.rate_rps * waits_s)
                tails = [late_probability(self.site.slo_s - s, one.median_s, self.site.function_noise) for s in waits_s]
                late += float(weights @ tails / weights.sum())
            costs[one.items] = min(costs.get(one.items, math.inf), one.cost + self.w * late)
        return costs

    def free(self) -> None:
        self.rule("idle", 0.0, 1 / self.problem.rate_rps, [(1.0, ("free", 1, 0))])
        for n in range(1, self.most + 1):
            for y in range(self.ages):
                age = y * (n - 1) / n
                low = min(int(age), self.ages - 2)
                younger: list[tuple[float, object]] = [
                    (1 - age + low, ("free", n - 1, low)),
                    (age - low, ("free", n - 1, low + 1)),
                ]
                self.rule(("free", n, y), self.w, 0.0, younger if n > 1 else [(1.0, "idle")])
                for b in range(1, min(n, self.sizes) + 1):
                    left = n - b
                    youngest = y * left / n
                    mean_s = self.h * float(np.arange(self.longest + 1) @ self.law(b))
                    late = self.w * self.late(b, y, youngest)
                    begun: list[tuple[float, object]] = [(1.0, ("serving", b, 0, 0))]
                    self.rule(("free", n, y), late + self.given(left, youngest), mean_s, begun)
                    if 0 < left <= causal.LEFT and int(youngest) + 1 < self.left_ages:
                        self.leave(n, y, b, late, mean_s)

    def leave(self, n: int, y: int, b: int, cost: float, mean_s: float) -> None:
        left, after = n - b, []
        youngest = y * left / n
        low = int(youngest)
        for part, age in ((1 - youngest + low, low), (youngest - low, low + 1)):
            for steps, chance in enumerate(self.law(b)):
                more, states = self.joined(left, age, steps)
                cost += part * chance * more
                after += [(part * chance * other, state) for other, state in states]
        self.rule(("free", n, y), cost, mean_s, after)

    def serving(self) -> None:
        costs, most = self.gathered(), causal.GATHERED
        batch = [0.0]
        for n in range(1, most + 1):
            batch.append(min(cost + batch[n - k] for k, cost in costs.items() if k <= n))
        some = 1 - math.exp(-self.mean)
        before = 1 / self.mean - math.exp(-self.mean) / some
        counts = max(4, math.ceil(self.mean + 5 * math.sqrt(self.mean)))
        arrivals = [math.exp(-self.mean) * self.mean**k / math.factorial(k) for k in range(counts)]
        arrivals[-1] += 1 - sum(arrivals)
        for b in range(1, self.sizes + 1):
            law = self.law(b)
            for e in range(self.longest):
                above = sum(law[e + 1 :])
                ends = law[e + 1] / above if above > 1e-12 else 1.0
                for s in range(most + 1):
                    # The end of the step, and the arrivals of the step that are still to be placed.
                    onward: list[tuple[float, object]] = [(ends, "idle")] + (
                        [(1 - ends, ("serving", b, e + 1, s))] if ends < 1 else []
                    )
                    self.rule(("step", b, e, s, 0), ends * batch[s], 0.0, onward)
                    for k in range(1, counts):
                        if s < most:
                            self.rule(("step", b, e, s, k), 0.0, 0.0, [(1.0, ("step", b, e, s + 1, k - 1))])
                            self.rule(("step", b, e, s, k), batch[s + 1], 0.0, [(1.0, ("step", b, e, 0, k - 1))])
                        else:
                            self.rule(("step", b, e, s, k), batch[s], 0.0, [(1.0, ("step", b, e, 1, k - 1))])
                    spilled: list[tuple[float, object]] = [
                        (chance, ("step", b, e, s, k)) for k, chance in enumerate(arrivals)
                    ]
                    self.rule(("serving", b, e, s), 0.0, 0.0, spilled)
                    cost = batch[s]
                    admitted: list[tuple[float, object]] = [(1 - some, ("step", b, e, 0, 0))]
                    for part, offset in ((1 - before, 0), (before, 1)):
                        for t in range(e + 1, self.longest + 1) if above > 1e-12 else ():
                            chance = some * part * law[t] / above
                            more, states = self.joined(1, 0, max(t - e - offset, 0))
                            cost += chance * more
                            admitted += [(chance * other, state) for other, state in states]
                    self.rule(("serving", b, e, s), cost, 0.0, admitted)

    def gain(self) -> float:
        self.free()
        self.serving()
        lines, places, entries, bounds = [], [], [], []
        for line, (row, cost) in enumerate(self.rows):
            lines += [line] * len(row)
            places += row.keys()
            entries += row.values()
            bounds.append(cost)
        from scipy.sparse import csr_array  # noqa: PLC0415 (skipped without scipy)

        matrix = csr_array((entries, (lines, places)), shape=(len(bounds), len(self.columns)))
        aim = np.zeros(len(self.columns))
        aim[0] = -1.0
        free = [(None, None)] * len(aim)
        free[self.columns["idle"]] = (0.0, 0.0)
        found = scipy_optimize.linprog(aim, A_ub=matrix, b_ub=bounds, bounds=free)
        assert found.status == 0
        return float(found.x[0])


TINY = (NoisyBatch(1, 0.3, 1.0), NoisyBatch(2, 0.35, 1.3))


@pytest.mark.parametrize(("rate_rps", "w"), [(4.0, 2.0), (9.0, 2.0), (9.0, 12.0), (9.0, 0.5)])
def test_a_tiny_process_has_the_gain_of_its_linear_programme(
    rate_rps: float, w: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal, "LEFT", 2)
    monkeypatch.setattr(causal, "GATHERED", 2)
    tiny = CausalProblem(rate_rps, NoisySite(0.6, np.array([0.2, 0.26]), 0.2, 0.2, TINY), steps=6)
    assert CausalProcess(tiny).solve(w) == pytest.approx(Programme(tiny, w).gain() / rate_rps, abs=3e-4)


def orin(rate_rps: float, steps: int = 20) -> CausalProcess:
    edge_s = 0.04234 + 0.008165 * np.arange(1, 80)
    functions = (NoisyBatch(1, 0.357, 1.543), NoisyBatch(2, 0.498, 1.03))
    return CausalProcess(CausalProblem(rate_rps, NoisySite(0.6, edge_s, 0.1, 0.25, functions), steps))


def test_it_rises_with_the_multiplier_ever_less_and_with_the_rate() -> None:
    process = orin(130.0)
    found = [(w, process.solve(w)) for w in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)]
    slopes = [(b - a) / (v - w) for (w, a), (v, b) in zip(found, found[1:], strict=False)]
    assert all(slope > 0 for slope in slopes)
    assert slopes == sorted(slopes, reverse=True)
    assert orin(100.0).solve(2.5) < orin(120.0).solve(2.5) < orin(160.0).solve(2.5)


def test_an_earlier_solution_changes_no_later_one() -> None:
    process = orin(130.0)
    process.solve(0.3)
    assert process.solve(4.0) == pytest.approx(orin(130.0).solve(4.0), abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rate_rps", [112.0, 160.0])
def test_with_every_arrival_known_it_costs_less(rate_rps: float) -> None:
    scenario = with_slo(NOISY, 0.6)
    times_s = poisson(rate_rps, rng=np.random.default_rng(2), requests=600).times_s
    known = clairvoyant_reference(scenario, times_s, steps=40)
    judged = causal_reference(scenario, [(600 / float(times_s[-1]), 1.0)], steps=20)
    assert known.cost < judged.cost
    assert 1.0 < judged.multiplier < 20.0


def test_where_few_are_late_anyway_lateness_costs_nothing() -> None:
    found = causal_reference(with_slo(NOISY, 0.6), [(40.0, 1.0)], steps=20)
    assert (found.cost, found.multiplier) == (0.0, 0.0)


class TestLocalRates:
    def test_those_of_poisson_arrivals_are_one(self) -> None:
        times_s = poisson(100.0, rng=np.random.default_rng(2), requests=20_000).times_s
        rates = local_rates(times_s)
        assert max(rate for rate, _ in rates) - min(rate for rate, _ in rates) < 10.0

    def test_that_of_even_arrivals_is_their_own(self) -> None:
        assert local_rates(np.arange(3_000) * 0.0101) == [(pytest.approx(99.0, abs=0.1), 1.0)]

    def test_those_of_phases_are_the_phases(self) -> None:
        rng = np.random.default_rng(2)
        calm, busy = (poisson(rate, rng=rng, duration_s=100.0).times_s for rate in (60.0, 180.0))
        rates = local_rates(np.concatenate([calm, 100.0 + busy]), groups=2)
        assert [rate for rate, _ in rates] == pytest.approx([60.0, 180.0], rel=0.05)
        assert [share for _, share in rates] == pytest.approx([0.25, 0.75], abs=0.02)

    def test_a_short_workload_has_its_mean(self) -> None:
        assert local_rates(np.arange(11) * 0.1) == [(pytest.approx(10.0), 1.0)]
