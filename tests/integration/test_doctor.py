"""`edgeburst doctor` finds each of twenty faults of the three hosts, with its mend, and nothing where nothing is wrong.

The hosts are real processes: our edge server, the local Function Compute endpoint with our container, and stand-ins for
servers of others. Each row makes one thing wrong.
"""

from __future__ import annotations

import glob
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from unittest import mock

import pytest
from alibabacloud_fc20230330 import models as fc_models
from support import edge_process, local_fc_process
from support.daemon_process import environment
from support.hygiene import python_path
from support.local_fc_process import KEY, SECRET, LocalFc
from support.stub_fc import Heard, Say, StubFc, answer_frame
from support.stub_oip_server import ServerThread
from support.triton_stub import TritonServer, TritonStub

import models.catalogue
from scheduler import cli

ROOT = Path(__file__).parents[2]
FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
CONFIG = """
[daemon]
port = 0
state = "{state}"
[edge]
url = "{edge}"
[function]
endpoint = "{endpoint}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
price_sheet = "{sheet}"
{spend}
[[model]]
card = "{card}"
edge_profile = "{edge_profile}"
[[model.class]]
slo_s = {slo_s}
[[model.tier]]
name = "1gb"
function = "digits"
qualifier = "{qualifier}"
profile = "{function_profile}"
memory_gb = 1.0
"""
ENDPOINT = """
[access_keys]
{key} = "{secret}"
[images.ours]
command = ["{python}", "-m", "serverless_fn", "--models", "{folder}"]
env = {{ PYTHONPATH = "{path}", EDGEBURST_EMULATE = "{profile}", RUNTIME = "onnxruntime" }}
[[function]]
functionName = "digits"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
diskSize = 512
timeout = 20
customContainerConfig = {{ image = "ours" }}
"""
MLSERVER = """
[daemon]
port = 0
state = "{state}"
[edge]
url = "{edge}"
tensors = "binary"
[[model]]
name = "sums"
max_items = 8
edge_profile = "{edge_profile}"
inputs = [{{ name = "x", datatype = "FP32", shape = [4] }}]
outputs = [{{ name = "sum", datatype = "FP32", shape = [1] }}]
[[model.class]]
slo_s = 2.0
"""


@dataclass(frozen=True)
class Hosts:
    """What runs, and what the configuration says of it."""

    folder: Path
    values: Mapping[str, object]
    fc: LocalFc
    endpoint: str
    """Configuration of the local endpoint."""
    environ: Mapping[str, str] = field(default_factory=dict)
    files: int | None = None
    """Limit of open files of the doctor's process."""
    template: str = CONFIG

    def but(self, **changed: object) -> Hosts:
        """Returns the same with other values in the configuration."""
        return replace(self, values={**self.values, **changed})

    def under(self, **environ: str) -> Hosts:
        """Returns the same with more in the environment."""
        return replace(self, environ={**self.environ, **environ})

    def examined(self, *options: str) -> tuple[int, list[dict[str, str]]]:
        """Runs the doctor; returns its exit status and its rows."""
        path = self.folder / "edgeburst.toml"
        path.write_text(self.template.format(**self.values))
        command = ["doctor", "--config", str(path), "--json", "--unit", str(self.folder / "no-unit"), *options]
        environ = environment({"TEST_KEY_ID": KEY, "TEST_KEY_SECRET": SECRET, **self.environ})
        if self.files is None and "LD_PRELOAD" not in self.environ:
            # Starting Python and importing the SDK takes most of a run.
            with redirect_stdout(io.StringIO()) as out, mock.patch.dict(os.environ, environ, clear=True):
                status = cli.main(command)
            return status, list(json.loads(out.getvalue())["rows"])
        found = subprocess.run(
            [sys.executable, "-m", "scheduler.cli", *command],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=self._limited,
        )
        assert found.returncode in (0, 1), found.stderr
        return found.returncode, list(json.loads(found.stdout)["rows"])

    def _limited(self) -> None:
        if self.files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))


