"""What is planned is what runs: `edgeburst plan`, `fc apply` and `serve` one after the other, mostly without an edge.

The endpoint is the local Function Compute, its instances are processes, the clients are real; waits are told apart by
whether they end at all before the test's patience, or by a least length, never by how fast the machine is.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from support.daemon_process import (
    ROOT,
    Running,
    daemon_process,
    environment,
    refused_start,
    stub_edge_process,
    until,
)
from support.local_fc_process import KEY, SECRET, LocalFc, running

pytestmark = pytest.mark.xdist_group("serve")

PROGRAM = ROOT / "tests" / "support" / "frame_function.py"
ENDPOINT = f"""
[access_keys]
{KEY} = "{SECRET}"
[account]
update_s = 0.1
stop_limit_s = 0.3
max_instances = 40
[images."reg/fn:1"]
command = ["python", "{PROGRAM}"]
env = {{ PYTHONPATH = "{environment({})["PYTHONPATH"]}" }}
"""
APPS = """
[[app]]
name = "patient"
slo_s = 50.0
rps = 0.4
[[app]]
name = "hurried"
slo_s = 1.6
rps = 0.4
"""
CONFIG = """
[daemon]
port = 0
[function]
endpoint = "{address}"
protocol = "http"
price_sheet = "fc3-cu-usd"
{edge}
[deploy]
name = "planned"
image = "reg/fn:1"
[[model]]
name = "digits"
{model_keys}
[[model.class]]
name = "patient"
slo_s = 50.0
[[model.class]]
name = "hurried"
slo_s = 1.6
[[model.tier]]
name = "small"
function = "digits"
qualifier = "small"
profile = "small.json"
memory_gb = 1.0
vcpu = 0.5
[[model.tier]]
name = "large"
function = "digits"
qualifier = "large"
profile = "large.json"
memory_gb = 2.0
vcpu = 2.0
"""
KEYS = {"ALIBABA_CLOUD_ACCESS_KEY_ID": KEY, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET}
PROFILE = {
    "name": "made up",
    "source": "for this test",
    "date": "2026-01-01",
    "families": [
        {
            "kind": "cpu",
            "form": "exponential",
            "grid": {"over": "vcpu", "values": [0.5, 2.0]},
            "mean": [[1.2, 0.6, 0.02 * items + 0.1] for items in range(1, 7)],
            "memory_gb": {"base": 1.0, "per_vcpu": 1.0, "step": 0.25},
        }
    ],
}


def measured(alpha_s: float) -> dict[str, Any]:
    """A tier's profile as `edgeburst profile function` writes it."""
    rows = [
        {"batch": b, "p50_s": alpha_s + 0.02 * b, "p95_s": alpha_s + 0.02 * b, "items_per_s": 1.0, "samples": 9}
        for b in (1, 6)
    ]
    shipped = json.loads((ROOT / "models" / "profiles" / "fc-resnet50-1gb.json").read_text())
    return {**shipped, "name": "mine", "alpha_s": alpha_s, "beta_s": 0.02, "max_batch": 6, "rows": rows}


@dataclass
class Site:
    """A folder with plan and configuration, and the endpoint that its functions are deployed to."""

    folder: Path
    fc: LocalFc

    @property
    def config(self) -> Path:
        return self.folder / "edgeburst.toml"

    def configure(self, *, function_plan: str = "", edge: str = "") -> None:
        keys = [f'function_plan = "{function_plan}"'] if function_plan else []
        keys += ['edge_profile = "orin-resnet50"'] if edge else []
        table = f'[edge]\nurl = "{edge}"' if edge else ""
        self.config.write_text(CONFIG.format(address=self.fc.address, edge=table, model_keys="\n".join(keys)))

    def command(self, *words: str) -> str:
        """Runs `edgeburst` as a person does, and returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "scheduler.cli", *words],
            cwd=self.folder,
            env=environment(KEYS),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def versions(self) -> tuple[str, ...]:
        """What is deployed: a resize would make it another."""
        function = self.fc.client().get_function("digits", _latest()).body
        return (function.last_modified_time, str(function.cpu), str(function.memory_size))


def _latest() -> Any:
    from alibabacloud_fc20230330 import models as m

    return m.GetFunctionRequest(qualifier="LATEST")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "small.json").write_text(json.dumps(measured(0.45)))
    (tmp_path / "large.json").write_text(json.dumps(measured(0.1)))
    (tmp_path / "functions.json").write_text(json.dumps(PROFILE))
    (tmp_path / "apps.toml").write_text(APPS)
    with running(tmp_path, ENDPOINT) as fc:
        made = Site(tmp_path, fc)
        made.configure()
        made.command("fc", "apply", str(made.config), "--yes")
        yield made


async def ask(daemon: Running, kind: str, *bodies: bytes) -> list[int]:
    """Sends requests of one class side by side, and returns their statuses."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(body: bytes) -> int:
            headers = {"Content-Type": "image/png", "X-Edgeburst-Class": kind}
            async with session.post(f"{daemon.url}/v1/classify/digits", data=body, headers=headers) as response:
                await response.read()
                return response.status

        return list(await asyncio.wait_for(asyncio.gather(*map(one, bodies)), 45.0))


