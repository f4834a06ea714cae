"""Prices before they are paid: provisioned instances, and the invocations of a measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler import cli
from scheduler.daemon.config.config import load_config
from scheduler.deploying.drafting import draft, draft_plan
from scheduler.deploying.instance_costs import InstanceCosts, instance_costs
from scheduler.measuring.profile_cost import profile_cost
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planning.plan_file import read_plan

IDLE_PER_HOUR = 1.27e-5 * 3600
"""CNY for an idle provisioned instance of 1 GB."""
TRAFFIC = "traffic = { digits = { rps = [5.0, 20.0], hold_s = 1800.0 } }\n"


def write(folder: Path, *, deploy: str = "", slo_s: float = 1.0, edge: bool = False) -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(
        ("[edge]\n" if edge else "")
        + f'[function]\n[deploy]\nimage = "x"\n{deploy}[[model]]\nname = "digits"\n'
        + ('edge_profile = "orin-resnet50"\n' if edge else "")
        + f"[[model.class]]\nslo_s = {slo_s}\n"
        + '[[model.tier]]\nname = "1gb"\nfunction = "f"\nqualifier = "a"\n'
        + 'profile = "fc-resnet50-1gb"\nmemory_gb = 1.0\n'
    )
    return path


def checked(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main(["check-config", "--config", str(path), "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def about_instances(found: dict[str, Any]) -> list[str]:
    return [words for words in found["warnings"] if "`provisioned`" in words]


class TestCheckConfig:
    def test_a_count_that_costs_more_than_it_saves_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = checked(write(tmp_path, deploy="provisioned = { 1gb = 30 }\n" + TRAFFIC), capsys)
        [sentence] = about_instances(found)
        assert "30 for tier 1gb, which costs" in sentence
        assert "a day more than it saves" in sentence
        [tier] = found["provisioned"]
        assert tier["instances"] == 30
        assert tier["proposed"] < 30
        assert tier["idle_per_hour"] == pytest.approx(30 * IDLE_PER_HOUR)
        assert tier["idle_per_day"] == pytest.approx(30 * IDLE_PER_HOUR * 24)

    def test_the_proposal_itself_is_not_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        [tier] = checked(write(tmp_path, deploy=TRAFFIC), capsys)["provisioned"]
        deploy = f"provisioned = {{ 1gb = {tier['proposed']} }}\n{TRAFFIC}"
        assert about_instances(checked(write(tmp_path, deploy=deploy), capsys)) == []

    def test_too_few_are_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rare = "traffic = { digits = { rps = [0.002] } }\n"
        found = checked(write(tmp_path, deploy=rare), capsys)
        [sentence] = about_instances(found)
        # Nearly every request would start an instance.
        assert "has 0 for tier 1gb, with which" in sentence
        assert "which needs 1" in sentence

    def test_without_traffic_money_alone_is_compared(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = checked(write(tmp_path, deploy="provisioned = { 1gb = 2 }\n"), capsys)
        [sentence] = about_instances(found)
        assert "each costs 1.097 CNY a day while idle and saves at most" in sentence
        assert "[deploy.traffic.digits]" in sentence
        assert about_instances(checked(write(tmp_path), capsys)) == []

    def test_traffic_of_a_model_that_does_not_exist_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path, deploy=TRAFFIC.replace("digits", "digit"))
        assert cli.main(["check-config", "--config", str(path)]) == 2


class TestPlan:
    def test_every_tier_gets_a_proposal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write(tmp_path, edge=True)
        assert cli.main(["plan", "--config", str(path), "--rps", "30,150,60", "--hold-s", "40", "--json"]) == 0
        [found] = json.loads(capsys.readouterr().out)["provisioned"]
        assert (found["model"], found["tier"], found["currency"]) == ("digits", "1gb", "CNY")
        assert found["proposed"]["late"] <= found["allowed_late"] == pytest.approx(0.0025)
        assert found["none"]["instances"] == 0

    def test_the_traffic_of_the_configuration_is_the_default(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["plan", "--config", str(write(tmp_path, deploy=TRAFFIC))]) == 0
        text = capsys.readouterr().out
        assert "warm instances  tier 1gb: " in text
        assert cli.main(["plan", "--config", str(write(tmp_path))]) == 2
        assert "--rps is missing" in capsys.readouterr().err

    def test_a_start_that_is_in_time_needs_no_warm_instance(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def proposed(slo_s: float) -> int:
            assert cli.main(["plan", "--config", str(write(tmp_path, slo_s=slo_s)), "--rps", "0.002", "--json"]) == 0
            [found] = json.loads(capsys.readouterr().out)["provisioned"]
            return int(found["proposed"]["instances"])

        assert (proposed(1.0), proposed(60.0)) == (1, 0)


class TestDeployment:
    def test_the_cost_is_that_of_the_sheet(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path, deploy="provisioned = { 1gb = 2 }\n"), {})
        costs = instance_costs(draft(config).deployment, load_sheet("cny-gbs-2023"))
        assert costs.idle_per_s == pytest.approx(2 * 1.27e-5)
        assert costs.sentence() == (
            "2 provisioned instances will cost 0.09144 CNY an hour and 2.195 CNY a day while idle"
        )
        assert costs.as_json()["tiers"][0]["idle_per_day"] == pytest.approx(2 * 1.27e-5 * 86_400)

    def test_an_instance_hibernates_on_the_cu_meter(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path, deploy="provisioned = { 1gb = 1 }\n"), {})
        costs = instance_costs(draft(config).deployment, load_sheet("fc3-cu-usd"))
        # 0.15 CU for a GB and 0.05 for each GB of half a GB of disk, no vCPU, at 0.00002 USD.
        assert costs.idle_per_s == pytest.approx((0.15 + 0.05 * 0.5) * 2e-5)

    def test_nothing_is_said_where_nothing_is_provisioned(self) -> None:
        assert InstanceCosts((), "CNY").sentence() == ""
        assert list(InstanceCosts((), "CNY").lines()) == []

    def test_a_plan_of_applications_brings_its_proposals(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        apps, plan = tmp_path / "apps.toml", tmp_path / "plan.json"
        apps.write_text('[[app]]\nname = "a"\nslo_s = 1.5\nrps = 0.01\n')
        profile = ("--profile", "fc-resnet50-1gb", "--prices", "cny-gbs-2023")
        assert cli.main(["plan", "--apps", str(apps), *profile, "--json"]) == 0
        text = capsys.readouterr().out
        plan.write_text(text)
        [group] = json.loads(text)["groups"]
        # One request in 100 s finds its instance gone with probability exp(-2.4) and is then late: 9 %, not 0.25 %.
        assert group["provisioned"]["instances"] >= 1
        assert group["provisioned"]["late"] <= group["provisioned"]["allowed_late"] == pytest.approx(0.0025)
        config = load_config(write(tmp_path), {})
        wanted = draft_plan(config, read_plan(plan).groups, model_name="")
        costs = instance_costs(wanted.deployment, load_sheet("cny-gbs-2023"), (), wanted.proposed)
        assert any(
            f"proposed by the plan: {group['provisioned']['instances']} for tier" in each for each in costs.lines()
        )


class TestProfile:
    def test_the_cost_is_that_of_every_call(self) -> None:
        sheet = load_sheet("cny-gbs-2023")
        found = profile_cost([1, 2], calls_of_each=10, sheet=sheet, memory_mb=2048)
        assert found.invocations == 20
        assert found.seconds == pytest.approx(10 * (0.357 + 0.498))
        assert found.cost == pytest.approx(10 * (0.357 + 0.498) * 2 * 1.27e-5 + 20 * 9e-7)
        assert "20 invocations will be billed" in found.sentence()
        assert "--memory-mb" not in found.sentence()
        assert "--memory-mb" in profile_cost([1], calls_of_each=1, sheet=sheet, memory_mb=None).sentence()
