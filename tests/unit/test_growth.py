"""What a request costs as things grow: every axis begins at the smallest, and its worlds are as large as they say."""

import pytest

from scripts import growth


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