def asked(daemon: Running, kind: str, *bodies: bytes) -> list[dict[str, Any]]:
    """Sends them, sees each answered, and returns the batches that they were in."""
    last = max((row["record"] for row in batches(daemon)), default=0)
    assert asyncio.run(ask(daemon, kind, *bodies)) == [200] * len(bodies)
    return [row for row in batches(daemon) if row["record"] > last and row["requests"]]


def batches(daemon: Running) -> list[dict[str, Any]]:
    answer = requests.get(f"{daemon.url}/v1/batches", timeout=10).json()
    return list(answer["batches"])


def plan_of(daemon: Running) -> dict[str, Any]:
    status = requests.get(f"{daemon.url}/v1/status", timeout=10).json()
    plan: dict[str, Any] = status["engine"]["plan"]
    return plan


def pictures(count: int, size: int = 100) -> Sequence[bytes]:
    return [bytes([65 + i]) * size for i in range(count)]


def group_of(plan: dict[str, Any], app: str) -> dict[str, Any]:
    [group] = [group for group in plan["groups"] if app in group["apps"]]
    return dict(group)


def test_the_daemon_runs_the_plan_that_was_deployed_and_moves_to_another_by_qualifier(site: Site) -> None:
    words = ("plan", "--apps", "apps.toml", "--profile", "functions.json", "--prices", "fc3-cu-usd", "--json")
    plan = json.loads(site.command(*words))
    patient, hurried = group_of(plan, "patient"), group_of(plan, "hurried")
    assert patient["batch"] > 1
    assert patient["timeouts_s"]["patient"] > 20
    (site.folder / "plan.json").write_text(json.dumps(plan))
    site.command("fc", "apply", "plan.json", "--config", str(site.config), "--yes")
    site.configure(function_plan="plan.json")
    deployed = site.versions()
    tiers = {0.5: "small", 2.0: "large"}
    with daemon_process(site.config, environ=KEYS) as daemon:
        # Exactly a full batch: it leaves at once, although each of them might wait for twenty seconds and more.
        [full] = asked(daemon, "patient", *pictures(patient["batch"]))
        assert (full["tier"], full["items"]) == (tiers[patient["vcpu"]], patient["batch"])
        # One alone waits for others just as long as planned; ten milliseconds are kept for the answer.
        [alone] = asked(daemon, "hurried", *pictures(1))
        assert alone["tier"] == tiers[hurried["vcpu"]]
        assert alone["wait_max_s"] >= hurried["timeouts_s"]["hurried"] - 0.02
        # Another plan: the patient ones go to the other tier, in batches of two.
        other = next(vcpu for vcpu in tiers if vcpu != patient["vcpu"])
        waits_s = {app: {"patient": 30.0, "hurried": 0.5}[app] for app in patient["apps"]}
        size = {"vcpu": other, "memory_gb": max(1.0, other), "batch": 2, "timeouts_s": waits_s}
        moved = {**plan, "groups": [{**g, **size} if "patient" in g["apps"] else g for g in plan["groups"]]}
        (site.folder / "plan.json").write_text(json.dumps(moved))
        daemon.signal(signal.SIGHUP)
        until(lambda: "info reloaded" in daemon.log, "the reload")
        rows = asked(daemon, "patient", *pictures(4))
        assert [(row["tier"], row["items"]) for row in rows] == [(tiers[other], 2)] * 2
        qualifiers = {each["qualifier"] for each in site.fc.instances("digits")}
        daemon.signal(signal.SIGTERM)
        assert daemon.exit_status() == 0
    assert {tiers[patient["vcpu"]], tiers[other]} <= qualifiers
    assert site.versions() == deployed


