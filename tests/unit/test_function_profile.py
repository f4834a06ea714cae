"""Profiles to plan with: grids and resources as written, and one sentence for each that cannot be used."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from scheduler.planner.catalogue.function_profile import parse_profile
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.catalogue.prices import load_sheet

CPU: dict[str, Any] = {
    "kind": "cpu",
    "form": "exponential",
    "grid": {"over": "vcpu", "from": 0.5, "to": 2.0, "step": 0.5},
    "mean": [[1.0, 0.5, 0.2], [2.0, 0.5, 0.4]],
    "memory_gb": {"base": 0.4, "per_item": 0.2, "per_vcpu": 0.5, "step": 0.25},
    "measured": {"vcpu": [0.5, 4], "batch": [1, 2]},
}
GPU: dict[str, Any] = {
    "kind": "gpu",
    "form": "slices",
    "grid": {"over": "gpu_gb", "values": [1, 2, 4]},
    "slope_s": 0.002,
    "constant_s": 0.001,
    "slice_s": 0.002,
    "card_gb": 24,
    "vcpu": {"each": 0.25},
    "memory_gb": 0.5,
    "max_batch": 8,
    "another_gpu_gb_beyond_batch": [2, 5],
}
TABLE: dict[str, Any] = {
    "kind": "cpu",
    "form": "table",
    "grid": {"over": "memory_gb", "values": [1, 2]},
    "seconds": [[[0.2, 0.3], [0.1, 0.2]], [[0.4, 0.6], [0.2, 0.4]]],
}


def profile(*families: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "p", "source": "measured", "date": "2026", "families": deepcopy(list(families)), **more}


def test_a_grid_and_what_goes_with_it_are_as_written() -> None:
    cpu, gpu = parse_profile(profile(CPU, GPU), of="p.json").families
    assert cpu.vcpu.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert cpu.memory_gb[:, 0].tolist() == [0.75, 0.75, 0.75, 1.0]
    assert cpu.memory_gb[:, 1].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert gpu.vcpu.tolist() == [0.25, 0.5, 1.0]
    assert gpu.largest.tolist() == [2, 5, 8]


def test_configurations_are_priced_as_the_sheet_prices_each() -> None:
    sheet = load_sheet("fc3-cu-usd")
    cpu, gpu = parse_profile(profile(CPU, GPU), of="p.json").tabulated(sheet)
    price = sheet.tier_price(memory_gb=1.0, vcpu=1.5)
    assert cpu.per_s[2, 1] == pytest.approx(price.per_s)
    seconds = float(np.exp(-1.5 / 0.5) * 2 + 0.4)
    assert cpu.cost(2, 2)[1] == pytest.approx(price.cost(seconds))
    assert gpu.per_s[1, 3] == pytest.approx(sheet.tier_price(memory_gb=0.5, vcpu=0.5, gpu_gb=2.0).per_s)
    assert gpu.allowed.sum(axis=1).tolist() == [2, 5, 8]


def test_size_classes_have_services_of_their_own() -> None:
    found = parse_profile(profile(TABLE, sizes_bytes=[1000, 5000]), of="p.json")
    sheet = load_sheet("aws-lambda-x86-usd")
    assert found.tabulated_for(800, sheet)[0].services.mean_s[0].tolist() == [0.2, 0.3]
    assert found.tabulated_for(1001, sheet)[0].services.mean_s[0].tolist() == [0.4, 0.6]
    with pytest.raises(PlanInputError, match="app.sizes: 6000 bytes is beyond the largest"):
        found.tabulated_for(6000, sheet)


def test_sizes_count_on_the_path_where_there_is_an_uplink() -> None:
    way = {"bytes_per_s": 1e6, "rtt_s": 0.01, "busy": 0.5}
    found = parse_profile(profile(CPU, way=way), of="p.json")
    sheet = load_sheet("fc3-cu-usd")
    near, far = (found.tabulated_for(size, sheet)[0].services.worst_s[0, 0] for size in (1e4, 2e5))
    assert far - near == pytest.approx(0.19 * 1.5)


def changed(family: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (deepcopy(family) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "the content must be a table"),
        ({"name": "p"}, "source is missing"),
        (profile(), "families must be a list of at least one table"),
        (profile(changed(CPU, kind="tpu")), r"families\[0\].kind is 'tpu', an unknown tier"),
        (profile(changed(CPU, form="cubic")), r"families\[0\].form is 'cubic'"),
        (profile(changed(CPU, mean=[[1, 0.5]])), "mean must have a row"),
        (profile(changed(CPU, mean=[[1, 0.5, -0.2]])), "mean needs g1 and g2 above 0"),
        (profile(changed(CPU, mean=[[1, "a", 0.2]])), "must be a finite number, not 'a'"),
        (
            profile(changed(CPU, grid={"over": "vcpu", "from": 1, "to": 5, "step": 1})),
            "vcpu was measured from 0.5 to 4",
        ),
        (profile(changed(CPU, grid={"over": "vcpu", "from": 1, "to": 4, "step": 1e-6})), "more than 4096"),
        (profile(changed(CPU, grid={"over": "vcpu", "from": 4, "to": 1, "step": 1})), "to is 1, below from"),
        (profile(changed(CPU, grid={"over": "vcpu", "values": [2, 1]})), "values must ascend"),
        (profile(changed(CPU, grid={"over": "gpu_gb", "values": [1]})), "goes over 'vcpu'"),
        (profile(changed(CPU, max_batch=3)), "max_batch is 3, but the latency model reaches to 2"),
        (profile(changed(CPU, memory_gb=None)), "memory_gb is missing"),
        (profile(changed(CPU, surprise=1)), "surprise is not known"),
        (profile(changed(GPU, kind="cpu")), "a cpu family goes over vcpu or memory_gb"),
        (profile(changed(GPU, constant_s=-1)), "a batch of one would take no time"),
        (profile(changed(GPU, slice_s=0)), "slice_s must be above 0"),
        (profile(changed(GPU, worst_factor=0.9)), "worst_factor must be at least 1"),
        (profile(changed(TABLE)), "seconds"),
        (profile(changed(TABLE), sizes_bytes=[5, 2]), "sizes_bytes must ascend"),
        (profile(CPU, way={"busy": 1}), "way.busy must be below 1"),
        (profile(changed(CPU, form="polynomial", mean=None, coefficients=[1, 2, 3])), "goes over 'memory_gb'"),
    ],
)
def test_what_cannot_be_used_is_named(content: object, words: str) -> None:
    with pytest.raises(PlanInputError, match=words) as caught:
        parse_profile(content, of="p.json")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("p.json: ")
