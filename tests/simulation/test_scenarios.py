"""Scenario files: what the flags lack, each key documented and used."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scheduler import cli
from scheduler.domain.latency import LatencyModel
from scheduler.domain.plans import EdgeSettings
from scheduler.domain.requests import Backend
from scheduler.simulator import scenario_file
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import MEBIBYTE
from scheduler.simulator.report import cheapest_per_item, rows, summarise
from scheduler.simulator.scenario import Burst, Scenario, ScenarioError
from scheduler.simulator.scenario_file import read_scenario
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson, with_bursts

EXAMPLE = (scenario_file.__doc__ or "").partition("all optional:\n")[2]
TWO_MODELS = """
edge_rows = [[1, 0.06], [32, 0.3]]
[[class]]
name = "shared"
slo_s = 0.8
[[tier]]
name = "cpu"
law = [0.2, 0.14]
price = [1.27e-5, 9e-7]
[[model]]
name = "light"
share = 3
edge = [0.01, 0.002]
request_bytes = 1000
[[model]]
name = "heavy"
max_items = 16
[[model.class]]
name = "fast"
slo_s = 0.5
share = 2
[[model.class]]
name = "slow"
slo_s = 4
priority = 3
[[model.tier]]
name = "gpu"
law = [0.05, 0.01]
rows = [[1, 0.07], [4, 0.09]]
max_batch = 16
price = [1e-4, 9e-7]
"""


def read(tmp_path: Path, text: str, base: Scenario | None = None) -> Scenario:
    path = tmp_path / "s.toml"
    path.write_text(text)
    return read_scenario(path, base or Scenario())


def run(scenario: Scenario, *, rate_rps: float, requests: int) -> Journal:
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    return make_simulation(scenario, make_requests(scenario, workload)).run()


def documented_keys() -> dict[str, set[str]]:
    """Table -> keys in the module's docstring, which `simulate --help` shows."""
    found: dict[str, set[str]] = {"": set()}
    table = ""
    for line in EXAMPLE.splitlines():
        words = line.strip()
        if words.startswith("["):
            table = re.sub(r"[\[\]]", "", words.partition("#")[0]).strip()
            if "." not in table:
                found[""].add(table)
            found[table] = set()
        elif words:
            found[table].add(words.partition(" =")[0])
    return found


def test_the_documented_example_is_accepted_whole(tmp_path: Path) -> None:
    scenario = read(tmp_path, EXAMPLE)
    assert scenario.bursts == (Burst(90.0, 2.0, 300.0),)
    assert scenario.edge_latency.rows == ((1, 0.141), (8, 0.19))
    assert scenario.classes[0].service_class.edge_only
    assert not scenario.classes[0].service_class.deferrable
    settings = scenario.engine_settings()
    assert (scenario.edge_parallel, settings.edges) == (2, (EdgeSettings("orin", 2),))
    assert (settings.spend_per_hour, settings.spend_per_day, settings.over_cap) == (0.5, 5.0, "edge-only")
    assert [model.name for model in settings.models] == ["resnet50"]


def test_every_accepted_key_is_documented_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, set[str]] = {}

    class Recording(scenario_file.Keys):
        def take(self, key: str, default: object = None) -> object:
            table = ".".join(re.findall(r"\[+(\w+)\]+", self.where))
            taken.setdefault(table, set()).add(key)
            return super().take(key, default)

    monkeypatch.setattr(scenario_file, "Keys", Recording)
    read(tmp_path, EXAMPLE)
    documented = documented_keys()
    documented["model"] |= {"class", "tier"}
    documented["edge"] |= {"model"}
    # Where the example shows a part of a table's keys, it says where the others are.
    documented["model.class"], documented["model.tier"] = documented["class"], documented["tier"]
    assert taken == documented


def test_help_shows_every_scenario_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["simulate", "--help"])
    shown = capsys.readouterr().out
    assert EXAMPLE.strip() in shown


