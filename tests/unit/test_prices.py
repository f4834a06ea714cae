"""Price sheets: the figures they must reproduce, and one sentence for every sheet that cannot be used."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.planner.catalogue.prices import SHIPPED, PriceSheetError, load_sheet, shipped_sheets


def test_every_shipped_sheet_loads_and_states_its_provenance() -> None:
    assert {"cny-gbs-2023", "fc3-cu-usd"} <= set(shipped_sheets())
    for name in shipped_sheets():
        sheet = load_sheet(name)
        assert sheet.name == name
        assert all((sheet.currency, sheet.source, sheet.note))
        assert len(sheet.date) == 10


def test_gb_second_sheet_rounds_up_to_the_millisecond_and_adds_the_call() -> None:
    price = load_sheet("cny-gbs-2023").tier_price(memory_gb=2.0)
    assert price.cost(0.1001) == pytest.approx(0.101 * 2 * 1.27e-5 + 9e-7)
    assert price.cost(0.100) == pytest.approx(0.100 * 2 * 1.27e-5 + 9e-7)
    assert (price.currency, price.sheet) == ("CNY", "cny-gbs-2023")


def test_compute_unit_sheet_reproduces_the_documented_examples() -> None:
    sheet = load_sheet("fc3-cu-usd")
    full_card = {"memory_gb": 32.0, "vcpu": 8.0, "gpu_gb": 16.0, "disk_gb": 0.5, "gpu_type": "fc.gpu.tesla.1"}
    assert sheet.tier_price(**full_card).per_s == pytest.approx(46.425 * 2e-5)  # type: ignore[arg-type]
    assert sheet.idle_per_s(**full_card) == pytest.approx(12.825 * 2e-5)  # type: ignore[arg-type]
    cpu_only = sheet.tier_price(memory_gb=4.0, vcpu=2.0, disk_gb=0.0)
    assert cpu_only.per_s == pytest.approx(2.6 * 2e-5)
    assert cpu_only.per_call == pytest.approx(75 / 10_000 * 2e-5)


def test_resources_are_priced_apart_and_gpu_time_in_whole_seconds() -> None:
    sheet = load_sheet("fc2-harmonybatch-cny")
    gpu = sheet.tier_price(memory_gb=0.5, vcpu=1.0, gpu_gb=3.0)
    assert gpu.cost(0.2) == pytest.approx(3 * 1.1e-4 + 9e-5 + 0.5 * 9e-6 + 9e-7)
    assert gpu.cost(1.2) == pytest.approx(2 * (3 * 1.1e-4 + 9e-5 + 0.5 * 9e-6) + 9e-7)
    assert sheet.tier_price(memory_gb=1.0, vcpu=0.5).cost(0.2) == pytest.approx(0.2 * (4.5e-5 + 9e-6) + 9e-7)


@pytest.mark.parametrize("name", ["fc3-cu-usd", "fc2-harmonybatch-cny"])
def test_rates_of_resources_add_up_to_the_price_of_a_configuration(name: str) -> None:
    sheet = load_sheet(name)
    rates = sheet.rates(gpu=True)
    parts = 2.0 * rates.per_vcpu_s + 4.0 * rates.per_memory_gb_s + 6.0 * rates.per_gpu_gb_s + rates.fixed_per_s
    price = sheet.tier_price(memory_gb=4.0, vcpu=2.0, gpu_gb=6.0)
    assert price.per_s == pytest.approx(parts)
    assert (price.per_call, price.grain_s) == (rates.per_call, rates.grain_s)


@given(seconds=st.floats(0, 3600), memory_gb=st.floats(0.125, 32))
def test_cost_never_falls_with_duration_and_is_never_below_the_unrounded_cost(seconds: float, memory_gb: float) -> None:
    price = load_sheet("cny-gbs-2023").tier_price(memory_gb=memory_gb)
    unrounded = price.per_s * seconds + price.per_call
    assert unrounded * (1 - 1e-9) <= price.cost(seconds) <= unrounded + price.per_s * price.grain_s * (1 + 1e-6)
    assert price.cost(seconds) <= price.cost(seconds + 0.0005)


def test_idle_on_the_gb_second_sheet_is_the_active_rate() -> None:
    sheet = load_sheet("cny-gbs-2023")
    assert sheet.idle_per_s(memory_gb=2.0) == pytest.approx(2 * 1.27e-5)


def test_idle_without_an_allocated_cpu_is_cheaper_than_active_on_the_unit_meter() -> None:
    sheet = load_sheet("fc3-cu-usd")
    assert sheet.idle_per_s(memory_gb=2.0, vcpu=1.0) < sheet.tier_price(memory_gb=2.0, vcpu=1.0).per_s


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: load_sheet("cny-gbs-2032"), "did you mean 'cny-gbs-2023'"),
        (lambda: load_sheet("fc3-cu-usd").tier_price(memory_gb=1.0), "vcpu must be above 0"),
        (lambda: load_sheet("cny-gbs-2023").tier_price(memory_gb=0.0), "memory_gb must be above 0"),
        (lambda: load_sheet("cny-gbs-2023").tier_price(memory_gb=1.0, gpu_gb=8.0), "no price for GPU memory"),
        (
            lambda: load_sheet("fc3-cu-usd").tier_price(memory_gb=1, vcpu=1, gpu_gb=8, gpu_type="fc.gpu.ampere.1"),
            "no confirmed factor for the card 'fc.gpu.ampere.1'",
        ),
    ],
)
def test_what_a_sheet_cannot_price_is_said_in_one_sentence(call, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PriceSheetError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"per_call": -1}, "per_call must be a number of at least 0"),
        ({"per_call": True}, "per_call must be a number"),
        ({"grain_s": 0}, "grain_s must be above 0"),
        ({"meter": "gb"}, "it must be 'gb-s', 'resources' or 'cu'"),
        ({"currency": ""}, "currency must be a text"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"source": None}, "field 'source' is missing"),
    ],
)
def test_a_broken_sheet_is_refused_by_field(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    content = json.loads((SHIPPED / "cny-gbs-2023.json").read_text()) | change
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(PriceSheetError, match=sentence):
        load_sheet(path)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text("{")
    with pytest.raises(PriceSheetError, match=r"mine\.json cannot be read as JSON"):
        load_sheet(path)
