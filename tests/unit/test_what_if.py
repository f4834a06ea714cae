"""Recorded traffic under one configuration and another: what is carried over, changed, learned and compared."""

import json
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scheduler.cli import main
from scheduler.control import Control
from scheduler.daemon.config.config import load_config
from scheduler.daemon.recording.files import RecordingFolder
from scheduler.daemon.recording.recorder import Recorder
from scheduler.daemon.state.store import Store
from scheduler.domain.messages import BatchFinished, RequestArrived
from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.recordings.layout import EVENT, MAGIC, Kind, packed_block
from scheduler.recordings.traffic import plain_traffic
from scheduler.simulator.backends import SimulatedFunctions
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import make_backends
from scheduler.whatif import command as command_module
from scheduler.whatif.requests import make_requests
from scheduler.whatif.running import run_site
from scheduler.whatif.site import configured_site

BEGAN_S = 1_780_000_000.0

CONFIG = """
[daemon]
{state}
[spend]
{spend}
[edge]
url = "http://127.0.0.1:1"
parallel = 1
[function]
price_sheet = "cny-gbs-2023"
[[tenant]]
name = "lab"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
name = "fast"
slo_s = 0.8
[[model.class]]
name = "slow"
slo_s = 3.0
[[model.tier]]
name = "cpu"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1
max_in_flight = 64
[[model.tier]]
name = "other"
function = "other"
profile = "fc-resnet50-1gb"
memory_gb = 2
max_in_flight = 64
[[model]]
name = "resnet50"
edge_profile = "orin-resnet50"
"""


def configuration(folder: Path, *, name: str = "edgeburst.toml", state: str = "", spend: str = "") -> Path:
    path = folder / name
    path.write_text(CONFIG.format(state=state, spend=spend))
    return path


def record(folder: Path, *, seconds: float = 20.0, rps: float = 120.0, timeout_s: float = math.nan) -> Path:
    """Writes a recording of requests of two classes, two tenants and two models."""
    rng = np.random.default_rng(3)
    kinds = [
        Kind("digits", "fast", "lab", 1),
        Kind("digits", "slow", "", 1),
        Kind("resnet50", "default", "other", 1),
    ]
    times_s = np.cumsum(rng.exponential(1 / rps, int(seconds * rps)))
    events = [
        EVENT.pack(at_s, number, 20_000, 1 + number % 2, int(rng.choice(3, p=(0.6, 0.3, 0.1))), 0, timeout_s)
        for number, at_s in enumerate(times_s.tolist(), start=1)
    ]
    folder.mkdir()
    (folder / "a.arrivals").write_bytes(MAGIC + packed_block(b"".join(events), kinds, BEGAN_S))
    return folder