def test_edge_servers_have_their_own_laws_slots_noise_faults_and_models(tmp_path: Path) -> None:
    base = Scenario(edge_parallel=3, edge_noise=0.1, edge_faults=(Fault("slow", 1.0, 2.0, 2.0),))
    text = (
        TWO_MODELS
        + """
[[edge]]
name = "orin"
[[edge]]
name = "nano"
law = [0.08, 0.016]
models = ["light"]
parallel = 1
noise = 0.2
faults = ["down:30,90"]
decode_s = 0.03
lan_s = 0.01
ahead = "1"
[[edge]]
name = "gpu"
[[edge.model]]
name = "heavy"
law = [0.02, 0.001]
rows = [[1, 0.03]]
"""
    )
    scenario = read(tmp_path, text, base)
    settings = scenario.engine_settings()
    assert settings.edges == (EdgeSettings("orin", 3), EdgeSettings("nano", 1, 1), EdgeSettings("gpu", 3))
    light, heavy = settings.models
    assert [light.edge_latency_on(edge).predict_s(10) for edge in ("orin", "nano", "gpu")] == [0.03, 0.24, 0.03]
    assert heavy.edge_latency_on("nano") is None
    assert heavy.edge_latency_on("gpu") == LatencyModel(0.02, 0.001, 128, ((1, 0.03),))
    assert heavy.edge_latency_on("orin") == heavy.edge_latency
    servers = {server.name: server for server in scenario.edge_servers()}
    assert [servers[name].noise for name in ("orin", "nano")] == [0.1, 0.2]
    assert servers["nano"].faults == (Fault("down", 30.0, 90.0),)
    nano = servers["nano"]
    assert (nano.decode_s, nano.lan_s, nano.ahead) == (0.03, 0.01, 1)
    assert servers["gpu"].faults == base.edge_faults


def test_models_have_their_own_laws_classes_sizes_and_shares(tmp_path: Path) -> None:
    scenario = read(tmp_path, TWO_MODELS)
    light, heavy = scenario.served()
    assert light.edge_latency == LatencyModel(0.01, 0.002, scenario.max_items)
    assert heavy.edge_latency is not None
    assert heavy.edge_latency.predict_s(32) == 0.3
    assert [tier.name for tier in (*light.tiers, *heavy.tiers)] == ["cpu", "gpu"]
    requests = make_requests(scenario, poisson(50.0, rng=np.random.default_rng(1), requests=6000))
    kinds = {(r.model, r.class_name) for r in requests}
    of = {kind: [r for r in requests if (r.model, r.class_name) == kind] for kind in kinds}
    shares = {name: len(kind) / len(requests) for name, kind in of.items()}
    assert shares == pytest.approx(
        {("light", "shared"): 3 / 4, ("heavy", "fast"): 1 / 6, ("heavy", "slow"): 1 / 12}, abs=0.02
    )
    slow = of["heavy", "slow"][0]
    assert (slow.priority, slow.body_bytes) == (3, scenario.request_bytes)
    assert slow.deadline_s - slow.arrived_at_s == pytest.approx(4.0)
    assert of["light", "shared"][0].body_bytes == 1000