def profile(path: Path, backend: str, *, alpha_s: float = 0.04, max_batch: int = 32) -> Path:
    """Writes a profile."""
    law = {"alpha_s": alpha_s, "beta_s": 0.001, "max_batch": max_batch, "rows": [], "note": "for a test"}
    about: dict[str, object] = {
        "name": path.stem,
        "backend": backend,
        "device": "a test",
        "source": "a test",
        "date": "2026-01-01",
    }
    about["environment"] = {}
    model = "sums" if "sums" in path.stem else "digits"
    path.write_text(json.dumps({**about, "model": model, **law}))
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    (served := folder / "served").mkdir()
    shutil.copytree(models.catalogue.shipped("digits").folder, card := served / "digits")
    lines = (card / "model.toml").read_text().splitlines(keepends=True)
    (card / "model.toml").write_text("".join(line for line in lines if not line.startswith("sha256")))
    edge_profile = profile(folder / "edge.json", "edge")
    function_profile = profile(folder / "function.json", "function")
    sheet = json.loads((ROOT / "scheduler/planner/prices/cny-gbs-2023.json").read_text())
    (folder / "sheet.json").write_text(json.dumps({**sheet, "date": date.today().isoformat()}))
    endpoint = ENDPOINT.format(
        key=KEY, secret=SECRET, python=sys.executable, folder=served, path=python_path(ROOT), profile=function_profile
    )
    options = ("--model", str(card), "--emulate", str(edge_profile), "--runtime", "onnxruntime", "--max-batch", "32")
    with edge_process.running(*options) as edge, local_fc_process.running(folder, endpoint) as fc:
        version = fc.client().publish_function_version("digits", fc_models.PublishFunctionVersionRequest())
        alias = fc_models.CreateAliasInput(alias_name="live", version_id=version.body.version_id)
        fc.client().create_alias("digits", fc_models.CreateAliasRequest(body=alias))
        values = {
            "state": folder / "state",
            "edge": edge.url,
            "endpoint": fc.address,
            "sheet": folder / "sheet.json",
            "spend": "",
            "card": card,
            "edge_profile": edge_profile,
            "slo_s": 2.0,
            "qualifier": "live",
            "function_profile": function_profile,
        }
        yield Hosts(folder, values, fc, endpoint)


@pytest.fixture
def hosts(started: Hosts, tmp_path: Path) -> Iterator[Hosts]:
    yield replace(started, folder=tmp_path)
    started.fc.admin("DELETE", "faults")


