"""The difference: what is shown is what changes, what is equal is unchanged, and what is not ours is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scheduler.deploying.comparison import FieldChange, differences
from scheduler.deploying.desired import Deployment, Tier
from scheduler.deploying.difference import VERSIONS_KEPT, Action, Kind, difference, removal, surplus
from scheduler.deploying.errors import DeployError
from scheduler.deploying.observed import Alias, Function, Provisioned, Version
from scheduler.deploying.tables import changes_json, status_rows, summary
from scheduler.wire import InferRequest

CONFIGURATION: Mapping[str, Any] = {
    "cpu": 1.0,
    "memorySize": 1024,
    "timeout": 60,
    "customContainerConfig": {"image": "reg/fn:1", "command": ["run"]},
    "environmentVariables": {"MODEL": "digits", "TOKEN": "hunter2"},
}
TIER = Tier("small", "fn", "small", "digits", CONFIGURATION, 0, InferRequest("probe", (), parameters={}))
DEPLOYMENT = Deployment("edgeburst", (TIER,))
MARK = DEPLOYMENT.mark


def alias(name: str = "small", version_id: str = "1", **given: Any) -> Alias:
    made = Alias(name, version_id, {}, MARK, CONFIGURATION, Provisioned())
    return replace(made, **given)


def function(*aliases: Alias, **given: Any) -> Function:
    made = Function(
        name="fn",
        latest={**CONFIGURATION, "description": DEPLOYMENT.function_description},
        versions=(Version("1", f"{MARK} abc"),),
        aliases={each.name: each for each in aliases},
        reserved=None,
        triggers=(),
        provisioned={},
    )
    return replace(made, **given)


def actions(deployment: Deployment, there: Function | None) -> list[tuple[str, str, str]]:
    functions = {} if there is None else {"fn": there}
    return [(each.action.value, each.kind.value, each.what) for each in difference(deployment, functions)]


def test_nothing_there_is_all_to_create() -> None:
    assert actions(DEPLOYMENT, None) == [("create", "function", "fn"), ("create", "alias", "fn:small")]


def test_what_is_as_asked_is_unchanged() -> None:
    assert actions(DEPLOYMENT, function(alias())) == [
        ("unchanged", "function", "fn"),
        ("unchanged", "alias", "fn:small"),
    ]


def test_the_provider_may_say_more_than_was_asked_for() -> None:
    more = {**CONFIGURATION, "cpu": 1, "functionArn": "acs:fc", "codeSize": 0}
    container = {**CONFIGURATION["customContainerConfig"], "resolvedImageUri": "reg/fn@sha256:0"}
    assert differences({**more, "customContainerConfig": container}, CONFIGURATION) == ()


def test_a_list_that_is_empty_may_be_absent_and_one_that_is_not_may_not() -> None:
    assert differences({}, {"command": []}) == ()
    assert differences({"command": ["run"]}, {"command": []}) == (FieldChange("command", "run", "-"),)


def test_each_field_is_shown_with_what_it_is_and_shall_be() -> None:
    container = {"image": "reg/fn:0", "command": ["run", "fast"]}
    have = {**CONFIGURATION, "cpu": 0.5, "timeout": None, "customContainerConfig": container}
    assert differences(have, CONFIGURATION) == (
        FieldChange("cpu", "0.5", "1"),
        FieldChange("timeout", "-", "60"),
        FieldChange("customContainerConfig.image", "reg/fn:0", "reg/fn:1"),
        FieldChange("customContainerConfig.command", "run fast", "run"),
    )


def test_values_of_the_environment_are_compared_and_never_shown() -> None:
    have = {**CONFIGURATION, "environmentVariables": {"MODEL": "digits", "TOKEN": "other-secret", "OLD": "x-secret"}}
    changes = differences(have, CONFIGURATION)
    assert [each.field for each in changes] == ["environmentVariables.TOKEN", "environmentVariables.OLD"]
    assert "hunter2" not in repr(changes)
    assert "secret" not in repr(changes)
    assert changes[1].new == "-"


def test_an_update_that_replaces_a_map_as_a_whole_notices_what_is_beside() -> None:
    with_gpu = {**CONFIGURATION, "gpuConfig": {"gpuType": "fc.gpu.tesla.1", "gpuMemorySize": 4096}}
    assert [each.field for each in differences(with_gpu, CONFIGURATION)] == [
        "gpuConfig.gpuType",
        "gpuConfig.gpuMemorySize",
    ]
    assert differences(CONFIGURATION, with_gpu)
    assert differences(with_gpu, with_gpu) == ()


def test_an_alias_that_shares_its_calls_or_points_elsewhere_is_updated() -> None:
    stale = alias(configuration={**CONFIGURATION, "timeout": 3})
    for there in (function(alias(weights={"2": 0.5})), function(stale)):
        assert actions(DEPLOYMENT, there)[1] == ("update", "alias", "fn:small")


def test_provisioned_and_reserved_instances_are_fields_of_their_own() -> None:
    tier = replace(TIER, provisioned=2)
    deployment = Deployment("edgeburst", (tier,), reserved_concurrency=5)
    whole, part = difference(deployment, {"fn": function(alias(), reserved=3)})
    assert whole.fields == (FieldChange("reservedConcurrency", "3", "5"),)
    assert part.fields == (FieldChange("provisioned", "0", "2"),)
    there = function(alias(provisioned=Provisioned(target=2)), reserved=5)
    assert {change.action for change in difference(deployment, {"fn": there})} == {Action.UNCHANGED}


def test_a_limit_that_is_not_configured_stays() -> None:
    assert actions(DEPLOYMENT, function(alias(), reserved=3))[0][0] == "unchanged"


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (function(latest={"description": "mine"}), "function fn exists and was not made by this deployment"),
        (function(alias(description="by hand")), "alias fn:small exists and edgeburst did not make it"),
        (
            function(latest={"description": DEPLOYMENT.function_description, "gpuConfig": {"gpuMemorySize": 1024}}),
            "function fn has a GPU, which the provider cannot remove",
        ),
    ],
)
def test_what_was_not_made_here_is_not_touched(there: Function, words: str) -> None:
    with pytest.raises(DeployError, match=words):
        difference(DEPLOYMENT, {"fn": there})


def test_what_is_no_longer_configured_is_left_over_and_some_old_versions_stay() -> None:
    versions = tuple(Version(str(number), f"{MARK} x") for number in range(12, 0, -1))
    there = function(
        alias(version_id="12"),
        alias("old", "2"),
        alias("hand-made", "4", description="x", weights={"5": 0.1}),
        versions=versions,
    )
    gone = [(each.kind, each.name) for each in surplus(DEPLOYMENT, there)]
    # 12, 4 and 5 are held; of 11, 10, 9, 8, ... the newest stay.
    assert gone[0] == (Kind.ALIAS, "old")
    assert [name for _, name in gone[1:]] == ["8", "7", "6", "3", "2", "1"]
    assert VERSIONS_KEPT == 3
    assert all(each.only_pruned for each in surplus(DEPLOYMENT, there))
    [*_, last] = difference(DEPLOYMENT, {"fn": function(alias())}, leftovers=["fn-before"])
    assert (last.what, last.only_pruned, last.action) == ("fn-before", True, Action.DELETE)
    assert summary(difference(DEPLOYMENT, {}, leftovers=["x"])) == "2 to create, 1 left over (deleted with --prune)"


def test_a_version_that_was_not_made_here_is_never_surplus() -> None:
    versions = tuple(Version(str(number), "by hand") for number in range(9, 0, -1))
    assert list(surplus(DEPLOYMENT, function(alias(version_id="9"), versions=versions))) == []


def test_removal_takes_aliases_before_versions_before_the_function() -> None:
    kinds = [change.kind for change in removal(DEPLOYMENT, function(alias()))]
    assert kinds == [Kind.ALIAS, Kind.VERSION, Kind.FUNCTION]


@pytest.mark.parametrize(
    ("there", "what"),
    [
        (function(alias("mine", description="")), "alias mine"),
        (function(versions=(Version("7", "by hand"),)), "version 7"),
        (function(triggers=("web",)), "trigger web"),
    ],
)
def test_removal_stops_at_what_was_not_made_here(there: Function, what: str) -> None:
    with pytest.raises(DeployError, match=f"function fn has {what}, which edgeburst did not make"):
        removal(DEPLOYMENT, there)


def test_the_difference_as_json_says_the_same_as_the_table() -> None:
    [whole, part] = changes_json(difference(DEPLOYMENT, {"fn": function(alias(weights={"2": 0.5}))}))
    assert (whole["action"], whole["kind"], whole["name"], whole["fields"]) == ("unchanged", "function", "fn", [])
    assert part["fields"] == [{"field": "additionalVersionWeight", "old": "set", "new": "-"}]


@pytest.mark.parametrize(
    ("there", "condition", "ok"),
    [
        (None, "absent", False),
        (function(), "no alias", False),
        (function(alias()), "Active", True),
        (function(alias(configuration={})), "Active", False),
        (function(alias(provisioned=Provisioned(2, 1, "no room"))), "Active", False),
        (
            function(alias(), latest={"state": "Active", "lastUpdateStatus": "InProgress"}),
            "Active, update InProgress",
            True,
        ),
        (function(alias(), latest={"state": "Failed", "stateReason": "no image"}), "Failed", False),
    ],
)
def test_status_is_ok_only_for_what_is_there_as_asked_and_complete(
    there: Function | None, condition: str, ok: bool
) -> None:
    [row] = status_rows(DEPLOYMENT, {} if there is None else {"fn": there})
    assert (row["condition"], row["ok"]) == (condition, ok)