def test_two_models_share_one_edge_and_one_uplink(tmp_path: Path) -> None:
    scenario = replace(read(tmp_path, TWO_MODELS + "[spend]\n"), request_bytes=MEBIBYTE // 8)
    journal = run(scenario, rate_rps=160, requests=1500)
    sent = sorted(journal.batches.values(), key=lambda s: s.batch.sent_at_s)
    by_model = {(s.batch.model, s.batch.backend) for s in sent}
    assert {("light", Backend.EDGE), ("heavy", Backend.EDGE)} <= by_model
    edge = [s for s in sent if s.batch.backend is Backend.EDGE]
    for before, after in zip(edge, edge[1:], strict=False):
        assert after.batch.sent_at_s >= before.outcome.at_s - 1e-9
    latencies = {model.name: model.edge_latency for model in scenario.served()}
    for s in edge:
        latency = latencies[s.batch.model]
        assert latency is not None
        assert s.outcome.at_s - s.batch.sent_at_s == pytest.approx(latency.predict_s(s.batch.items))
    assert {s.batch.tier for s in sent if s.batch.backend is Backend.FUNCTION} <= {"cpu", "gpu"}
    for s in sent:
        if s.batch.backend is Backend.FUNCTION:
            assert s.batch.tier == ("gpu" if s.batch.model == "heavy" else "cpu")
    assert {row.model for row in rows(journal)} == {"light", "heavy"}


def test_reference_money_counts_each_model_and_class_by_its_own_tiers(tmp_path: Path) -> None:
    scenario = read(tmp_path, TWO_MODELS)
    journal = run(scenario, rate_rps=40, requests=300)
    light, heavy = scenario.served()
    expected = 0.0
    for request in journal.requests:
        model = light if request.model == "light" else heavy
        slo_s = request.deadline_s - request.arrived_at_s
        expected += cheapest_per_item(model.tiers, slo_s=slo_s)
    assert summarise(journal, scenario, wall_s=0.0)["all_function_cny"] == pytest.approx(expected)


def test_a_model_may_lack_one_side(tmp_path: Path) -> None:
    scenario = read(
        tmp_path, "[[model]]\nname = 'here'\non_functions = false\n[[model]]\nname = 'there'\non_edge = false\n"
    )
    here, there = scenario.served()
    assert (here.tiers, there.edge_latency) == ((), None)
    journal = run(scenario, rate_rps=40, requests=400)
    places = {(row.model, row.backend) for row in rows(journal) if row.outcome == "answered"}
    assert places == {("here", "edge"), ("there", "function")}


def test_measured_rows_are_what_the_edge_takes(tmp_path: Path) -> None:
    scenario = read(tmp_path, "edge_rows = [[1, 0.141], [8, 0.19]]", replace(Scenario(), policy="edge-only"))
    journal = run(scenario, rate_rps=1 / 60, requests=5)
    assert [row.latency_s for row in rows(journal)] == pytest.approx([0.141] * 5)
    assert scenario.edge_latency.predict_s(10) == pytest.approx(0.19 + 2 * 0.008165)


def test_bursts_come_on_top_and_leave_the_rest_as_it_is() -> None:
    calm = poisson(20.0, rng=np.random.default_rng(1), duration_s=60.0)
    with_burst = with_bursts(calm, [(10.0, 2.0, 400.0), (59.0, 5.0, 100.0)], rng=np.random.default_rng(2))
    assert set(calm.times_s) <= set(with_burst.times_s)
    assert with_burst.duration_s == calm.duration_s
    assert bool(np.all(np.diff(with_burst.times_s) >= 0))
    added = np.setdiff1d(with_burst.times_s, calm.times_s)
    first = added[added < 30]
    assert len(first) == pytest.approx(800, abs=100)
    assert bool(np.all((first >= 10) & (first <= 12)))
    assert added.max() <= 60.0


def test_a_burst_scales_with_the_rate_and_keeps_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, table = tmp_path / "s.toml", tmp_path / "rows.csv"
    path.write_text("rate_steps = [[30, 10]]\nbursts = [[10, 2, 100]]")
    assert cli.main(["simulate", "--scenario", str(path), "--rate-scale", "2", "--rows", str(table)]) == 0
    capsys.readouterr()
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("arrived_at_s")
    inside = [line for line in lines[1:] if 10 <= float(line.split(",")[column]) <= 12]
    assert len(inside) == pytest.approx(440, abs=80)


@pytest.mark.parametrize("key", ["per_hour_cny", "per_day_cny"])
def test_a_cap_of_0_never_spends(tmp_path: Path, key: str) -> None:
    found = summarise(
        run(scenario := read(tmp_path, f"[spend]\n{key} = 0"), rate_rps=200, requests=600), scenario, wall_s=0.0
    )
    assert (found["cost_cny"], found["function"]) == (0.0, 0)
    assert found["edge"] > 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bursts = [[1, 2]]", "triple of numbers"),
        ("bursts = [[1, 0, 5]]", "a burst needs a length above 0 s"),
        ("spend = 3", "must be a table"),
        ("[spend]\nper_hour_cny = -1", "per_hour_cny must be a number of at least 0"),
        ("[spend]\nper_day_cny = inf", "per_day_cny must be a number of at least 0"),
        ("[spend]\nover_cap = 'panic'", "'edge-only' or 'serve-late' or 'refuse-low-priority'"),
        ("[[class]]\nlabels = ['secret']", "labels must be a list of 'edge-only' or 'deferrable'"),
        ("[[class]]\n[[class]]", "two classes have the same name"),
        ("[[model]]", "needs its own name"),
        ("[[edge]]", "each [[edge]] needs its own name"),
        ("[[edge]]\nname='a'\n[[edge]]\nname='a'", "each [[edge]] needs its own name"),
        ("[[edge]]\nname='a'\nrows=[[1, 0.1]]", "[[edge]] 1: rows need a law"),
        ("[[edge]]\nname='a'\nfaults=['melt:1,2']", "[[edge]] 1: faults: a fault is written"),
        ("[[edge]]\nname='a'\nfaults='down:1,2'", "faults must be a list of texts"),
        ("[[edge]]\nname='a'\nahead=2", 'ahead must be "auto", "0" or "1", not 2'),
        ("[[edge]]\nname='a'\nlan_s=-1", "lan_s must be a number of at least 0"),
        ("[[edge]]\nname='a'\nparallel=0", "parallel must be a whole number of at least 1"),
        ("[[edge]]\nname='a'\nmodels=['b']", "[[edge]] 1: there is no model 'b', only simulated"),
        ("[[edge]]\nname='a'\n[[edge.model]]\nname='simulated'", "[[model]] 1: law is missing"),
        ("[[model]]\nname='a'\non_edge=false\non_functions=false", "nothing serves it"),
        ("edge_rows = [[8, 0.1], [1, 0.2]]", "must ascend"),
        ("[[model]]\nname='a'\n[[model.tier]]\nlaw=[1,1]\nprice=[1,1]\n[[model]]\nname='b'", "has two descriptions"),
        ("[[model]]\nname='a'\n[[model.tier]]\nlaw=[1,1]\nprice=[1,1]\nfoo=1", "unknown key 'foo'"),
    ],
)
def test_a_wrong_scenario_names_its_place_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(words)) as caught:
        read(tmp_path, text)
    assert "s.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