def simulate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["simulate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["simulate", *map(str, arguments)]) == 2
    return capsys.readouterr().err.removeprefix("edgeburst: ").strip()


def test_recorded_classes_models_tenants_and_sizes_come_under_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, config = record(tmp_path / "arrivals"), configuration(tmp_path)
    found = simulate(capsys, "--recorded", recorded, "--config", config, "--rows", tmp_path / "rows.csv")
    assert found["requests"] == 2400
    assert found["traffic"].endswith("its requests came from 2026-05-28T20:26:40Z to 2026-05-28T20:27:00Z (UTC)")
    for name, known in (("classes", "default,fast,slow"), ("models", "digits,resnet50"), ("tenants", ",lab,other")):
        assert ",".join(found[name]) == known
        assert sum(each["requests"] for each in found[name].values()) == 2400
        assert math.fsum(each["cost_cny"] for each in found[name].values()) == pytest.approx(found["cost_cny"])
    rows = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    deadlines = {(row.split(",")[2], round(float(row.split(",")[4]) - float(row.split(",")[3]), 3)) for row in rows}
    assert deadlines == {("fast", 0.79), ("slow", 2.99), ("default", 0.99)}
    assert any("no learned ones" in note for note in found["notes"])


def test_equal_arguments_give_equal_outcomes_and_a_part_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, config = record(tmp_path / "arrivals", rps=60), configuration(tmp_path)
    what = ("--recorded", recorded, "--config", config, "--from", BEGAN_S + 5, "--to", "2026-05-28T20:26:50Z")
    first, second = (simulate(capsys, *what) for _ in range(2))
    assert {**first, "wall_s": 0} == {**second, "wall_s": 0}
    assert 230 < first["requests"] < 370
    assert simulate(capsys, *what, "--duration-s", 2)["requests"] < 160
    assert simulate(capsys, *what, "--requests", 7)["requests"] == 7


def test_a_comparison_runs_as_configured_and_as_changed_and_shows_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=3, rps=200), configuration(tmp_path)
    what = ("--recorded", recorded, "--config", config)
    before, after = simulate(capsys, *what), simulate(capsys, *what, "--slo-s", 0.5)
    found = simulate(capsys, *what, "--slo-s", 0.5, "--compare", "--plot", tmp_path / "plot.svg")
    assert found["change"] == "slo-s 0.5"
    for key, alone in (("configured", before), ("changed", after)):
        assert found["all"][key]["cost_cny"] == pytest.approx(alone["cost_cny"])
        assert found["all"][key]["within_slo"] == alone["within_slo"]
        assert {name: pair[key] for name, pair in found["classes"].items()} == alone["classes"]
    assert after["cost_cny"] != before["cost_cny"] > 0
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    assert main(["simulate", *map(str, what), "--slo-s", "0.5", "--compare"]) == 0
    shown = capsys.readouterr().out
    for words in ("as configured, and with slo-s 0.5", "class fast", "model resnet50", "tenant lab", "within"):
        assert words in shown


@pytest.mark.parametrize(
    ("flag", "value", "change"),
    [("--per-hour-cny", "0", "per-hour-cny 0"), ("--function-noise-law", "pareto:2", "function-noise-law 2")],
)
def test_whatever_is_changed_can_be_compared_a_zero_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, change: str
) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=1), configuration(tmp_path)
    assert simulate(capsys, "--recorded", recorded, "--config", config, flag, value, "--compare")["change"] == change


def test_a_plot_that_cannot_be_drawn_costs_no_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    recorded, config = record(tmp_path / "arrivals", seconds=1), configuration(tmp_path)
    what = ("simulate", "--recorded", str(recorded), "--config", str(config), "--slo-s", "1", "--compare")
    assert main([*what, "--plot", str(tmp_path / "none" / "if.png")]) == 2
    told = capsys.readouterr()
    assert "cannot draw the comparison" in told.err
    assert "class fast" in told.out
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(command_module, "run_site", None)  # without matplotlib nothing is simulated in vain
    assert main([*what, "--plot", str(tmp_path / "if.png")]) == 2
    assert "--plot needs the extra `plots`" in capsys.readouterr().err


CHANGES: Sequence[tuple[Sequence[object], str]] = (
    (("--function-price", "1,0"), "cost_cny"),
    (("--tiers", "other"), "cost_cny"),
    (("--per-hour-cny", "0"), "function"),
    (("--edge-parallel", "4"), "function"),
    (("--edge", "0.001,0.0001"), "function"),
    (("--bandwidth-mbytes-per-s", "0.05"), "function"),
    (("--rtt-s", "0.5"), "latency_s"),
    (("--function-law", "0.01,0.001"), "latency_s"),
    (("--edge-fault", "down:0,5"), "edge"),
    (("--function-fault", "down:0,5"), "latency_s"),
    (("--edge-noise", "0.3"), "latency_s"),
    (("--function-noise", "0.3"), "latency_s"),
    (("--cold-start-s", "3,60"), "latency_s"),
    (("--rate-scale", "0.5"), "function"),
    (("--budget", "spend"), "latency_s"),
)


