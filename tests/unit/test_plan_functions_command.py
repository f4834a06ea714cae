"""`edgeburst plan` for applications: its JSON, its table, its picture, and one sentence for every bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler import cli

APPS = """
[[app]]
name = "strict"
slo_s = 0.8
rps = 5

[[app]]
name = "patient"
slo_s = 1.2
percentile = 0.95
rps = 12.5
"""
PROFILE = {
    "name": "two kinds",
    "source": "made up",
    "date": "2026-01-01",
    "families": [
        {
            "kind": "cpu",
            "form": "exponential",
            "grid": {"over": "vcpu", "from": 0.5, "to": 4, "step": 0.5},
            "mean": [[1.8, 0.5, 0.18], [4.8, 0.43, 0.36]],
            "worst": [[2.8, 0.5, 0.25], [4.9, 0.49, 0.39]],
            "memory_gb": {"per_vcpu": 1, "step": 0.0625},
        },
        {
            "kind": "gpu",
            "form": "slices",
            "grid": {"over": "gpu_gb", "from": 1, "to": 8, "step": 1},
            "slope_s": 0.00171717,
            "constant_s": 0.002,
            "slice_s": 0.002,
            "card_gb": 24,
            "vcpu": {"each": 0.3333},
            "memory_gb": 0.5,
            "max_batch": 16,
        },
    ],
}
MAP = {"D0": [[-3.5, 0.5], [1.0, -26.0]], "D1": [[3.0, 0.0], [0.0, 25.0]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "apps.toml").write_text(APPS)
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    (tmp_path / "trace.gaps").write_text("\n".join(str(0.02 + 0.06 * (i % 7) / 7) for i in range(400)))
    return tmp_path


def plan(folder: Path, *flags: str, source: str = "--apps apps.toml", prices: str = "fc2-harmonybatch-cny") -> int:
    option, name, *rest = source.split()
    where = [option, str(folder / name), *rest, "--profile", str(folder / "profile.json"), "--prices", prices]
    return cli.main(["plan", *where, *flags])


def answer(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str, **how: str) -> dict[str, Any]:
    status = plan(folder, "--json", *flags, **how)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status == (1 if "infeasible" in found else 0)
    return found


def test_json_has_the_keys_that_were_promised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(folder, capsys)
    assert set(found) == {
        "total_cost_per_request",
        "currency",
        "planning_s",
        "groups",
        "segments_total",
        "segments_pruned",
    }
    assert set(found["groups"][0]) == {
        "apps",
        "kind",
        "vcpu",
        "memory_gb",
        "gpu_gb",
        "batch",
        "timeouts_s",
        "cost_per_request",
        "mean_batch",
        "latency_s",
        "provisioned",
    }
    assert sorted(name for group in found["groups"] for name in group["apps"]) == ["patient", "strict"]
    assert found["segments_total"] == 3
    latency = next(group["latency_s"]["patient"] for group in found["groups"] if "patient" in group["apps"])
    assert latency["percentile"] == 0.95
    assert latency["value"] <= 1.2


def test_certainty_costs_more_than_a_percentile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relaxed, certain = (answer(folder, capsys, "--objective", name) for name in ("percentile", "worst-case"))
    assert relaxed["total_cost_per_request"] <= certain["total_cost_per_request"]


def test_the_table_shows_what_other_ways_cost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(folder) == 0
    text = capsys.readouterr().out
    for words in ("no grouping", "CPU functions only", "GPU functions only", "HarmonyBatch", "BATCH", "MBS", "strict"):
        assert words in text


@pytest.mark.parametrize("source", ["--map map.json", "--arrivals trace.gaps"])
def test_one_application_is_planned_from_its_arrivals(
    source: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(folder, capsys, "--slo-s", "1", "--percentile", "0.9", source=source)
    name = source.split()[1].split(".")[0]
    assert [group["apps"] for group in found["groups"]] == [[name]]
    assert found["groups"][0]["latency_s"][name]["value"] <= 1.0 + 1e-4


def test_a_part_of_a_trace_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "faster.gaps").write_text("\n".join(["0.5"] * 100 + ["0.01"] * 3000))
    slow = answer(folder, capsys, "--slo-s", "1", "--to-s", "49", source="--arrivals faster.gaps")
    fast = answer(folder, capsys, "--slo-s", "1", "--from-s", "51", source="--arrivals faster.gaps")
    assert fast["total_cost_per_request"] < slow["total_cost_per_request"]


def test_the_lowest_latency_within_a_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, flags in (("--apps apps.toml", []), ("--map map.json", ["--slo-s", "1.5"])):
        cheap = answer(folder, capsys, *flags, source=source)
        budget = 1.3 * cheap["total_cost_per_request"]
        quick = answer(folder, capsys, *flags, "--minimise", "latency", "--budget", str(budget), source=source)
        assert quick["total_cost_per_request"] <= budget
        assert slowest(quick) < slowest(cheap)


def slowest(found: dict[str, Any]) -> float:
    return max(one["value"] for group in found["groups"] for one in group["latency_s"].values())


def test_sizes_are_routed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = {
        "kind": "cpu",
        "form": "table",
        "grid": {"over": "memory_gb", "values": [1, 2]},
        "seconds": [[[0.1, 0.15], [0.08, 0.1]], [[0.8, 1.2], [0.5, 0.7]]],
    }
    sized = {"name": "s", "source": "x", "date": "2026", "sizes_bytes": [1000, 90000], "families": [table]}
    (folder / "profile.json").write_text(json.dumps(sized))
    (folder / "apps.toml").write_text(
        '[[app]]\nname = "a"\nslo_s = 2\nrps = 9\nsizes = [{bytes = 900, share = 0.7}, {bytes = 50000, share = 0.3}]\n'
    )
    found = answer(folder, capsys, prices="aws-lambda-x86-usd")
    assert [group["up_to_bytes"] for group in found["groups"]] == [900, 50000]


def test_the_frontier_is_drawn(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plan(folder, "--plot", str(folder / "f.png")) == 0
    assert (folder / "f.png").stat().st_size > 10_000


def test_what_edgeburst_profile_measured_can_be_planned_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "apps.toml").write_text('[[app]]\nname = "a"\nslo_s = 2\nrps = 4\n')
    flags = ["--apps", str(tmp_path / "apps.toml"), "--profile", "fc-resnet50-1gb", "--json"]
    assert cli.main(["plan", *flags]) == 0
    group = json.loads(capsys.readouterr().out)["groups"][0]
    assert (group["memory_gb"], group["kind"]) == (1.0, "cpu")


def test_an_slo_that_nothing_keeps_leaves_the_least_bad_plan_and_says_what_it_would_need(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "apps.toml").write_text(APPS.replace("slo_s = 0.8", "slo_s = 0.01"))
    assert plan(folder, "--json") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "app 'strict': slo_s is 0.01, below the fastest latency" in found["infeasible"]["reason"]
    assert "slo_s of at least" in found["infeasible"]["would_need"]
    assert "slo_s is 0.01" in err
    assert err.count("\n") == 1
    least_bad = next(group for group in found["groups"] if group["apps"] == ["strict"])
    assert (least_bad["batch"], least_bad["timeouts_s"]) == (1, {"strict": 0.0})
    needed = float(found["infeasible"]["would_need"].split("at least ")[1].split()[0])
    (folder / "apps.toml").write_text(APPS.replace("slo_s = 0.8", f"slo_s = {needed}"))
    assert "infeasible" not in answer(folder, capsys)


def test_a_budget_below_the_cheapest_plan_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(folder, capsys, "--budget", "1e-9")
    assert "budget is 1e-09 CNY" in found["infeasible"]["reason"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("apps.toml", APPS.replace("rps = 5", "rps = 0"), "app[0].rps must be above 0"),
        ("apps.toml", APPS.replace("slo_s = 0.8", "slo_s = -1"), "app[0].slo_s must be above 0"),
        ("apps.toml", APPS.replace("patient", "strict"), "app[1].name 'strict' occurs twice"),
        ("apps.toml", APPS.replace("0.95", "1.5"), "app[1].percentile must be below 1"),
        ("apps.toml", APPS.replace("rps = 5", 'rps = 5\nmap = "map.json"'), "exactly one, not 2"),
        ("apps.toml", APPS.replace("rps = 5", 'map = "absent.json"'), "app[0].map cannot be used"),
        ("apps.toml", APPS.replace("rps = 5", "rps = 5\nsizes = [{bytes = 9, share = 0.5}]"), "sum to 0.5"),
        ("apps.toml", APPS.replace("rps = 5", "rbs = 5"), "app[0].rps or map or arrivals must be given"),
        ("apps.toml", "[[app]", "is not TOML"),
        ("apps.toml", "x = 1", "app is missing"),
        ("profile.json", "{", "is not JSON"),
        ("profile.json", json.dumps(PROFILE).replace('"gpu"', '"tpu"'), "families[1].kind is 'tpu', an unknown tier"),
    ],
)
def test_bad_files_are_one_sentence_that_names_the_field(
    name: str, content: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(content)
    assert plan(folder) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"D0": [[-1.0]], "D1": [[1.0, 2.0]]}, "map.json"),
        ({"D0": [[-1.0]]}, "map.json"),
        ({"D0": [[-1.0]], "D1": [[-1.0]]}, "map.json"),
        ({"D0": [[0.0]], "D1": [[0.0]]}, "map.json"),
    ],
)
def test_a_map_that_is_none_is_one_sentence(
    content: object, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "map.json").write_text(json.dumps(content))
    assert plan(folder, "--slo-s", "1", source="--map map.json") == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_negative_prices_are_refused_by_field(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = Path(__file__).parents[2] / "scheduler" / "planner" / "prices" / "fc2-harmonybatch-cny.json"
    sheet = json.loads(shipped.read_text()) | {"per_vcpu_s": -1}
    (folder / "mine.json").write_text(json.dumps(sheet))
    assert plan(folder, prices=str(folder / "mine.json")) == 2
    assert "per_vcpu_s must be a number of at least 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "flags", "words"),
    [
        ("--map map.json", [], "--slo-s is missing"),
        ("--map map.json", ["--slo-s", "0"], "--slo-s must be above 0"),
        ("--map map.json", ["--slo-s", "1", "--percentile", "1"], "--percentile must be above 0 and below 1"),
        ("--arrivals trace.gaps", ["--slo-s", "1", "--from-s", "9", "--to-s", "3"], "the part must start before"),
        ("--arrivals trace.gaps", ["--slo-s", "1", "--to-s", "0.1"], "a fit needs"),
        ("--apps apps.toml", ["--slo-s", "1"], "--slo-s goes with"),
        ("--apps apps.toml", ["--minimise", "latency"], "budget is missing"),
        ("--apps apps.toml", ["--budget", "-1"], "budget must be above 0"),
        ("--apps absent.toml", [], "cannot read"),
    ],
)
def test_flags_that_make_no_sense_are_one_sentence(
    source: str, flags: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(folder, *flags, source=source) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_sheet_without_gpus_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(folder, prices="aws-lambda-arm-usd") == 2
    assert "no price for GPU memory" in capsys.readouterr().err
