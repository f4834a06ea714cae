"""What the demo feeds its processes: arrivals, pictures, configuration files; and how it reads what they wrote."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scheduler.daemon.config.config import load_config
from scripts.demo import configuration
from scripts.demo.__main__ import parse_arguments
from scripts.demo.client import OUTPUTS, REQUESTS
from scripts.demo.configuration import Places
from scripts.demo.endpoint import Usage
from scripts.demo.instances import WarmInstances, plan_instances, planned
from scripts.demo.memory import INSTANCE_BYTES, OTHERS_BYTES, memory_warning
from scripts.demo.outcomes import read_outcomes
from scripts.demo.pictures import Picture, read_pictures, save_pictures
from scripts.demo.processes import child_environment
from scripts.demo.settings import Settings, draw_schedule
from serverless_fn.local_fc.config import load_config as load_endpoint_config

SETTINGS = Settings(out=Path("out"), seed=3, provisioned=3)


def test_arrivals_follow_the_rates_and_the_seed_alone() -> None:
    schedule = draw_schedule(SETTINGS, pictures=449)
    counts, _ = np.histogram(schedule.times_s, [0.0, 40.0, 80.0, 120.0])
    for count, rate_rps in zip(counts, SETTINGS.rates_rps, strict=True):
        assert abs(count - 40 * rate_rps) < 5 * np.sqrt(40 * rate_rps)
    again, other = draw_schedule(SETTINGS, pictures=449), draw_schedule(replace(SETTINGS, seed=4), pictures=449)
    assert (again.times_s == schedule.times_s).all()
    assert (again.pictures == schedule.pictures).all()
    assert len(other.times_s) != len(schedule.times_s) or (other.times_s != schedule.times_s).any()
    assert schedule.pictures.min() == 0
    assert schedule.pictures.max() == 448


def test_the_time_scale_shortens_phases_and_moves_the_steps() -> None:
    settings = replace(SETTINGS, time_scale=0.1)
    assert settings.duration_s == pytest.approx(12.0)
    assert settings.steps_s == pytest.approx((4.0, 8.0))


def test_the_daemon_takes_its_configuration(tmp_path: Path) -> None:
    places = Places("http://127.0.0.1:8700", "127.0.0.1:9000", "orin-resnet50", "fc-resnet50-1gb")
    path = configuration.write(tmp_path / "edgeburst.toml", configuration.daemon_toml(SETTINGS, places))
    settings = load_config(path, {}).engine_settings()
    (model,) = settings.models
    assert model.name == "digits"
    assert model.classes[0].slo_s == 1.0
    assert model.classes[0].serve_late
    assert model.tiers[0].max_in_flight == SETTINGS.provisioned
    assert model.tiers[0].price.sheet == "cny-gbs-2023"


@pytest.mark.parametrize("emulate", ["orin-resnet50", None])
def test_the_local_endpoint_takes_its_configuration(tmp_path: Path, emulate: str | None) -> None:
    settings = replace(SETTINGS, emulate=emulate)
    path = configuration.write(tmp_path / "local-fc.toml", configuration.function_endpoint_toml(settings))
    (function,) = load_endpoint_config(path).functions
    assert function.provision == {"defaultTarget": settings.provisioned}
    variables = function.content["environmentVariables"]
    assert variables["MODEL"] == "digits"
    assert variables.get("EDGEBURST_EMULATE") == ("fc-resnet50-1gb" if emulate else None)


def test_the_command_line_says_what_the_issue_says() -> None:
    words = ["--emulate", "none", "--out", "x", "--seed", "7", "--time-scale", "0.1", "--rates", "1,2,3", "--quiet"]
    settings = parse_arguments(words)
    assert (settings.emulate, settings.out, settings.seed, settings.quiet) == (None, Path("x"), 7, True)
    assert (settings.time_scale, settings.rates_rps) == (0.1, (1.0, 2.0, 3.0))
    assert parse_arguments([]) == Settings(out=Path("out/demo"))


@pytest.mark.parametrize(
    "words", [["--rates", "1,x"], ["--time-scale", "0"], ["--provisioned", "0"], ["--emulate", "a"]]
)
def test_nonsense_on_the_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(words)


def test_children_see_no_proxy_and_nothing_that_would_change_the_daemons_configuration() -> None:
    environ = {"HTTPS_PROXY": "x", "no_proxy": "y", "EDGEBURST_ENGINE__CHANGEPOINTS": "false", "HOME": "/h"}
    kept = child_environment(environ)
    assert kept["HOME"] == "/h"
    assert not {"HTTPS_PROXY", "no_proxy", "EDGEBURST_ENGINE__CHANGEPOINTS"} & kept.keys()


PICTURES = [Picture("000-is-7.jpg", 7, b"a"), Picture("001-is-2.png", 2, b"b"), Picture("002-is-5.jpg", 5, b"c")]


def test_pictures_are_read_in_the_order_they_were_saved_and_older_ones_are_gone(tmp_path: Path) -> None:
    save_pictures([Picture("999-is-1.png", 1, b"old")], tmp_path)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    save_pictures(PICTURES, tmp_path)
    assert [path.name for path in read_pictures(tmp_path)] == [picture.name for picture in PICTURES]
    assert (tmp_path / "notes.txt").exists()


def test_each_answer_is_held_against_its_own_picture(tmp_path: Path) -> None:
    alone = np.zeros((3, 10), np.float32)
    alone[[0, 1, 2], [7, 2, 4]] = 1.0
    columns = ("payload", "arrival_s", "latency_s", "status", "error", "backend", "batch_id")
    rows = [
        ("001-is-2.png", "0.5", "0.1", "200", "", "edge", "4"),
        ("000-is-7.jpg", "0.6", "0.2", "200", "", "function", "5"),
        ("002-is-5.jpg", "0.7", "0.3", "200", "", "edge", "6"),
        ("000-is-7.jpg", "0.8", "0.4", "503", "", "", ""),
        ("000-is-7.jpg", "0.9", "0.4", "200", "the answer cannot be read", "edge", "7"),
    ]
    with (tmp_path / REQUESTS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    # The second got the first's answer; the third the model's own, which is mistaken; the others none.
    nothing = np.full(10, np.nan, np.float32)
    np.save(tmp_path / OUTPUTS, np.stack([alone[1], alone[1], alone[2], nothing, nothing]))
    outcomes = read_outcomes(tmp_path, PICTURES, alone)
    assert [each.answered for each in outcomes] == [True, True, True, False, False]
    assert [each.wrong for each in outcomes] == [False, True, False, True, True]
    assert [each.correct for each in outcomes] == [True, False, False, False, False]
    assert [each.backend for each in outcomes] == ["edge", "function", "edge", "", "edge"]


def test_usage_since_a_moment_is_what_came_after_it() -> None:
    before = Usage(2, 1.0, 10.0, {"cny": 0.1}, {"cny": 1.0})
    after = Usage(5, 1.5, 30.0, {"cny": 0.4, "usd": 0.2}, {"cny": 3.0})
    used = after.since(before)
    assert (used.invocations, used.billed_s, used.provisioned_idle_s) == (3, 0.5, 20.0)
    assert used.active == pytest.approx({"cny": 0.3, "usd": 0.2})
    assert used.provisioned_idle == pytest.approx({"cny": 2.0})


def test_memory_that_will_not_do_is_told_with_what_to_do() -> None:
    needed_kb = -(-(OTHERS_BYTES + 16 * INSTANCE_BYTES) // 1024)
    enough, short = (f"MemTotal: 99999999 kB\nMemAvailable:   {kb} kB\n" for kb in (needed_kb, needed_kb - 1))
    assert memory_warning(16, enough) == ""
    assert "--provisioned" in memory_warning(16, short)
    assert memory_warning(16, "") == ""


def test_the_planner_proposes_the_warm_instances() -> None:
    found = plan_instances(SETTINGS, edge_profile="orin-resnet50", function_profile="fc-resnet50-1gb")
    # At 150 a second 39 spill, in batches of two that take half a second and their path: 13 on average.
    assert 18 <= found.beside_edge <= 25
    # All 150 in batches of three that take 0.64 s: 32 on average.
    assert 42 <= found.all_function <= 52
    calm = replace(SETTINGS, rates_rps=(5.0, 10.0))
    assert plan_instances(calm, edge_profile="orin-resnet50", function_profile="fc-resnet50-1gb").beside_edge == 1


def test_a_number_that_was_given_is_kept() -> None:
    proposal = WarmInstances(beside_edge=18, all_function=46)
    assert planned(SETTINGS, proposal).provisioned == 3
    assert planned(replace(SETTINGS, provisioned=0), proposal).provisioned == 18