@pytest.mark.parametrize(("flags", "figure"), CHANGES, ids=lambda value: str(value[0]) if value else "")
def test_each_flag_changes_what_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: Sequence[object], figure: str
) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=2, rps=200), configuration(tmp_path)
    what = ("--recorded", recorded, "--config", config)
    assert simulate(capsys, *what)[figure] != simulate(capsys, *what, *flags)[figure]


def test_tiers_of_two_models_with_one_name_have_each_its_own_price_and_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=3, rps=200), configuration(tmp_path)
    tier = '[[model.tier]]\nname = "{}"\nfunction = "other"\nprofile = "{}"\nmemory_gb = {}\n'
    alone = config.read_text()
    what = ("--recorded", recorded, "--config", config)
    found = {}
    for name in ("apart", "cpu"):
        config.write_text(alone + tier.format(name, "fc-resnet50-1gb", 16))
        found[name] = {**simulate(capsys, *what), "wall_s": 0.0}
    assert found["apart"]["models"]["resnet50"]["function"] > 0
    assert found["cpu"] == found["apart"]
    assert "'cpu' is one of two models; rename it" in refusal(capsys, *what, "--policy", "function-only")


def test_a_whole_other_configuration_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=4, rps=200), configuration(tmp_path)
    capped = configuration(tmp_path, name="capped.toml", spend="per_hour = 0.0")
    found = simulate(capsys, "--recorded", recorded, "--config", config, "--changed", capped, "--compare")["all"]
    assert found["configured"]["function"] > 0 == found["changed"]["function"]


def test_money_of_two_currencies_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=1), configuration(tmp_path)
    other = tmp_path / "dollars.toml"
    other.write_text(config.read_text().replace("cny-gbs-2023", "aws-lambda-x86-usd"))
    said = refusal(capsys, "--recorded", recorded, "--config", config, "--changed", other, "--compare")
    assert said.startswith(f"{config} has prices in CNY and {other} in USD, so their money cannot be compared;")


def test_what_another_policy_leaves_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, trace = configuration(tmp_path), tmp_path / "trace.csv"
    config.write_text(config.read_text().rpartition("[[model]]")[0].partition('[[model.class]]\nname = "slow"')[0])
    trace.write_text("time\n0\n1\n")
    found = simulate(capsys, "--trace", trace, "--config", config, "--policy", "edge-only")
    assert "the policy edge-only knows no caps and no tenants' shares" in found["notes"][-1]


def test_a_trace_of_times_without_a_configuration_is_the_same_workload_as_its_gaps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    gaps_s = np.concatenate([[0.001], rng.exponential(1 / 150, 1500)])
    (tmp_path / "a.gaps").write_text("\n".join(f"{gap:.9f}" for gap in gaps_s))
    times_s = np.cumsum(np.round(gaps_s, 9))
    (tmp_path / "times.csv").write_text("arrival_s\n" + "\n".join(f"{at_s:.9f}" for at_s in times_s))
    flags = ("--slo-s", 0.7, "--edge-noise", 0.1, "--seed", 4)
    by_gaps = simulate(capsys, "--arrivals", tmp_path / "a.gaps", *flags)
    by_times = simulate(capsys, "--trace", tmp_path / "times.csv", *flags)
    for key in ("requests", "answered", "edge", "function", "edge_batches", "plans", "within_slo"):
        assert by_times[key] == by_gaps[key]
    assert by_times["cost_cny"] == pytest.approx(by_gaps["cost_cny"])
    assert simulate(capsys, "--trace", tmp_path / "times.csv", "--policy", "function-only")["edge"] == 0


def test_a_clients_own_deadline_stays_whatever_the_classes_become(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=2, timeout_s=0.25), configuration(tmp_path)
    what = ("--recorded", recorded, "--config", config, "--rows", tmp_path / "rows.csv", "--slo-s", 9)
    simulate(capsys, *what)
    rows = [row.split(",") for row in (tmp_path / "rows.csv").read_text().splitlines()[1:]]
    assert {round(float(row[4]) - float(row[3]), 3) for row in rows} == {0.24}


