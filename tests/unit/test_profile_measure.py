"""Latency by batch size, from calls whose durations are known; and what a board tells, from a folder of copies."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from models.profile import load_profile
from scheduler.measuring import board
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.latency import PartlyMeasured, measure
from scheduler.measuring.profile_plot import plot_profile
from scheduler.measuring.profile_table import print_profile
from scheduler.measuring.profiling import (
    Provenance,
    default_batches,
    edge_provenance,
    make_profile,
    model_sentence,
    on_this_machine,
    table_rows,
    write_profile,
)

PROVENANCE = Provenance(
    name="bench", backend="edge", model="digits", device="a test", source="this test", note="", environment={"a": "b"}
)


def by_latency(alpha_s: float, beta_s: float) -> Callable[[int], float]:
    return lambda items: alpha_s + beta_s * items


def test_sizes_take_turns_after_each_was_warmed_up() -> None:
    calls: list[int] = []

    def call(items: int) -> float:
        calls.append(items)
        return 1.0

    measure(call, [1, 4, 8], repetitions=2, warm_up=2)
    assert calls == [1, 1, 4, 4, 8, 8, 1, 4, 8, 1, 4, 8]


def test_what_the_warm_up_took_does_not_count() -> None:
    seconds = iter([50.0, 50.0, 50.0, 50.0, 0.1, 0.2, 0.1, 0.2])
    rows = measure(lambda _: next(seconds), [1, 2], repetitions=2, warm_up=2)
    assert [(row.p50_s, row.p99_s, row.samples) for row in rows] == [(0.1, 0.1, 2), (0.2, 0.2, 2)]


def test_percentiles_are_those_of_numpy_and_throughput_is_that_of_the_whole_time() -> None:
    samples_s = np.random.default_rng(1).lognormal(-3.0, 0.5, (40, 2))
    seconds = iter(samples_s.ravel().tolist())
    rows = measure(lambda _: next(seconds), [2, 6], repetitions=40, warm_up=0)
    for column, row in enumerate(rows):
        expected = np.quantile(samples_s[:, column], [0.5, 0.95, 0.99])
        assert [row.p50_s, row.p95_s, row.p99_s] == pytest.approx(expected)
        assert row.items_per_s == pytest.approx(row.batch * 40 / samples_s[:, column].sum())


def test_each_call_is_told_once() -> None:
    told = []
    measure(by_latency(1, 1), [1, 2, 3], repetitions=4, warm_up=1, on_call=lambda: told.append(1))
    assert len(told) == 15


@pytest.mark.parametrize("seconds", [-0.001, 0.0, float("nan"), float("inf")])
def test_a_latency_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(MeasuringError, match="which is not possible"):
        measure(lambda _: seconds, [1, 2], repetitions=1, warm_up=0)


@pytest.mark.parametrize("batches", [[], [4], [0, 2], [2, 1], [1, 1], [-1, 3]])
def test_sizes_without_a_law_are_refused_before_anything_is_called(batches: Sequence[int]) -> None:
    with pytest.raises(MeasuringError, match="two or more rising whole numbers"):
        measure(lambda _: pytest.fail("called"), batches, repetitions=1, warm_up=0)


@pytest.mark.parametrize(("repetitions", "warm_up"), [(0, 0), (1, -1), (10**9, 0)])
def test_numbers_of_calls_that_make_no_measurement_are_refused(repetitions: int, warm_up: int) -> None:
    with pytest.raises(MeasuringError, match="cannot be measured"):
        measure(lambda _: pytest.fail("called"), [1, 2], repetitions=repetitions, warm_up=warm_up)


def test_the_profile_has_the_law_behind_the_calls_and_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    rows = measure(by_latency(0.04234, 0.008165), [1, 2, 4, 8, 16], repetitions=3, warm_up=0)
    profile = make_profile(rows, PROVENANCE)
    assert (profile.alpha_s, profile.beta_s) == pytest.approx((0.04234, 0.008165))
    assert profile.max_batch == 16
    path = tmp_path / "bench.json"
    write_profile(profile, path)
    assert load_profile(path) == profile


def test_a_profile_that_cannot_be_saved_is_one_sentence(tmp_path: Path) -> None:
    profile = make_profile(measure(by_latency(1, 1), [1, 2], repetitions=1, warm_up=0), PROVENANCE)
    with pytest.raises(MeasuringError, match="cannot be written"):
        write_profile(profile, tmp_path / "no such folder" / "a.json")


def test_the_table_says_how_far_the_law_is_off_each_median() -> None:
    seconds = {1: 0.1, 2: 0.1, 3: 0.4}
    profile = make_profile(measure(lambda items: seconds[items], [1, 2, 3], repetitions=1, warm_up=0), PROVENANCE)
    # By hand: slope 0.15 and intercept -0.1, so the intercept is 0 and the slope (0.1 + 0.2 + 1.2) / 14.
    assert [row[-1] for row in table_rows(profile)] == ["+7.1%", "+114.3%", "-19.6%"]
    assert "± " in model_sentence(profile)
    assert "b up to 3" in model_sentence(profile)


def test_a_plot_is_a_picture_and_a_wrong_ending_is_one_sentence(tmp_path: Path) -> None:
    profile = make_profile(measure(by_latency(1, 1), [1, 2, 4], repetitions=2, warm_up=0), PROVENANCE)
    plot_profile(profile, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(MeasuringError, match="cannot draw the profile"):
        plot_profile(profile, tmp_path / "p.nothing")


def test_default_sizes_end_with_the_largest_the_server_takes() -> None:
    assert default_batches({}) == [1, 2, 4, 8, 16, 32, 64]
    assert default_batches({"max_batch": 64}) == [1, 2, 4, 8, 16, 32, 64]
    assert default_batches({"max_batch": 5}) == [1, 2, 4, 5]
    assert default_batches({"max_batch": 500}) == [1, 2, 4, 8, 16, 32, 64]
    assert default_batches({"max_batch": "many"}) == default_batches({})


def an_orin(root: Path) -> Path:
    """Copies of what an Orin tells; texts of a device tree end with a NUL."""
    cpu, gpu = "sys/devices/system/cpu", "sys/class/devfreq/17000000.ga10b"
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64\n",
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_30W >\n",
        f"{cpu}/cpu0/cpufreq/scaling_governor": "schedutil\n",
        f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "729600\n",
        f"{cpu}/cpu0/cpufreq/scaling_max_freq": "1728000\n",
        f"{cpu}/cpu1/cpufreq/scaling_governor": "schedutil\n",
        f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "1728000\n",
        f"{cpu}/cpu1/cpufreq/scaling_max_freq": "1728000\n",
        f"{gpu}/governor": "nvhost_podgov\n",
        f"{gpu}/cur_freq": "306000000\n",
        f"{gpu}/max_freq": "612000000\n",
        "sys/class/devfreq/15340000.vic/cur_freq": "435200000\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_jetson_tells_board_power_mode_and_clocks(tmp_path: Path) -> None:
    assert board.environment(an_orin(tmp_path)) == {
        "board": "NVIDIA Jetson AGX Orin Developer Kit",
        "jetson_linux": "R36.3.0",
        "power_mode": "2 (MODE_30W)",
        "cpu_governor": "schedutil",
        "cpu_clock": "730 to 1728 MHz",
        "cpu_clock_max": "1728 MHz",
        "gpu_governor": "nvhost_podgov",
        "gpu_clock": "306 MHz",
        "gpu_clock_max": "612 MHz",
    }


def test_an_older_jetson_has_its_gpu_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/gpu.0/devfreq/17000000.gv11b"
    folder.mkdir(parents=True)
    (folder / "cur_freq").write_text("114750000\n")
    assert board.environment(tmp_path) == {"gpu_clock": "115 MHz"}


def test_a_power_mode_without_a_name_is_its_number(tmp_path: Path) -> None:
    (an_orin(tmp_path) / "etc/nvpmodel.conf").unlink()
    assert board.environment(tmp_path)["power_mode"] == "2"


def test_a_machine_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    assert board.environment(tmp_path) == {}
    assert board.board_name(tmp_path) == ""


def test_nonsense_in_a_file_is_left_out(tmp_path: Path) -> None:
    root = an_orin(tmp_path)
    (root / "sys/class/devfreq/17000000.ga10b/cur_freq").write_text("<unsupported>\n")
    (root / "var/lib/nvpmodel/status").write_bytes(b"\xff\xfe")
    told = board.environment(root)
    assert "gpu_clock" not in told
    assert "power_mode" not in told
    assert told["gpu_clock_max"] == "612 MHz"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8700", True),
        ("http://localhost:8700", True),
        ("http://[::1]:8700", True),
        ("http://192.168.1.20:8700", False),
        ("http://jetson.local:8700", False),
    ],
)
def test_this_machine_is_told_from_another(url: str, local: bool) -> None:
    assert on_this_machine(url) is local


def test_clocks_of_another_machine_are_not_taken_from_this_one() -> None:
    told = edge_provenance("http://jetson.local:8700", "digits", name="", device="", parameters={})
    assert set(told.environment) == {"clocks"}
    assert told.device == "the server at jetson.local:8700"


def test_an_emulated_edge_and_random_weights_are_said_so() -> None:
    parameters = {"emulated": "orin-resnet50", "weights": "random", "device": "cpu"}
    told = edge_provenance("http://jetson.local:8700", "digits", name="x", device="", parameters=parameters)
    assert told.device == "orin-resnet50, emulated on the server at jetson.local:8700"
    assert "delayed its answers to match the profile orin-resnet50" in told.note
    assert "weights were random" in told.note
    assert told.environment["weights"] == "random"


def test_an_interrupt_leaves_the_rows_of_what_was_timed() -> None:
    calls = iter([1.0, 2.0, 3.0])

    def call(_: int) -> float:
        try:
            return next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.raises(PartlyMeasured) as part:
        measure(call, [1, 2], repetitions=5, warm_up=0)
    assert [(row.batch, row.p50_s, row.samples) for row in part.value.rows] == [(1, 2.0, 2), (2, 2.0, 1)]


def test_a_partial_profile_is_named_so_above_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    profile = make_profile(measure(by_latency(1, 1), [1, 2], repetitions=1, warm_up=0), PROVENANCE)
    print_profile(profile, partial="interrupted before all calls were made")
    assert "PARTIAL, interrupted before all calls were made: " in " ".join(capsys.readouterr().out.split())
    print_profile(profile)
    assert "PARTIAL" not in capsys.readouterr().out
