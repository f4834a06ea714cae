"""The alert rules and the dashboard for Grafana, before promtool and a real Prometheus that scrapes real processes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import edge_process
from support.daemon_process import LIMIT_S
from support.page_world import TENANTS, PageWorld, page_world, traffic
from support.prometheus import DASHBOARD, FOLDER, RULES, Prometheus, prometheus_process, promtool

ROOT = Path(__file__).parents[2]
README = ROOT / "scheduler" / "README.md"
TESTS = ("edgeburst.rules.test.yml", "edgeburst.slo.test.yml")
SCRAPES = 15
"""Of the daemon under traffic, one a second, before anything is asked."""
NAME = re.compile(r"edgeburst_[a-z0-9_]+")
HAPPENS_NOT = frozenset(
    {
        "edgeburst_refusals_total",
        "edgeburst_http_errors_total",
        "edgeburst_grpc_errors_total",
        "edgeburst_batch_failures_total",
        "edgeburst_function_concurrency_learned",
        "edgeburst_model_identity_agrees",
        "edgeburst_edge_batch_limit",
        "edgeburst_disbelieved_reports_total",
        "edgeburst_spend_opens_in_seconds",
        "edgeburst_lender_up",
        "edgeburst_lender_failures_total",
        "edgeburst_lent",
        "edgeburst_edge_shared",
        "edgeburst_edge_others_wait_seconds",
        "edgeburst_edge_others_wait_observed_seconds",
        "edgeburst_recording_up",
        "edgeburst_recording_written_total",
        "edgeburst_recording_lost_total",
    }
)
"""What has no series as long as nothing is refused, throttled, learned, borrowed, shared or recorded."""


def alerts() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def expressions() -> list[str]:
    """Every query of the dashboard, with what Grafana fills in."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    filled = [re.sub(r"\$(instance|model)\b", ".*", each).replace("$__rate_interval", "10s") for each in found]
    assert "$" not in "".join(filled)
    return filled