def test_laws_that_a_daemon_has_learned_are_how_the_places_are(tmp_path: Path) -> None:
    config = load_config(configuration(tmp_path, state='state = "kept"'), {})
    settings = replace(config.engine_settings(), spend_leased="")
    (tmp_path / "kept").mkdir()
    truth = configured_site(config, request_bytes=20_000, seed=1)
    slower = tuple(
        replace(model, edge_latency=None if model.edge_latency is None else model.edge_latency.slower(2.0))
        for model in truth.scenario.models
    )
    control = Control(settings)
    _run_engine(control, replace(truth.scenario, models=slower, edge_lan_s=0.0))
    with closing(Store(tmp_path / "kept", currency="CNY", warn=print)) as store:
        store.open()
        store.save_memory(control.saved(40.0))
    site = configured_site(config, request_bytes=20_000, seed=1)
    law, profile = site.scenario.models[0].edge_latency, settings.models[0].edge_latency
    assert law is not None
    assert profile is not None
    assert [law.predict_s(items) / profile.predict_s(items) for items in (4, 8, 16)] == pytest.approx(
        [2.0] * 3, rel=0.1
    )
    assert "has learned" in site.notes[0]


BESIDE_S = 0.02
"""What the true functions bill beside the service."""


def test_what_functions_bill_beside_their_service_is_learned_and_billed(tmp_path: Path) -> None:
    config = load_config(configuration(tmp_path, state='state = "kept"'), {})
    settings = replace(config.engine_settings(), spend_leased="")
    (tmp_path / "kept").mkdir()
    control = Control(settings)
    _run_engine(control, configured_site(config, request_bytes=20_000, seed=1).scenario, rate_rps=200.0)
    with closing(Store(tmp_path / "kept", currency="CNY", warn=print)) as store:
        store.open()
        store.save_memory(control.saved(40.0))
    site = configured_site(config, request_bytes=20_000, seed=1)
    assert max(site.billed_beside_s.values()) == pytest.approx(BESIDE_S)
    times_s = np.cumsum(np.random.default_rng(3).exponential(1 / 200.0, 800))
    requests = make_requests(plain_traffic(times_s, dated=False), settings, reserve_s=0.0, request_bytes=20_000)
    outcome = run_site(site, requests)
    reports = [
        one.outcome.message.report
        for one in outcome.journal.batches.values()
        if one.batch.tier and not one.batch.warming and isinstance(one.outcome.message, BatchFinished)
    ]
    assert reports
    beside_s = [(report.billed_duration_s or 0.0) - (report.service_s or 0.0) for report in reports]
    assert beside_s == pytest.approx([BESIDE_S] * len(reports))


def _run_engine(control: Control, scenario: Scenario, *, rate_rps: float = 30.0) -> None:
    rng = np.random.default_rng(2)
    times_s = np.cumsum(rng.exponential(1 / rate_rps, 1200)).tolist()
    requests = [Request(n, "digits", at_s, at_s + 3.0, class_name="slow") for n, at_s in enumerate(times_s, start=1)]
    told = replace(scenario, edges=scenario.edges)
    edge, functions = make_backends(told, scenario.engine_settings())
    assert isinstance(functions, SimulatedFunctions)
    functions._billed_beside_s = lambda _: BESIDE_S
    engine = Engine(control._settings, control)
    Simulation(engine=engine, requests=requests, edge=edge, functions=functions).run()


