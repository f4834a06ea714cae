"""What shall be: sizes in the provider's steps, tiers from a configuration, groups from a plan, and every refusal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.card_reader import read_card
from models.catalogue import SHIPPED
from scheduler.daemon.config.config import Config, load_config
from scheduler.deploying.desired import Deployment, Tier, fingerprint
from scheduler.deploying.drafting import draft, draft_plan, tier_table
from scheduler.domain.errors import EdgeburstError
from scheduler.planning.instance_sizes import Size, fitted
from scheduler.planning.plan_file import Group, read_plan
from serverless_fn.local_fc.function_spec import read_spec

DOCKERFILE = Path(__file__).parents[2] / "serverless_fn" / "Dockerfile"
HEAD = """
[function]
price_sheet = "fc3-cu-usd"
[deploy]
image = "reg/fn:1"
gpu_image = "reg/fn:1-gpu"
{deploy}
[[model]]
name = "digits"
"""
TIER = """
[[model.tier]]
name = "{name}"
function = "{function}"
qualifier = "{qualifier}"
profile = "fc-resnet50-1gb"
memory_gb = {memory_gb}
{more}
"""


def tier_text(name: str = "small", **given: Any) -> str:
    return TIER.format(
        **{"name": name, "function": "fn", "qualifier": name, "memory_gb": 1.0, "more": "vcpu = 1", **given}
    )  # fmt: skip


def configuration(tmp_path: Path, *tiers: str, deploy: str = "") -> Config:
    path = tmp_path / "eb.toml"
    # Without a tier the model needs another place.
    rest = "".join(tiers) or 'edge_profile = "orin-resnet50"\n[edge]\n'
    path.write_text(HEAD.format(deploy=deploy) + rest)
    return load_config(path, {})


def tiers_of(deployment: Deployment) -> dict[str, Tier]:
    return {tier.name: tier for tier in deployment.tiers}


def group(**given: Any) -> Group:
    return Group(**{"apps": ("a",), "kind": "cpu", "vcpu": 1.0, "memory_gb": 1.0, "gpu_gb": 0.0, "batch": 4, **given})


class TestSizes:
    @given(
        vcpu=st.floats(0.01, 16) | st.just(0.0),
        memory_gb=st.floats(0.1, 32) | st.just(0.0),
        gpu_gb=st.floats(0.2, 16) | st.just(0.0),
    )
    def test_what_is_fitted_is_taken_by_the_provider_and_never_less_than_asked(
        self, vcpu: float, memory_gb: float, gpu_gb: float
    ) -> None:
        card = "fc.gpu.tesla.1" if gpu_gb else ""
        try:
            size = fitted(Size(vcpu=vcpu, memory_gb=memory_gb, gpu_gb=gpu_gb, gpu_type=card), where="tier x")
        except EdgeburstError:
            assume(False)
        assert size.vcpu >= vcpu - 1e-5
        assert size.memory_gb >= memory_gb - 1e-5
        assert size.gpu_gb >= gpu_gb - 1e-5
        base = {
            "functionName": "f",
            "runtime": "custom-container",
            "handler": "h",
            "customContainerConfig": {"image": "i"},
        }
        spec = read_spec({**base, **size.configuration()})
        assert (spec.vcpu, spec.memory_mb) == (size.vcpu, size.memory_gb * 1024)
        assert fitted(size, where="again") == size

    def test_what_is_not_said_is_a_gigabyte_for_each_vcpu(self) -> None:
        assert fitted(Size(vcpu=0, memory_gb=2.0), where="t").vcpu == 2.0
        assert fitted(Size(vcpu=0.35, memory_gb=0), where="t").memory_gb == 0.375
        gpu = fitted(Size(vcpu=0, memory_gb=0, gpu_gb=8, gpu_type="fc.gpu.tesla.1"), where="t")
        assert (gpu.vcpu, gpu.memory_gb) == (4.0, 16.0)

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            (Size(vcpu=2, memory_gb=1), "2 vCPU with 1 GB; the provider sells 1 to 4 GB for each vCPU"),
            (Size(vcpu=1, memory_gb=5), "1 vCPU with 5 GB"),
            (Size(vcpu=0, memory_gb=0), "has neither vCPU nor memory"),
            (Size(vcpu=8, memory_gb=4, gpu_gb=8), "at most 4 vCPU and 16 GB"),
        ],
    )
    def test_what_is_not_sold_is_refused_by_name(self, size: Size, words: str) -> None:
        with pytest.raises(EdgeburstError, match=re.escape(words)):
            fitted(size, where="tier odd")

    def test_labels_are_aliases_and_tell_sizes_apart(self) -> None:
        sizes = [Size(0.35, 0.5), Size(1, 1), Size(1, 2), Size(4, 16, 8.0, "fc.gpu.tesla.1")]
        labels = [size.label for size in sizes]
        assert labels == ["cpu-0_35v-512mb", "cpu-1v-1024mb", "cpu-1v-2048mb", "gpu-8gb-4v-16384mb"]
        assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", label) for label in labels)


class TestConfiguration:
    def test_a_tier_becomes_an_alias_of_its_function(self, tmp_path: Path) -> None:
        config = configuration(
            tmp_path,
            tier_text("small", more="vcpu = 0.5"),
            tier_text(
                "card", function="fn-gpu", memory_gb=16.0, more="vcpu = 4\ngpu_gb = 8\ngpu_type = 'fc.gpu.tesla.1'"
            ),
            deploy='provisioned = { small = 2 }\nreserved_concurrency = 9\nenvironment = { DEBUG = "1" }',
        )
        deployment = draft(config).deployment
        tiers = tiers_of(deployment)
        small, card = tiers["small"], tiers["card"]
        assert (small.address, small.provisioned, card.provisioned) == ("fn:small", 2, 0)
        assert (small.configuration["cpu"], small.configuration["memorySize"]) == (0.5, 1024)
        assert small.configuration["customContainerConfig"]["image"] == "reg/fn:1"
        assert small.configuration["environmentVariables"] == {"MODEL": "digits", "MAX_BATCH": "5", "DEBUG": "1"}
        assert card.configuration["customContainerConfig"]["image"] == "reg/fn:1-gpu"
        assert card.configuration["gpuConfig"] == {"gpuType": "fc.gpu.tesla.1", "gpuMemorySize": 8192}
        assert card.configuration["environmentVariables"]["DEVICE"] == "cuda"
        assert deployment.reserved_concurrency == 9
        for tier in deployment.tiers:
            read_spec({"functionName": tier.function, **tier.configuration})

    def test_a_model_with_a_card_is_named_with_its_folder_in_the_image_and_its_identity(self, tmp_path: Path) -> None:
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "model.toml").write_text((SHIPPED / "digits" / "model.toml").read_text())
        path = tmp_path / "eb.toml"
        path.write_text(HEAD.format(deploy="").replace('name = "digits"', 'card = "own"') + tier_text())
        [tier] = draft(load_config(path, {})).deployment.tiers

        # The model's file is not on this host: its hash is declared in the card.
        assert tier.configuration["environmentVariables"] == {
            "MODEL": "own",
            "MODELS": "/srv/models",
            "MODEL_IDENTITY": f"own={read_card(tmp_path / 'own').identity()}",
            "MAX_BATCH": "5",
        }
        assert "COPY --from=converted /srv/models /srv/models" in DOCKERFILE.read_text()

    def test_a_shipped_model_needs_no_folder_in_the_image(self, tmp_path: Path) -> None:
        path = tmp_path / "eb.toml"
        path.write_text(HEAD.format(deploy="").replace('name = "digits"', 'card = "digits"') + tier_text())
        [tier] = draft(load_config(path, {})).deployment.tiers
        assert tier.configuration["environmentVariables"] == {
            "MODEL": "digits",
            "MODEL_IDENTITY": f"digits={read_card(SHIPPED / 'digits').identity()}",
            "MAX_BATCH": "5",
        }

    @pytest.mark.parametrize(
        ("tiers", "deploy", "words"),
        [
            ((tier_text(qualifier="LATEST"),), "", "`qualifier` of tier small is LATEST; it must be an alias"),
            ((tier_text(qualifier="7"),), "", "`qualifier` of tier small is 7; it must be an alias"),
            ((tier_text(), tier_text("two", qualifier="small")), "", "tiers small and two are both fn:small"),
            (
                (
                    tier_text(),
                    tier_text("card", memory_gb=16.0, more="vcpu = 4\ngpu_gb = 8\ngpu_type = 'fc.gpu.tesla.1'"),
                ),
                "",
                "function fn has tiers with and without a GPU",
            ),
            ((tier_text(function="1st"),), "", "`function` of tier small must be 1 to 64 letters"),
            ((tier_text(),), "provisioned = { big = 1 }", "`provisioned` in [deploy] names tier big"),
            ((tier_text(more="vcpu = 2"),), "", "tier small has 2 vCPU with 1 GB"),
            ((), "", "there is no [[model.tier]]"),
        ],
    )
    def test_what_cannot_be_deployed_is_one_sentence(
        self, tmp_path: Path, tiers: tuple[str, ...], deploy: str, words: str
    ) -> None:
        with pytest.raises(EdgeburstError) as caught:
            draft(configuration(tmp_path, *tiers, deploy=deploy))
        assert words in str(caught.value)
        assert "eb.toml" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_without_a_deploy_table_it_is_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "eb.toml"
        path.write_text('[function]\n[[model]]\nname = "digits"\n' + tier_text())
        with pytest.raises(EdgeburstError, match=r"the table \[deploy\], which names the image, is missing"):
            draft(load_config(path, {}))

    def test_a_value_of_the_wrong_kind_is_named_by_its_line(self, tmp_path: Path) -> None:
        from scheduler.domain.errors import ConfigError

        with pytest.raises(ConfigError, match=r"eb\.toml:7: `small` in \[deploy\.provisioned\] must be a whole number"):
            configuration(tmp_path, tier_text(), deploy='provisioned = { small = "two" }')


class TestPlan:
    def test_a_group_takes_the_tier_of_its_size_and_others_say_their_size(self, tmp_path: Path) -> None:
        config = configuration(tmp_path, tier_text("small", more="vcpu = 1"))
        groups = [
            group(batch=40),
            group(vcpu=2.0, memory_gb=2.0),
            group(kind="gpu", vcpu=0.0, memory_gb=0.0, gpu_gb=4.0, batch=16),
        ]
        drafted = draft_plan(config, groups, model_name="")
        tiers = drafted.deployment.tiers
        assert [tier.address for tier in tiers] == [
            "fn:small",
            "edgeburst-digits-cpu:cpu-2v-2048mb",
            "edgeburst-digits-gpu:gpu-4gb-2v-8192mb",
        ]
        assert [tier.configuration["environmentVariables"]["MAX_BATCH"] for tier in tiers] == ["40", "4", "16"]
        assert drafted.unconfigured == tiers[1:]

    def test_groups_of_one_size_share_a_tier_for_the_largest_batch(self, tmp_path: Path) -> None:
        groups = [group(batch=3), group(batch=12), group(batch=8)]
        drafted = draft_plan(configuration(tmp_path, tier_text("t", memory_gb=4.0)), groups, model_name="digits")
        [tier] = drafted.deployment.tiers
        assert tier.configuration["environmentVariables"]["MAX_BATCH"] == "12"

    def test_the_table_for_the_configuration_loads_and_leads_to_the_same_tier(self, tmp_path: Path) -> None:
        config = configuration(tmp_path, tier_text("t", memory_gb=4.0))
        groups = [group(kind="gpu", vcpu=0.0, memory_gb=0.0, gpu_gb=4.0), group(vcpu=0.35, memory_gb=0.5)]
        drafted = draft_plan(config, groups, model_name="")
        tables = "\n".join(tier_table(tier) for tier in drafted.unconfigured)
        # As if each had been measured by the command beside it.
        tables = re.sub(r'profile = "[^"]+"', 'profile = "fc-resnet50-1gb"', tables)
        again = draft_plan(configuration(tmp_path, tables), groups, model_name="")
        assert again.unconfigured == ()
        wanted = [(tier.address, tier.configuration["cpu"]) for tier in drafted.deployment.tiers]
        assert [(tier.address, tier.configuration["cpu"]) for tier in again.deployment.tiers] == wanted

    def test_an_unknown_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EdgeburstError, match="has no model resnet; name one of digits"):
            draft_plan(configuration(tmp_path, tier_text()), [group()], model_name="resnet")

    GOOD: Any = {
        "total_cost_per_request": 1e-5,
        "groups": [
            {"apps": ["a", "b"], "kind": "cpu", "vcpu": 1.5, "memory_gb": None, "gpu_gb": 0, "batch": 4},
            {"apps": ["c"], "kind": "gpu", "vcpu": None, "memory_gb": None, "gpu_gb": 2, "batch": 8},
        ],
    }

    def test_a_plan_is_read_with_nulls_for_what_a_kind_does_not_have(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps({**self.GOOD, "infeasible": {"reason": "too slow", "would_need": "a GPU"}}))
        plan = read_plan(path)
        assert [(each.kind, each.vcpu, each.memory_gb, each.gpu_gb, each.batch) for each in plan.groups] == [
            ("cpu", 1.5, 0.0, 0.0, 4),
            ("gpu", 0.0, 0.0, 2.0, 8),
        ]
        assert plan.infeasible == "too slow"

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"kind": "lambda"}, "groups[0].kind is 'lambda'; only cpu and gpu functions"),
            ({"gpu_gb": 4}, "groups[0] is of kind cpu with gpu_gb = 4"),
            ({"vcpu": -1}, "groups[0].vcpu must be a number from 0 to"),
            ({"memory_gb": "1"}, "groups[0].memory_gb must be a number"),
            ({"batch": 0}, "groups[0].batch must be a whole number of at least 1"),
            ({"apps": []}, "groups[0].apps must be a list of names"),
        ],
    )
    def test_a_group_that_is_none_is_refused_by_field(
        self, tmp_path: Path, changes: dict[str, Any], words: str
    ) -> None:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps({"groups": [{**self.GOOD["groups"][0], **changes}]}))
        with pytest.raises(EdgeburstError, match=re.escape(f"plan.json: {words}")):
            read_plan(path)

    @pytest.mark.parametrize(
        ("text", "words"), [("{", "is not JSON"), ("[]", "no list `groups`"), ('{"groups": []}', "no list `groups`")]
    )
    def test_a_file_that_is_no_plan_is_refused(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "plan.json"
        path.write_text(text)
        with pytest.raises(EdgeburstError, match=words):
            read_plan(path)
        with pytest.raises(EdgeburstError, match="cannot be read"):
            read_plan(tmp_path / "absent.json")


def test_a_fingerprint_does_not_depend_on_the_order_of_fields() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


def test_only_what_bears_the_mark_of_this_deployment_is_ours(tmp_path: Path) -> None:
    ours = draft(configuration(tmp_path, tier_text())).deployment
    other = draft(configuration(tmp_path, tier_text(), deploy='name = "edgeburst-2"')).deployment
    assert ours.made(ours.function_description)
    assert not ours.made(other.function_description)
    assert not other.made(ours.function_description)
    assert not ours.made(None)
    assert not ours.made("the function edgeburst fc made")