def names_in_readme() -> set[str]:
    """The metrics of the table in scheduler/README.md."""
    text = README.read_text(encoding="utf-8")
    table = text[text.index("\n## Metrics\n") : text.index("\nKinds of refusal: ")]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([a-z0-9_]+)`", cell)}


def families(text: str) -> set[str]:
    """The names of an exposition, as their TYPE lines have them."""
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def series(text: str) -> set[str]:
    """The names of an exposition that have a sample, histograms without what is added to their names."""
    histograms = set(re.findall(r"^# TYPE (\S+) histogram$", text, re.MULTILINE))
    samples = set(re.findall(r"^([a-zA-Z_:][\w:]*)[{ ]", text, re.MULTILINE))
    return {
        next((name for name in histograms if re.fullmatch(rf"{name}_(bucket|sum|count)", one)), one) for one in samples
    }


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as response:
        return str(response.read(), "utf-8")


def ask(edge: str) -> None:
    """Has an edge server serve a batch of one broken picture."""
    inputs = [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["eA=="]}]
    body = json.dumps({"inputs": inputs}).encode()
    request = urllib.request.Request(
        f"{edge}/v2/models/digits/infer", body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
        assert response.status == 200


def test_every_alert_says_what_it_is_how_bad_what_it_means_and_where_to_read_on() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"warning", "critical"}, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name
        assert rule["annotations"]["runbook"] == "scheduler/README.md#alerts"


def test_every_alert_has_a_scenario_that_fires_it_and_one_that_does_not() -> None:
    told: dict[str, set[bool]] = {}
    for path in TESTS:
        for scenario in yaml.safe_load((FOLDER / path).read_text(encoding="utf-8"))["tests"]:
            for case in scenario["alert_rule_test"]:
                told.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert told == {name: {True, False} for name in alerts()}


def test_the_documentation_says_of_each_alert_what_to_do() -> None:
    text = README.read_text(encoding="utf-8")
    section = text[text.index("\n### Alerts\n") :]
    rows = re.findall(r"^\| `(Edgeburst\w+)` \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(alerts())


def test_alerts_and_dashboard_ask_for_metrics_that_the_documentation_names_and_that_are_neither_half_named() -> None:
    text = f"{RULES.read_text(encoding='utf-8')} {' '.join(expressions())}"
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}
    of_edge_servers = {name for name in asked if name.startswith(("edgeburst_edge_service", "edgeburst_edge_queue"))}
    assert sorted(asked - of_edge_servers - names_in_readme()) == []


def test_promtool_accepts_the_rules_and_the_example_of_a_configuration(tmp_path: Path) -> None:
    promtool("check", "rules", RULES.name)
    example = (FOLDER / "prometheus.example.yml").read_text(encoding="utf-8")
    for name in ("edgeburst", "edgeburst-edge"):
        (tmp_path / f"{name}.token").write_text("secret", encoding="utf-8")
    (tmp_path / RULES.name).write_bytes(RULES.read_bytes())
    (tmp_path / "prometheus.yml").write_text(example.replace("/etc/prometheus", str(tmp_path)), encoding="utf-8")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)


@pytest.mark.slow
def test_promtool_finds_each_scenario_as_it_is_written() -> None:
    promtool("test", "rules", *TESTS)


@pytest.mark.slow
def test_the_dashboard_is_what_its_source_builds() -> None:
    python = os.environ.get("EDGEBURST_MONITORING", "")
    if not python and importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("grafana-foundation-sdk is not installed; `make .venv-monitoring/.installed test-slow` does so")
    command = [python or sys.executable, "-m", "scripts.monitoring.build_dashboard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == DASHBOARD.read_text(encoding="utf-8"), "`make dashboard` writes it anew"


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has scraped a daemon under traffic for a while, and an edge server."""

    prometheus: Prometheus
    world: PageWorld


CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: edgeburst
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: edgeburst-edge
    static_configs: [{{targets: ["{edge}"]}}]
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    pytest.importorskip("torch")
    folder: Path = tmp_path_factory.mktemp("watched")
    with ExitStack() as stack:
        world = stack.enter_context(page_world(folder, slo_s=0.9, alpha_s=0.4, shadow_slo_s=1.8))
        edge = stack.enter_context(edge_process.running("--model", "digits", "--max-batch", "4"))
        stack.enter_context(traffic(world.daemon.url, 25.0))
        rules = folder / "often.yml"
        rules.write_text(RULES.read_text(encoding="utf-8").replace("interval: 30s", "interval: 1s"), encoding="utf-8")
        config = CONFIG.format(rules=rules, port=world.daemon.port, edge=edge.address)
        prometheus = stack.enter_context(prometheus_process(folder, config))
        give_up_s = time.monotonic() + LIMIT_S
        while (prometheus.value('count_over_time(edgeburst_ready{job="edgeburst"}[1m])') or 0) < SCRAPES:
            assert time.monotonic() < give_up_s, "Prometheus does not scrape"
            ask(edge.url)
            time.sleep(0.2)
        yield Watched(prometheus, world)


@pytest.mark.slow
class TestPrometheus:
    def test_every_query_of_the_dashboard_has_a_result_where_there_is_traffic(self, watched: Watched) -> None:
        asked = expressions()
        assert len(asked) > 60
        empty = [
            each
            for each in asked
            if not watched.prometheus.query(each) and not HAPPENS_NOT.intersection(NAME.findall(each))
        ]
        assert empty == []

    def test_every_rule_is_evaluated_without_an_error_and_asks_for_series_that_there_are(
        self, watched: Watched
    ) -> None:
        for group in watched.prometheus.get("rules")["groups"]:
            for rule in group["rules"]:
                assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
        there = set(watched.prometheus.get("label/__name__/values"))
        for name, rule in alerts().items():
            watched.prometheus.query(rule["expr"])
            assert set(NAME.findall(rule["expr"])) - there - HAPPENS_NOT == set(), name
            assert set(re.findall(r"edgeburst:[\w:]+", rule["expr"])) - there == set(), name

    def test_a_daemon_in_use_is_up_and_raises_no_alert_but_those_of_its_objectives(self, watched: Watched) -> None:
        assert watched.prometheus.value('up{job="edgeburst"}') == 1.0
        assert watched.prometheus.value('up{job="edgeburst-edge"}') == 1.0
        firing = watched.prometheus.query('ALERTS{alertstate="firing"}')
        assert {each["metric"]["alertname"] for each in firing} <= {"EdgeburstSloBurnFast", "EdgeburstSloBurnSlow"}

    def test_the_metrics_are_clean_and_all_documented(self, watched: Watched) -> None:
        text = read(f"{watched.world.daemon.url}/metrics")
        promtool("check", "metrics", text=text)
        assert sorted(families(text) - names_in_readme()) == []
        assert sorted(names_in_readme() - series(text) - HAPPENS_NOT) == []
        assert "_created" not in text
        edge = str(watched.prometheus.query('up{job="edgeburst-edge"}')[0]["metric"]["instance"])
        text = read(f"http://{edge}/metrics")
        promtool("check", "metrics", text=text)
        assert "_created" not in text
        described = (ROOT / "edge_server" / "README.md").read_text(encoding="utf-8")
        assert {name for name in families(text) if f"`{name}`" not in described} == set()


TOKENS = """
[[token]]
name = "prometheus"
sha256 = "{reader}"
scopes = ["read"]
[[token]]
name = "camera"
sha256 = "{client}"
scopes = ["infer"]
"""


@pytest.mark.slow
def test_a_token_of_the_scope_read_is_what_prometheus_needs(tmp_path: Path) -> None:
    secrets = {name: f"{name}-0123456789abcdef" for name in ("reader", "client")}
    hashes = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in secrets.items()}
    with page_world(tmp_path, tenants=TENANTS + TOKENS.format(**hashes)) as world:
        jobs = [
            {
                "job_name": name,
                "authorization": {"credentials": secret},
                "static_configs": [{"targets": [f"127.0.0.1:{world.daemon.port}"]}],
            }
            for name, secret in secrets.items()
        ]
        config = yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs})
        with prometheus_process(tmp_path, config) as prometheus:
            give_up_s = time.monotonic() + LIMIT_S
            while len(prometheus.query("up")) < 2:
                assert time.monotonic() < give_up_s, "Prometheus does not scrape"
                time.sleep(0.2)
            assert {each["metric"]["job"]: each["value"][1] for each in prometheus.query("up")} == {
                "reader": "1",
                "client": "0",
            }