def wrong_port(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(edge="http://127.0.0.1:9")


def card_copy(hosts: Hosts) -> Path:
    copy = hosts.folder / "digits"
    shutil.copytree(str(hosts.values["card"]), copy)
    return copy


def other_weights(hosts: Hosts, _: ExitStack) -> Hosts:
    copy = card_copy(hosts)
    with (copy / "digits.onnx").open("ab") as file:
        file.write(b"\x32\x01x")  # another description in the file
    return hosts.but(card=copy)


def other_card(hosts: Hosts, _: ExitStack) -> Hosts:
    copy = card_copy(hosts)
    with (copy / "model.toml").open("a") as file:
        file.write("# edited\n")
    return hosts.but(card=copy)


def model_missing(hosts: Hosts, _: ExitStack) -> Hosts:
    copy = card_copy(hosts)
    return hosts.but(card=copy.rename(hosts.folder / "letters"))


def wrong_key(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.under(TEST_KEY_SECRET="another-secret")


def no_permission(hosts: Hosts, _: ExitStack) -> Hosts:
    fault = {"kind": "status", "operation": "invoke_function", "status": 403, "code": "AccessDenied"}
    hosts.fc.admin("POST", "faults", {**fault, "message": "the caller is not authorized"})
    return hosts


def clock_ahead(hosts: Hosts, _: ExitStack) -> Hosts:
    if not FAKETIME:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    return hosts.under(LD_PRELOAD=FAKETIME[0], FAKETIME="+3600", FAKETIME_DONT_FAKE_MONOTONIC="1")


def inactive(hosts: Hosts, stack: ExitStack) -> Hosts:
    def said(heard: Heard) -> Say:
        if heard.method == "GET":
            body = {"functionName": "digits", "state": "Inactive", "stateReason": "it was idle", "memorySize": 1024}
            return Say(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return answer_frame(heard, cold_start=False, service_s=0.041)

    server = stack.enter_context(ServerThread(StubFc(said).serve_connection))
    return hosts.but(endpoint=server.url.removeprefix("http://"))


def alias_missing(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(qualifier="gone")


def profile_off(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(edge_profile=profile(hosts.folder / "half.json", "edge", alpha_s=0.02))


def old_sheet(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(sheet="cny-gbs-2023")


def read_only_state(hosts: Hosts, _: ExitStack) -> Hosts:
    # Not even root writes there.
    return hosts.but(state="/sys/kernel")


def few_files(hosts: Hosts, _: ExitStack) -> Hosts:
    return replace(hosts, files=64)


def numpy_2_under_old_torch(hosts: Hosts, stack: ExitStack) -> Hosts:
    about = hosts.folder / "packages" / "torch-2.2.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.2.2\n")
    about = hosts.folder / "packages" / "numpy-2.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    options = ("--model", str(hosts.values["card"]), "--emulate", str(hosts.values["edge_profile"]))
    path = os.pathsep.join([str(hosts.folder / "packages"), python_path(ROOT)])
    quick = ("--runtime", "onnxruntime", "--max-batch", "32")
    edge = stack.enter_context(edge_process.running(*options, *quick, environ={"PYTHONPATH": path}))
    return hosts.but(edge=edge.url)


def mlserver_in_binary(hosts: Hosts, stack: ExitStack) -> Hosts:
    server = stack.enter_context(TritonServer(TritonStub(takes_binary=False)))
    law = profile(hosts.folder / "sums.json", "edge", alpha_s=0.001, max_batch=8)
    return replace(hosts.but(edge=server.url, edge_profile=law), template=MLSERVER)


def proxy(hosts: Hosts, _: ExitStack) -> Hosts:
    # The host itself by a name that is not of the loopback, so that the proxy counts.
    there = hosts.but(endpoint=f"0.0.0.0:{hosts.fc.port}")
    return there.under(HTTP_PROXY="http://127.0.0.1:9", no_proxy="127.0.0.1")


def slo_too_short(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(slo_s=0.01)


def cap_0(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(spend="[spend]\nper_hour = 0.0")


def small_batches(hosts: Hosts, _: ExitStack) -> Hosts:
    return hosts.but(edge_profile=profile(hosts.folder / "large.json", "edge", max_batch=64))


def slow_uplink(hosts: Hosts, stack: ExitStack) -> Hosts:
    (there := hosts.folder / "slow").mkdir()
    endpoint = stack.enter_context(
        local_fc_process.running(there, hosts.endpoint, "--uplink-mbit-per-s", "0.4", "--rtt-s", "0.01")
    )
    return hosts.but(endpoint=endpoint.address, qualifier="LATEST", slo_s=0.3)


@dataclass(frozen=True)
class Fault:
    """One row of the table in the issue: what makes it, where it is found, and what the mend says."""

    name: str
    make: Callable[[Hosts, ExitStack], Hosts]
    found: tuple[str, str]
    mends: Sequence[str]
    also: frozenset[tuple[str, str]] = frozenset()
    """Findings that follow from it."""


def also(*rows: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(rows)


CLIENT, EDGE, TIER, FUNCTIONS = "client host", "edge host", "tier 1gb", "functions"
FAULTS = (
    Fault("wrong port", wrong_port, (EDGE, "reachable"), ["127.0.0.1:9 ", "correct `url` in [edge]"]),
    Fault(
        *("other weights", other_weights, (EDGE, "model"), ["other weights or files (digits.onnx)", "digits.onnx, or"]),
        also=also((TIER, "model")),
    ),
    Fault(
        *("other card", other_card, (EDGE, "model"), ["another card (model.toml)", "digits/model.toml, or"]),
        also=also((TIER, "model")),
    ),
    Fault(
        *("model missing", model_missing, (EDGE, "model"), ["has no model letters, but digits", "--model"]),
        also=also((TIER, "calls"), (CLIENT, "configuration")),
    ),
    Fault(
        "wrong key", wrong_key, (FUNCTIONS, "credentials"), ["check the access key in TEST_KEY_ID and TEST_KEY_SECRET"]
    ),
    Fault("no invoke permission", no_permission, (TIER, "permissions"), ["the permission fc:InvokeFunction"]),
    Fault(
        *("clock + 1 h", clock_ahead, (CLIENT, "clock"), ["this host's clock is 1 h ahead", "timedatectl"]),
        also=also((FUNCTIONS, "credentials")),
    ),
    Fault("function inactive", inactive, (TIER, "function"), ["is inactive (it was idle)", "invoke it once"]),
    Fault("alias missing", alias_missing, (TIER, "function"), ["no version or alias gone", "`edgeburst fc apply`"]),
    Fault("profile 2 x off", profile_off, (EDGE, "profile"), ["measure it anew with `edgeburst profile edge --url"]),
    Fault("old price sheet", old_sheet, (CLIENT, "prices"), ["2023-01-01", "with a later date in `price_sheet`"]),
    Fault("state read-only", read_only_state, (CLIENT, "state"), ["/sys/kernel cannot be written", "make it writable"]),
    Fault("nofile 64", few_files, (CLIENT, "ulimits"), ["(nofile) is 64", "ulimit -n 65536"]),
    Fault("numpy 2", numpy_2_under_old_torch, (EDGE, "numpy"), ["numpy 2.1.0 under torch 2.2.2", "'numpy<2'"]),
    Fault("MLServer in binary", mlserver_in_binary, (EDGE, "tensors"), ['`tensors = "json"` in [edge]']),
    Fault(
        *("proxy", proxy, (CLIENT, "proxy"), ["the proxy in HTTP_PROXY", "unset HTTP_PROXY"]),
        also=also((FUNCTIONS, "reachable")),
    ),
    Fault("SLO below the fastest", slo_too_short, (CLIENT, "configuration"), ["SLO of 0.01 s", "raise `slo_s`"]),
    Fault("cap 0", cap_0, (CLIENT, "configuration"), ["`per_hour` in [spend] is 0", "raise it"]),
    Fault("max_batch below the plan", small_batches, (EDGE, "batches"), ["at most 32 items", "--max-batch 64"]),
    Fault("slow uplink", slow_uplink, (FUNCTIONS, "uplink"), ["one request of digits", "get a faster line"]),
)

pytestmark = pytest.mark.xdist_group("doctor")


def findings(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], str]:
    return {(row["where"], row["check"]): row["sentence"] for row in rows if row["level"] == "finding"}


def test_twenty_faults_are_told_apart() -> None:
    assert len(FAULTS) == len({fault.name for fault in FAULTS}) == 20


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_found_with_its_mend_and_nothing_else(hosts: Hosts, fault: Fault) -> None:
    with ExitStack() as stack:
        status, rows = fault.make(hosts, stack).examined()
    found = findings(rows)
    assert status == 1
    assert fault.found in found, rows
    assert all(words in found[fault.found] for words in fault.mends), found[fault.found]
    assert set(found) - fault.also == {fault.found}, found


def test_nothing_is_found_where_nothing_is_wrong(hosts: Hosts) -> None:
    status, rows = hosts.examined()
    assert (status, findings(rows)) == (0, {})
    checked = {(row["where"], row["check"]) for row in rows if row["level"] == "ok"}
    assert {(EDGE, check) for check in ("reachable", "ready", "versions", "model", "batches", "profile")} <= checked
    assert {(TIER, check) for check in ("function", "model", "profile")} <= checked
    assert {(CLIENT, check) for check in ("versions", "prices", "ulimits", "state", "unit", "proxy")} <= checked
    assert {(EDGE, "clock"), (FUNCTIONS, "clock"), (FUNCTIONS, "credentials"), (FUNCTIONS, "uplink")} <= checked


def test_no_calls_are_made_where_none_are_wanted(hosts: Hosts) -> None:
    before = hosts.fc.usage("digits")["invocations"]
    status, rows = hosts.examined("--no-calls")
    assert status == 0
    assert hosts.fc.usage("digits")["invocations"] == before
    assert not [row for row in rows if row["check"] == "profile"]


def test_what_is_ignored_counts_as_no_finding(hosts: Hosts) -> None:
    assert old_sheet(hosts, ExitStack()).examined("--no-calls", "--ignore", "prices")[0] == 0


def test_a_proxy_never_swallows_loopback(hosts: Hosts) -> None:
    behind = hosts.under(HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    assert behind.examined("--no-calls")[0] == 0


def test_the_permissions_of_deploying_are_named_one_by_one(hosts: Hosts) -> None:
    hosts.fc.admin(
        "POST", "faults", {"kind": "status", "operation": "list_aliases", "status": 403, "code": "NoPermission"}
    )
    deploying = replace(hosts, template=CONFIG + '[deploy]\nimage = "registry/x:1"\n')
    _, rows = deploying.examined()
    refused = [row["sentence"] for row in rows if row["check"] == "permissions" and row["level"] == "finding"]
    granted = [row["sentence"] for row in rows if row["check"] == "permissions" and row["level"] == "ok"]
    assert len(refused) == 1
    assert "lacks the permission fc:ListAliases" in refused[0]
    assert len(granted) == 7


def test_an_invalid_configuration_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text("[daemon]\nprot = 1\n")
    assert cli.main(["doctor", "--config", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