def test_a_state_folder_that_is_damaged_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "state.sqlite3").write_bytes(b"no database" * 100)
    recorded, config = record(tmp_path / "arrivals", seconds=1), configuration(tmp_path, state='state = "kept"')
    said = refusal(capsys, "--recorded", recorded, "--config", config)
    assert said.startswith(f"what was learned cannot be read from {tmp_path}/kept/state.sqlite3 (")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--trace", "x"), "--recorded and --trace both give the traffic; leave one of them out"),
        (("--poisson", "5"), "--poisson does not go with traffic that really came; leave it out"),
        (("--bound",), "--bound does not go with traffic that really came; leave it out"),
        (("--daemons", "2"), "--daemons does not go with traffic that really came; leave it out"),
        (("--edge-silent",), "--edge-silent does not go with traffic that really came; leave it out"),
        (("--time-column", "a"), "--time-column does not go with --recorded; leave it out"),
        (("--compare",), "--compare needs something that is changed: --slo-s, --changed or another flag"),
        (("--plot", "x.png"), "--plot draws a comparison; add --compare"),
        (("--from", "soon"), "--from must be a date like 2026-11-29T08:00 or seconds since 1970, not 'soon'"),
        (("--from", "1e30"), "--from must be a date like 2026-11-29T08:00 or seconds since 1970, not '1e30'"),
        (("--from", "2030-01-02", "--to", "2030-01-01"), "--from must be earlier than --to; change one of them"),
        (("--tiers", "gpu"), "--tiers names 'gpu', but the tiers are cpu, other"),
        (("--edge", "orin:1,1"), "--edge names 'orin', but the edge servers are main"),
        (("--edge-parallel", "0"), "--edge-parallel must be 1 to 64, not 0"),
        (("--per-day-cny", "-1"), "--per-day-cny must be a finite number of at least 0, not -1"),
        (("--from", "2030-01-01"), "has no request in that time; its requests came from 2026-05-28T20:26:40Z"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: Sequence[str], sentence: str
) -> None:
    recorded, config = record(tmp_path / "arrivals", seconds=1), configuration(tmp_path)
    assert sentence in refusal(capsys, "--recorded", recorded, "--config", config, *flags)


def test_flags_of_traffic_need_traffic_or_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = record(tmp_path / "arrivals", seconds=1)
    assert (
        refusal(capsys, "--poisson", 5, "--compare") == "--compare needs --recorded or --trace, which give the traffic"
    )
    assert (
        refusal(capsys, "--recorded", recorded, "--compare", "--slo-s", 1)
        == "--compare needs --config, the configuration"
    )
    config = configuration(tmp_path)
    config.write_text(config.read_text().replace('name = "resnet50"', 'name = "mobilenet_v3_small"'))
    assert refusal(capsys, "--recorded", recorded, "--config", config).startswith(
        "the traffic has requests of model 'resnet50', which is not configured, only digits, mobilenet_v3_small; "
    )
    config.write_text(configuration(tmp_path).read_text().replace('name = "slow"', 'name = "calm"'))
    assert "requests of class 'slow' of model digits, only fast, calm" in refusal(
        capsys, "--recorded", recorded, "--config", config
    )


def test_what_a_recorder_writes_is_what_is_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    config = configuration(tmp_path)
    settings = load_config(config, {}).engine_settings()
    folder = RecordingFolder(tmp_path / "arrivals", max_bytes=2**20, keep_days=1, keep_bytes=2**21)
    recorder = Recorder(folder, settings, clock=lambda: 0.0, wall=lambda: BEGAN_S)
    for number in range(1, 51):
        at_s = number / 50
        request = Request(number, "digits", at_s, at_s + 0.79, class_name="fast", tenant="lab", reserve_s=0.01)
        recorder.hear([RequestArrived(request)], at_s)
    asyncio.run(recorder.close())
    found = simulate(capsys, "--recorded", tmp_path / "arrivals", "--config", config)
    assert (found["requests"], found["answered"], list(found["tenants"])) == (50, 50, ["lab"])


@pytest.mark.parametrize("recorded", [True, False])
def test_a_file_of_rows_that_cannot_be_written_takes_nothing_from_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, recorded: bool
) -> None:
    source = (
        ("--recorded", record(tmp_path / "arrivals", seconds=2)) if recorded else ("--poisson", 20, "--requests", 50)
    )
    assert main(["simulate", *map(str, source), "--rows", str(tmp_path / "none" / "rows.csv"), "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["requests"] > 0
    assert "rows.csv" in said.err