def test_requests_go_by_size_as_planned(site: Site) -> None:
    shared = {"apps": ["patient"], "kind": "cpu", "gpu_gb": 0, "timeouts_s": {"patient": 40.0}}
    hurried = {"apps": ["hurried"], "kind": "cpu", "gpu_gb": 0, "vcpu": 2.0, "memory_gb": 2.0, "batch": 1}
    groups = [
        {**shared, "vcpu": 0.5, "memory_gb": 1.0, "batch": 3, "up_to_bytes": 1000.0},
        {**shared, "vcpu": 2.0, "memory_gb": 2.0, "batch": 2, "up_to_bytes": 50_000.0},
        {**hurried, "timeouts_s": {"hurried": 0.0}},
    ]
    (site.folder / "plan.json").write_text(json.dumps({"groups": groups}))
    site.configure(function_plan="plan.json")
    with daemon_process(site.config, environ=KEYS) as daemon:
        bodies = [*pictures(3, 100), *pictures(2, 30_000)]
        rows = asked(daemon, "patient", bodies[0], bodies[3], bodies[1], bodies[4], bodies[2])
        assert sorted((row["tier"], row["items"]) for row in rows) == [("large", 2), ("small", 3)]
        [at_once] = asked(daemon, "hurried", *pictures(1))
        assert (at_once["tier"], at_once["items"]) == ("large", 1)


def test_beside_an_edge_the_plan_is_for_what_that_has_no_room_for(site: Site) -> None:
    size = {"kind": "cpu", "gpu_gb": 0, "vcpu": 2.0, "memory_gb": 2.0}
    groups = [
        {**size, "apps": ["patient"], "batch": 6, "timeouts_s": {"patient": 40.0}},
        {**size, "apps": ["hurried"], "batch": 2, "timeouts_s": {"hurried": 0.5}},
    ]
    (site.folder / "plan.json").write_text(json.dumps({"groups": groups}))
    with stub_edge_process() as edge:
        site.configure(function_plan="plan.json", edge=edge.url)
        with daemon_process(site.config, environ=KEYS) as daemon:
            [on_edge] = asked(daemon, "hurried", *pictures(1))
            assert on_edge["backend"] == "edge"
            # The edge is gone for longer than these have: a full batch of the plan leaves for its tier.
            requests.post(f"{edge.url}/control", json={"mode": "ok", "alpha_s": 5.0}, timeout=10)
            rows = [row for row in asked(daemon, "hurried", *pictures(5)) if row["backend"] == "function"]
            assert rows
            assert {row["tier"] for row in rows} == {"large"}
            assert max(row["items"] for row in rows) <= 2


def test_without_a_plan_classes_are_grouped_on_tiers_by_what_was_seen_of_them(site: Site) -> None:
    with daemon_process(site.config, environ=KEYS) as daemon:
        first = plan_of(daemon)["groups"][0]
        assert {name for buffer in first["buffers"] for name in buffer["classes"]} == {"patient", "hurried"}
        for _ in range(3):
            asked(daemon, "hurried", *pictures(2))
        daemon.signal(signal.SIGHUP)
        until(lambda: plan_of(daemon)["cause"] == "settings", "a plan from what was seen")
        group = plan_of(daemon)["groups"][0]
        by_class = {name: buffer for buffer in group["buffers"] for name in buffer["classes"]}
        assert group["edge_batch_cap"] == 0
        assert group["feasible"]
        # Six of six were hurried; each class knows how long its requests may wait, and none is fixed.
        assert by_class["hurried"]["share"] == pytest.approx(1.0)
        assert by_class["patient"]["timeouts_s"]["patient"] > by_class["hurried"]["timeouts_s"]["hurried"] > 0
        assert not any(buffer["fixed"] for buffer in group["buffers"])
        rows = asked(daemon, "hurried", *pictures(3))
        assert {row["tier"] for row in rows} == {by_class["hurried"]["tier"]}


def test_a_plan_that_does_not_fit_is_refused_with_one_sentence_and_a_reload_keeps_the_old_one(site: Site) -> None:
    strange = {"apps": ["patient"], "kind": "cpu", "vcpu": 4.0, "memory_gb": 4.0, "gpu_gb": 0, "batch": 2}
    group = {**strange, "timeouts_s": {"patient": 1.0}}
    (site.folder / "plan.json").write_text(json.dumps({"groups": [group]}))
    site.configure(function_plan="plan.json")
    refused = refused_start(site.config, KEYS)
    assert refused.returncode == 2
    assert "the plan has no application for class hurried of model digits" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    site.configure()
    with daemon_process(site.config, environ=KEYS) as daemon:
        site.configure(function_plan="plan.json")
        daemon.signal(signal.SIGHUP)
        until(lambda: "reload_refused" in daemon.log, "the refusal")
        assert asked(daemon, "hurried", *pictures(1))
    assert os.path.basename(str(site.config)) in daemon.log
