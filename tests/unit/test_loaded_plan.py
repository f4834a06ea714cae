"""A plan of `edgeburst plan --json` in the daemon's configuration: what it becomes, and what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scheduler.cli import main
from scheduler.daemon.config.config import Config, load_config
from scheduler.domain.errors import ConfigError
from scheduler.domain.plans import LoadedBuffer

CONFIG = """\
[function]
price_sheet = "fc3-cu-usd"
[[model]]
name = "digits"
function_plan = "plan.json"
max_items = 6
[[model.class]]
name = "camera"
slo_s = 0.8
[[model.class]]
name = "archive"
slo_s = 20.0
percentile = 0.95
[[model.class]]
name = "private"
labels = ["edge-only"]
{edge}
[[model.tier]]
name = "1gb"
function = "digits-fn"
qualifier = "tier-1gb"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
vcpu = 1.0
[[model.tier]]
name = "2gb"
function = "digits-fn"
qualifier = "tier-2gb"
profile = "fc-resnet50-1gb"
memory_gb = 2.0
vcpu = 1.0
"""


def group(*apps: str, memory_gb: float = 1.0, batch: int = 2, wait_s: float = 0.1, **more: Any) -> dict[str, Any]:
    return {
        "apps": list(apps),
        "kind": "cpu",
        "vcpu": 1.0,
        "memory_gb": memory_gb,
        "gpu_gb": 0.0,
        "batch": batch,
        "timeouts_s": {app: wait_s for app in apps},
        "cost_per_request": 2e-6,
        "latency_s": {app: {"percentile": 0.99, "value": 0.7} for app in apps},
        **more,
    }


GOOD = {"currency": "USD", "groups": [group("camera"), group("archive", memory_gb=2.0, batch=5, wait_s=15.0)]}


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "edgeburst.toml"
    path.write_text(text)
    return load_config(path, {})


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    sentence = str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in sentence
    return sentence


def written(tmp_path: Path, plan: object, config: str = CONFIG) -> str:
    (tmp_path / "plan.json").write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return config.format(edge="")


def test_groups_become_buffers_on_the_tiers_of_their_size(tmp_path: Path) -> None:
    [model] = load(tmp_path, written(tmp_path, GOOD)).engine_settings().models
    assert model.buffers == (
        LoadedBuffer(("camera",), "1gb", 2, {"camera": 0.1}, 2e-6),
        LoadedBuffer(("archive",), "2gb", 5, {"archive": 15.0}, 2e-6),
    )


def test_groups_of_one_application_go_by_size_the_smallest_first(tmp_path: Path) -> None:
    large, small = group("camera", memory_gb=2.0, up_to_bytes=5e5), group("camera", up_to_bytes=1e5)
    plan = {"groups": [large, small, group("archive", wait_s=15.0)]}
    [model] = load(tmp_path, written(tmp_path, plan)).engine_settings().models
    routed = [(buffer.tier, buffer.up_to_bytes) for buffer in model.buffers if buffer.classes == ("camera",)]
    # What is larger than anything that was planned for goes with the largest.
    assert routed == [("1gb", 1e5), ("2gb", None)]


def test_a_plan_for_one_application_is_that_of_the_only_class(tmp_path: Path) -> None:
    """As `edgeburst plan --map hour.json` names it after the file."""
    config = CONFIG.replace('[[model.class]]\nname = "archive"\nslo_s = 20.0\npercentile = 0.95\n', "")
    [model] = load(tmp_path, written(tmp_path, {"groups": [group("hour")]}, config)).engine_settings().models
    assert [(buffer.classes, dict(buffer.timeouts_s)) for buffer in model.buffers] == [(("camera",), {"camera": 0.1})]


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda plan: {**plan, "groups": [{k: v for k, v in g.items() if k != key} for g in plan["groups"]]}


def changed(number: int, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plan: {
        **plan, "groups": [{**g, **fields} if i == number else g for i, g in enumerate(plan["groups"])]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: "{", "plan.json: this is not JSON; write it with `edgeburst plan --json`"),
        (lambda _: "[]", "there is no list `groups`"),
        (without("timeouts_s"), "application camera: `timeouts_s` is missing in the plan"),
        (without("batch"), "groups[0].batch must be a whole number of at least 1"),
        (changed(0, timeouts_s={"camera": "soon"}), "groups[0].timeouts_s.camera must be a number"),
        (changed(0, timeouts_s=[1]), "groups[0].timeouts_s must be an object"),
        (changed(0, latency_s={"camera": 3}), "groups[0].latency_s.camera must be an object"),
        (changed(0, kind="tpu"), "groups[0].kind is 'tpu'; only cpu and gpu functions can be used"),
        (
            changed(0, memory_gb=3.0),
            "the group of camera needs cpu-1v-3072mb, but model digits has no such [[model.tier]]",
        ),
        (changed(0, memory_gb=9.0), "the provider sells 1 to 4 GB for each vCPU"),
        (changed(1, batch=6), "has batches of 6, but tier 2gb takes at most 5 items"),
        (changed(0, timeouts_s={"camera": 0.8}), "it waits up to 0.8 s, but its class has an `slo_s` of 0.8"),
        (
            changed(0, latency_s={"camera": {"percentile": 0.99, "value": 0.9}}),
            "application camera: the plan promises 0.9 s, its class has an `slo_s` of 0.8; plan with that",
        ),
        (
            changed(0, latency_s={"camera": {"percentile": 0.9, "value": 0.7}}),
            "promises its latency for 0.9 of the requests, but its class has a `percentile` of 0.99",
        ),
        (
            changed(0, timeouts_s={"camera": 0.5}),
            "it waits up to 0.5 s, and tier 1gb takes 0.357 s for one item by its profile",
        ),
        (
            lambda plan: {**plan, "plan_id": 1},
            "plan.json: this plan was made for a configuration; plan with `edgeburst",
        ),
        (changed(0, vcpu=10**400), "groups[0].vcpu must be a number from 0 to 1e+15"),
        (
            lambda plan: {
                "groups": [group("camera", up_to_bytes=10.0), group("camera", up_to_bytes=10.0), group("archive")]
            },
            "application camera has two groups with the same up_to_bytes; plan again",
        ),
        (
            lambda _: {"groups": [group("camera", up_to_bytes=10.0), group("camera", "archive", up_to_bytes=20.0)]},
            "application camera shares only some of its groups with others; plan again",
        ),
        (lambda plan: {**plan, "infeasible": "because"}, "the plan does not keep its objectives (because); plan again"),
        (changed(0, apps=["camera", "archive"]), "application archive is in two groups of the plan; plan again"),
        (
            lambda plan: {"groups": plan["groups"][:1]},
            "the plan has no application for class archive of model digits; plan with one of that name",
        ),
        (
            lambda plan: {"groups": [*plan["groups"], group("private")]},
            "model digits has no [[model.class]] for application private of the plan, or it is edge-only",
        ),
        (lambda plan: {**plan, "currency": "CNY"}, "the plan is in CNY, `price_sheet` in USD"),
        (
            lambda plan: {**plan, "infeasible": {"reason": "slo_s is 0.1", "would_need": "more"}},
            "the plan does not keep its objectives (slo_s is 0.1); plan again",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence_at_the_line_that_names_the_plan(
    tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    sentence = refusal(tmp_path, written(tmp_path, change(GOOD)))
    assert sentence.startswith("edgeburst.toml:5: plan.json: ")
    assert words in sentence


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, CONFIG.format(edge=""))
    assert sentence == "edgeburst.toml:5: plan.json: the plan cannot be read (No such file or directory); name another"


def test_check_config_reads_the_plan_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(written(tmp_path, changed(0, memory_gb=3.0)(GOOD)))
    assert main(["check-config", "--config", str(path)]) == 2
    assert "model digits has no such [[model.tier]]" in capsys.readouterr().err


def test_check_config_shows_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(written(tmp_path, GOOD))
    assert main(["check-config", "--config", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "  planned: batches of 2 on tier 1gb; camera up to 0.1 s" in shown
    assert "  planned: batches of 5 on tier 2gb; archive up to 15 s" in shown


def test_the_functions_that_a_plan_wants_can_be_made_before_their_tiers_are_there(tmp_path: Path) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(written(tmp_path, changed(0, memory_gb=3.0)(GOOD)))
    config = load_config(path, {}, with_plans=False)
    assert config.engine_settings().models[0].buffers == ()
