"""`edgeburst fc` against the local endpoint, with the provider's SDK: nothing twice, nothing foreign, no halves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_fc20230330 import models as m
from support.local_fc_process import KEY, ROOT, SECRET, LocalFc, running

from scheduler import cli

GOOD = f'command = ["python", "-S", "{ROOT / "tests" / "support" / "one_row_function.py"}"]'
ENDPOINT = f"""
[access_keys]
{KEY} = "{SECRET}"
[account]
update_s = 0.1
stop_limit_s = 0.3
idle_s = 1.0
max_instances = 40
[images."reg/fn:1"]
{GOOD}
[images."reg/fn:2"]
{GOOD}
[images."reg/fn:bad"]
command = ["python", "-S", "{ROOT / "tests" / "support" / "echo_function.py"}"]
"""
TOKEN = "a-secret-value"


@pytest.fixture(scope="module")
def fc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFc]:
    with running(tmp_path_factory.mktemp("fc"), ENDPOINT) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", SECRET)
    sleep = time.sleep
    # Its patience with what passes is a second and more; here all passes soon.
    monkeypatch.setattr("scheduler.deploying.command.time.sleep", lambda s: sleep(min(s, 0.05)))


@dataclass
class Told:
    """What a run said, and its exit status."""

    status: int
    out: str
    err: str


@dataclass
class Work:
    """One test's function, and the command upon it."""

    fc: LocalFc
    folder: Path
    function: str
    capsys: pytest.CaptureFixture[str]

    def write(self, *tiers: str, image: str = "reg/fn:1", spend: str = "", **deploy: str) -> Path:
        """A configuration with tiers of 1 vCPU; deploy settings and [spend] as TOML text."""
        settings = "".join(f"{key} = {value}\n" for key, value in {"name": f'"d-{self.function}"', **deploy}.items())
        tables = "".join(
            f'[[model.tier]]\nname = "{tier}"\nfunction = "{self.function}"\nqualifier = "{tier}"\n'
            f'profile = "fc-resnet50-1gb"\nvcpu = 1\nmemory_gb = {number + 1}\n'
            for number, tier in enumerate(tiers)
        )
        path = self.folder / "eb.toml"
        path.write_text(
            f'[function]\nprotocol = "http"\nendpoint = "{self.fc.address}"\n'
            f'[spend]\n{spend}\n[deploy]\nimage = "{image}"\n{settings}[[model]]\nname = "digits"\n{tables}'
        )
        return path

    def run(self, verb: str, file: Path, *options: str) -> Told:
        """Run the command as from a shell; what it says never holds a secret."""
        self.capsys.readouterr()
        status = cli.main(["fc", verb, str(file), *options])
        said = self.capsys.readouterr()
        assert SECRET not in said.out + said.err
        assert TOKEN not in said.out + said.err
        assert "Traceback" not in said.err
        return Told(status, said.out, said.err)

    def apply(self, file: Path, *options: str) -> Told:
        return self.run("apply", file, "--yes", *options)

    def good(self, file: Path, *options: str) -> Told:
        """An apply that succeeds, after which there is nothing more to do."""
        told = self.apply(file, *options)
        assert told.status == 0, told.err
        changes = json.loads(self.run("plan", file, "--json").out)["changes"]
        assert {change["action"] for change in changes if not change["only_pruned"]} == {"unchanged"}
        return told

    def refused(self, file: Path, *options: str) -> str:
        """An apply that fails with one sentence, the last line."""
        told = self.apply(file, *options)
        assert told.status == 2
        return told.err.splitlines()[-1]

    def aliases(self) -> dict[str, str]:
        listed = self.fc.client().list_aliases(self.function, m.ListAliasesRequest()).body.aliases
        return {alias.alias_name: alias.version_id for alias in listed}

    def versions(self) -> list[str]:
        request = m.ListFunctionVersionsRequest(direction="FORWARD")
        return [
            each.version_id for each in self.fc.client().list_function_versions(self.function, request).body.versions
        ]

    def shown(self, qualifier: str) -> m.Function:
        return self.fc.client().get_function(self.function, m.GetFunctionRequest(qualifier=qualifier)).body

    def exists(self) -> bool:
        names = self.fc.client().list_functions(m.ListFunctionsRequest(prefix=self.function)).body.functions
        return self.function in [each.function_name for each in names]


