"""What a request costs as things grow: every axis begins at the smallest, and its worlds are as large as they say."""

from pathlib import Path

import pytest

from scripts import growth
from scripts.daemon_bench import comparison
from scripts.daemon_bench.cases import Case
from scripts.daemon_bench.comparison import Figures


def test_every_axis_of_the_engine_is_measured_from_the_smallest_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "RUNS", 1)
    measured = {name: growth.AXES[name] for name in ("classes", "models", "tiers", "edges")}
    monkeypatch.setattr(growth, "AXES", {name: (values[:2], us) for name, (values, us) in measured.items()})
    assert growth.main(["--requests", "40"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(measured)
    assert all(list(values) == sorted(values) for values, _ in measured.values())


def test_axes_are_drawn_and_connections_are_those_of_a_daemon_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: list[int] = []

    def compared(case: Case, against: None, *, duration_s: float, bare_too: bool) -> dict[str, Figures]:
        assert not bare_too
        measured.append(case.connections)
        return {"here": Figures(1.0, cpu_us=100.0 / case.connections, p50_ms=1, p99_ms=1, memory_mb=1, refused=0)}

    monkeypatch.setattr(comparison, "compared", compared)
    plot = tmp_path / "growth.png"
    assert growth.main(["--axis", "connections", "--plot", str(plot)]) == 0
    assert measured == [1, 8, 64, 500, 2_000]
    row = "| connections | 1 … 2,000 | 1: 100 · 8: 12 · 64: 2 · 500: 0 · 2,000: 0 | 0.00 |"
    assert capsys.readouterr().out.splitlines()[2] == row
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_worlds_are_as_large_as_they_say() -> None:
    assert [len(model.classes) for model in growth.of_classes(32).served()] == [32]
    assert len(growth.of_models(20).served()) == 20
    tiers = growth.of_tiers(8).tiers
    assert len({tier.name for tier in tiers}) == len({tier.price.per_s for tier in tiers}) == 8
    assert len(growth.base(edges=16).edge_servers()) == 16


def test_memory_is_told_while_requests_pass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "SAMPLES", 2)
    assert growth.main(["--memory", "200", "--edges", "2"]) == 0
    assert [row.split(" | ")[0] for row in capsys.readouterr().out.splitlines()[2:]] == ["| 100", "| 200"]