@pytest.fixture
def work(
    fc: LocalFc, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[Work]:
    made = Work(fc, tmp_path, "f-" + str(abs(hash(request.node.name)))[:12], capsys)
    yield made
    fc.admin("DELETE", "faults")
    if made.exists():
        fc.remove(made.function)


@pytest.fixture
def fault(work: Work) -> Callable[..., None]:
    """Sets a fault on the test's function."""
    return lambda **given: work.fc.admin("POST", "faults", {"function": work.function, **given})


def test_an_apply_makes_what_the_plan_shows_and_a_second_one_changes_nothing(work: Work) -> None:
    file = work.write("small", "large", reserved_concurrency="7", provisioned="{ small = 1 }")
    before = json.loads(work.run("plan", file, "--json").out)["changes"]
    assert [(each["action"], each["name"]) for each in before] == [
        ("create", work.function), ("create", f"{work.function}:small"), ("create", f"{work.function}:large")
    ]  # fmt: skip
    assert not work.exists()
    assert work.run("status", file).status == 1
    work.good(file)
    assert work.aliases() == {"small": "1", "large": "2"}
    assert [work.shown(alias).memory_size for alias in ("small", "large")] == [1024, 2048]
    client = work.fc.client()
    assert client.get_concurrency_config(work.function).body.reserved_concurrency == 7
    status = json.loads(work.run("status", file, "--json").out)["tiers"]
    assert [(row["tier"], row["ok"], row["provisioned"]) for row in status] == [("small", True, 1), ("large", True, 0)]
    # A call by alias gets the configuration of its tier, whatever LATEST has.
    ran = {(each["qualifier"], each["versionId"]) for each in work.fc.instances(work.function)}
    assert ran == {("1", "1"), ("small", "1"), ("2", "2"), ("large", "2")}
    calls = work.fc.usage(work.function)["invocations"]
    told = work.apply(file)
    assert told.out.splitlines()[-1] == "nothing to do: everything is as configured"
    assert (told.err, work.versions()) == ("", ["1", "2"])
    assert work.fc.usage(work.function)["invocations"] == calls, "what is unchanged is not probed: that costs money"


def test_provisioned_instances_are_priced_before_they_are_made(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    file = work.write("small", "large", provisioned="{ large = 2 }")
    money = "2 provisioned instances will cost 0.1829 CNY an hour and 4.389 CNY a day while idle"
    assert money in work.run("plan", file).out
    found = json.loads(work.run("plan", file, "--json").out)["provisioned"]
    assert found["idle_per_day"] == pytest.approx(2 * 2 * 1.27e-5 * 86_400)
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    def refuse(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", refuse)
    assert work.run("apply", file).status == 1
    assert asked == [f"Apply this? {money}. [y/N] "]
    assert not work.exists()


def test_the_exit_code_tells_changes_from_none_and_from_an_error(work: Work) -> None:
    file = work.write("small")
    assert work.run("plan", file).status == 0
    assert work.run("plan", file, "--exit-code").status == 2
    work.good(file)
    assert work.run("plan", file, "--exit-code").status == 0
    assert work.run("plan", file, "--exit-code", "--json").status == 0
    file.write_text(file.read_text().replace('qualifier = "small"', 'qualifier = "LATEST"'))
    told = work.run("plan", file, "--exit-code")
    assert told.status == 1
    assert told.err.startswith("edgeburst: ")


def test_a_change_moves_only_its_own_tier_and_keeps_the_version_before(work: Work) -> None:
    work.good(work.write("small", "large"))
    file = work.write("small", "large", provisioned="{ large = 1 }")
    file.write_text(file.read_text().replace("memory_gb = 2", "memory_gb = 3"))
    changes = json.loads(work.run("plan", file, "--json").out)["changes"]
    assert changes[1]["action"] == "unchanged"
    assert changes[2]["fields"] == [
        {"field": "memorySize", "old": "2048", "new": "3072"}, {"field": "provisioned", "old": "0", "new": "1"}
    ]  # fmt: skip
    work.good(file)
    assert work.aliases() == {"small": "1", "large": "3"}
    assert work.versions() == ["1", "2", "3"]
    # The other tier's version is what it was, although LATEST moved on: no function is resized under traffic.
    assert [work.shown(each).memory_size for each in ("small", "2", "large", "LATEST")] == [1024, 2048, 3072, 3072]


def test_a_step_back_takes_the_version_that_is_still_there(work: Work) -> None:
    first = work.write("small")
    work.good(first)
    work.good(work.write("small", image="reg/fn:2"))
    assert work.aliases() == {"small": "2"}
    work.good(work.write("small"))
    assert (work.aliases(), work.versions()) == ({"small": "1"}, ["1", "2"])


def test_a_version_that_fails_its_probe_never_gets_a_call(work: Work) -> None:
    work.good(work.write("small"))
    sentence = work.refused(work.write("small", image="reg/fn:bad"))
    assert f"version 2 of {work.function} failed its probe" in sentence
    assert f"{work.function}:small stays at version 1" in sentence
    assert (work.aliases(), work.versions()) == ({"small": "1"}, ["1"])
    work.good(work.write("small", image="reg/fn:2"))
    assert work.aliases() == {"small": "3"}


def test_a_new_tier_that_fails_its_probe_gets_no_alias(work: Work) -> None:
    assert "failed its probe" in work.refused(work.write("small", image="reg/fn:bad"))
    assert (work.aliases(), work.versions()) == ({}, [])
    work.good(work.write("small"))


@pytest.mark.parametrize("before", [True, False], ids=["moved", "new"])
def test_an_alias_is_rolled_back_if_the_version_fails_behind_it(
    work: Work, fault: Callable[..., None], before: bool
) -> None:
    if before:
        work.good(work.write("small"))
    # The probe of the version is the next call, the probe through the alias the one after it.
    number = work.fc.usage(work.function)["invocations"] if before else 0
    fault(kind="error_type", calls=[number + 2], message="out of memory")
    sentence = work.refused(work.write("small", image="reg/fn:2"))
    assert f"failed its probe as {work.function}:small: the function failed" in sentence
    assert "out of memory" in sentence
    assert sentence.endswith("the alias is back at version 1" if before else "the alias was removed again")
    assert work.aliases() == ({"small": "1"} if before else {})
    assert work.versions() == (["1"] if before else [])
    work.good(work.write("small", image="reg/fn:2"))


@pytest.mark.parametrize(
    "trouble",
    [
        {"kind": "status", "status": 429, "code": "ResourceExhausted", "retry_after_ms": 20},
        {"kind": "status", "status": 503, "code": "ResourceThrottled"},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502, "body": "html"},
        {"kind": "reset"},
    ],
    ids=["throttled", "busy", "internal", "unreadable", "reset"],
)
def test_what_passes_is_waited_for(work: Work, fault: Callable[..., None], trouble: dict[str, Any]) -> None:
    for operation in ("create_function", "publish_function_version", "create_alias", "invoke_function", "get_function"):
        fault(**trouble, operation=operation, calls=[1])
    work.good(work.write("small"))
    assert (work.aliases(), work.versions()) == ({"small": "1"}, ["1"])


def test_answers_that_get_lost_do_nothing_twice(work: Work, fault: Callable[..., None]) -> None:
    writing = (
        "create_function", "publish_function_version", "create_alias", "put_provision_config", "put_concurrency_config",
        "update_function", "update_alias",
    )  # fmt: skip
    for operation in writing:
        fault(kind="close", after=True, operation=operation, calls=[1])
    work.good(work.write("small", "large", reserved_concurrency="20", provisioned="{ small = 1 }"))
    assert work.versions() == ["1", "2"]
    work.good(work.write("small", image="reg/fn:2"), "--prune")
    assert (work.aliases(), work.versions()) == ({"small": "3"}, ["1", "2", "3"])
    for operation in ("delete_alias", "delete_function_version", "delete_provision_config", "delete_function"):
        fault(kind="close", after=True, operation=operation, calls=[2])
    assert work.run("destroy", work.write("small"), "--yes").status == 0
    assert not work.exists()


@pytest.mark.parametrize(
    ("operation", "versions"),
    [("create_function", None), ("publish_function_version", []), ("create_alias", ["1"]), ("invoke_function", [])],
)
def test_an_apply_that_is_cut_short_goes_on_where_it_stopped(
    work: Work, fault: Callable[..., None], operation: str, versions: list[str] | None
) -> None:
    fault(kind="status", status=403, code="AccessDenied", operation=operation)
    sentence = work.refused(work.write("small"))
    assert "403 AccessDenied" in sentence
    assert "check the access key that [function] refers to" in sentence
    assert work.exists() is (versions is not None)
    assert versions is None or work.versions() == versions
    work.fc.admin("DELETE", "faults")
    work.good(work.write("small"))
    assert len(work.versions()) == 1, "a version that was published is taken, not published again"


def test_a_creation_that_fails_is_told_and_can_be_corrected(work: Work) -> None:
    absent = work.write("small", image="reg/absent:1")
    assert f"function {work.function} failed: image 'reg/absent:1'" in work.refused(absent)
    # The image may be there by now: the same again is tried again.
    assert f"updating function {work.function}" in work.apply(absent).err
    assert work.run("status", work.write("small")).status == 1
    work.good(work.write("small"))
    sentence = work.refused(work.write("small", image="reg/absent:2"))
    assert "reg/absent:2" in sentence
    assert work.aliases() == {"small": "1"}
    work.good(work.write("small"))
    assert work.run("status", work.write("small")).status == 0


def test_what_does_not_become_active_is_given_up_after_a_bounded_wait(work: Work) -> None:
    file = work.write("small")
    sentence = work.refused(file, "--wait-s", "0")
    assert f"function {work.function} is not active after 0 s; apply again, or wait longer with --wait-s" in sentence
    work.good(file)


def test_a_version_that_gets_no_instance_is_not_moved_to(work: Work, fault: Callable[..., None]) -> None:
    fault(kind="capacity")
    sentence = work.refused(work.write("small"))
    assert "429 ResourceExhausted (no capacity for a new instance" in sentence
    assert work.aliases() == {}


def test_provisioned_instances_that_do_not_come_are_told(work: Work, fault: Callable[..., None]) -> None:
    work.good(work.write("small"))
    fault(kind="cold_start", delay_s=1)
    file = work.write("small", provisioned="{ small = 1 }")
    sentence = work.refused(file, "--wait-s", "0")
    assert f"instances of {work.function}:small are missing (the provider gives no reason) after 0 s" in sentence
    assert work.run("status", file).status == 1
    work.good(file)


def test_a_function_that_was_not_made_here_is_left_alone(work: Work) -> None:
    work.fc.create(work.function, image="reg/fn:1", description="made by hand")
    file = work.write("small")
    assert "exists and was not made by this deployment" in work.refused(file)
    told = work.run("destroy", file, "--yes")
    assert (told.status, work.exists()) == (0, True)
    assert f"{work.function} was not made by this deployment and stays" in told.out
    assert work.shown("LATEST").description == "made by hand"


def test_destroy_takes_what_was_made_and_stops_at_what_was_not(work: Work) -> None:
    file = work.write("small", reserved_concurrency="3", provisioned="{ small = 1 }")
    work.good(file)
    client = work.fc.client()
    body = m.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config="{}")
    client.create_trigger(work.function, m.CreateTriggerRequest(body=body))
    told = work.run("destroy", file, "--yes")
    assert told.status == 2
    assert "has trigger web, which edgeburst did not make; delete that first" in told.err
    assert work.aliases() == {"small": "1"}
    client.delete_trigger(work.function, "web")
    told = work.run("destroy", file, "--yes")
    assert (told.status, work.exists()) == (0, False)
    assert "alias small" in told.out
    told = work.run("destroy", file, "--yes")
    assert (told.status, told.out) == (0, "nothing to do: none of its functions exists\n")


def test_what_is_left_over_goes_only_when_it_is_asked_for(work: Work) -> None:
    work.good(work.write("small", "large", provisioned="{ large = 1 }"))
    file = work.write("small")
    told = work.good(file)
    assert "left over" in told.out
    assert sorted(work.aliases()) == ["large", "small"]
    work.good(file, "--prune")
    assert sorted(work.aliases()) == ["small"]
    elsewhere = work.write("small")
    elsewhere.write_text(elsewhere.read_text().replace(f'function = "{work.function}"', 'function = "g-elsewhere"'))
    work.good(elsewhere)
    assert work.exists()
    work.good(elsewhere, "--prune")
    assert not work.exists()
    assert work.run("destroy", elsewhere, "--yes").status == 0


def test_without_a_terminal_the_answer_is_not_yes(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    file = work.write("small")
    told = work.run("apply", file)
    assert (told.status, work.exists()) == (2, False)
    assert "stdin is not a terminal, so the command cannot ask" in told.err
    for answer, made in (("n", False), ("y", True)):
        monkeypatch.setattr("sys.stdin", type("Person", (), {"isatty": lambda _: True})())
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert work.run("apply", file).status == (0 if made else 1)
        assert work.exists() is made


def test_values_of_the_environment_reach_the_container_only(work: Work) -> None:
    file = work.write("small", environment=f'{{ TOKEN = "{TOKEN}" }}')
    work.good(file)
    assert work.shown("small").environment_variables["TOKEN"] == TOKEN
    other = work.write("small", environment='{ TOKEN = "other" }')
    told = work.run("plan", other)
    assert "environmentVariables.TOKEN" in told.out


def test_a_wrong_key_and_a_wrong_address_are_one_sentence(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    file = work.write("small")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "wrong")
    told = work.run("plan", file)
    assert told.status == 2
    assert "403 SignatureNotMatch; check the access key" in told.err
    file.write_text(file.read_text().replace(work.fc.address, "127.0.0.1:1"))
    told = work.run("status", file)
    assert told.status == 2
    assert "Function Compute cannot be reached; check `endpoint`" in told.err
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    assert "ALIBABA_CLOUD_ACCESS_KEY_SECRET is not set" in work.run("plan", file).err


def test_a_plan_is_deployed_and_says_what_the_daemon_needs_to_know(work: Work) -> None:
    config = work.write("small")
    plan = work.folder / "plan.json"
    groups = [
        {"apps": ["a"], "kind": "cpu", "vcpu": 1, "memory_gb": 1, "gpu_gb": 0, "batch": 4, "timeouts_s": {"a": 0.1}},
        {"apps": ["b"], "kind": "cpu", "vcpu": 2, "memory_gb": 2, "gpu_gb": 0, "batch": 9, "timeouts_s": {"b": 0.1}},
    ]
    plan.write_text(json.dumps({"groups": groups, "infeasible": {"reason": "app b is too slow"}}))
    assert "give a configuration with --config" in work.run("plan", plan).err
    assert "--config and --model are for plans" in work.run("plan", config, "--model", "digits").err
    told = work.apply(plan, "--config", str(config))
    assert told.status == 0, told.err
    assert "the plan does not keep its objectives: app b is too slow" in told.err
    made = f"d-{work.function}-digits-cpu"
    assert f'function = "{made}"' in told.out
    assert 'qualifier = "cpu-2v-2048mb"' in told.out
    assert work.aliases() == {"small": "1"}
    shown = work.fc.client().get_function(made, m.GetFunctionRequest(qualifier="cpu-2v-2048mb")).body
    assert (shown.cpu, shown.memory_size, shown.environment_variables["MAX_BATCH"]) == (2, 2048, "9")
    assert work.run("status", plan, "--config", str(config)).status == 0
    assert work.run("destroy", plan, "--config", str(config), "--yes").status == 0
    assert not work.exists()


def test_what_hands_did_to_an_alias_is_undone_and_what_they_did_to_latest_does_not_matter(work: Work) -> None:
    file = work.write("small")
    work.good(file)
    client = work.fc.client()
    client.update_function(work.function, m.UpdateFunctionRequest(body=m.UpdateFunctionInput(timeout=7)))
    work.good(file)
    assert (work.shown("small").timeout, work.shown("LATEST").timeout) == (60, 7)
    body = m.PublishVersionInput(description="by hand")
    client.publish_function_version(work.function, m.PublishFunctionVersionRequest(body=body))
    split = m.UpdateAliasInput(version_id="2", additional_version_weight={"1": 0.5})
    client.update_alias(work.function, "small", m.UpdateAliasRequest(body=split))
    changes = json.loads(work.run("plan", file, "--json").out)["changes"]
    assert [each["field"] for each in changes[1]["fields"]] == ["timeout", "additionalVersionWeight"]
    work.good(file)
    alias = client.get_alias(work.function, "small").body
    assert (alias.version_id, alias.additional_version_weight) == ("1", {})
    told = work.run("destroy", file, "--yes")
    assert "has version 2, which edgeburst did not make" in told.err


def test_a_share_of_calls_is_given_back_with_the_version_before(work: Work, fault: Callable[..., None]) -> None:
    work.good(work.write("small"))
    client = work.fc.client()
    body = m.PublishVersionInput(description="by hand")
    client.publish_function_version(work.function, m.PublishFunctionVersionRequest(body=body))
    split = m.UpdateAliasInput(additional_version_weight={"2": 0.25})
    client.update_alias(work.function, "small", m.UpdateAliasRequest(body=split))
    number = work.fc.usage(work.function)["invocations"]
    fault(kind="error_type", calls=[number + 2])
    assert "the alias is back at version 1" in work.refused(work.write("small", image="reg/fn:2"))
    alias = client.get_alias(work.function, "small").body
    assert (alias.version_id, alias.additional_version_weight) == ("1", {"2": 0.25})


def test_a_cap_that_idle_instances_alone_use_up_is_refused_before_anything_is_made(work: Work) -> None:
    file = work.write("small", spend="per_hour = 0.02", provisioned="{ small = 1 }")
    assert "cost 0.04572 CNY an hour while idle, which uses up `per_hour`" in work.refused(file)
    assert not work.exists()
    work.good(work.write("small", spend="per_hour = 0.02"))
    assert "preStop" not in json.dumps(work.shown("small").instance_lifecycle_config.to_map())
