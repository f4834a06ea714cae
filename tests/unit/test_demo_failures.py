"""The demo of failures: its list, its configuration, its figures and its exit status, without its processes."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from models.profile import load_profile
from scheduler.daemon.config.config import load_config
from scripts.demo.errors import DemoError
from scripts.demo_failures import __main__ as demo
from scripts.demo_failures.checklist import Check, Explained, brief, passes
from scripts.demo_failures.configuration import KEY_ID_VARIABLE, KEY_SECRET_VARIABLE, Site, slower_edge
from scripts.demo_failures.scenes import Seen
from scripts.demo_failures.traffic import Sent

GOOD = Check("edge killed", "the page says so", True, "it does")
EXPLAINED = Explained("edge killed", 7, "request 7\nmodel 'digits'\n  +0.000 s  refused")


def test_a_list_passes_if_every_point_holds_and_there_is_one() -> None:
    assert passes([GOOD, GOOD])
    assert not passes([GOOD, replace(GOOD, holds=False)])
    assert not passes([])


def test_a_long_explanation_is_cut_on_the_screen_only() -> None:
    text = "\n".join(["request 7", *(f"  +{number}.000 s  it waited" for number in range(20))])
    lines = brief(text)
    assert lines[0] == "request 7"
    assert lines[-1] == "  ... and 12 lines like these, in checklist.json"


@pytest.mark.parametrize("cap", [None, 0.00125])
def test_the_configuration_is_valid_with_and_without_its_cap(tmp_path: Path, cap: float | None) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(Site(8700, 8900, slower_edge(tmp_path), per_hour_cny=cap).toml())
    config = load_config(path, {KEY_ID_VARIABLE: "a", KEY_SECRET_VARIABLE: "b"})
    assert config.engine_settings().spend_per_hour == cap
    assert [tenant.name for tenant in config.engine_settings().tenants] == ["lab", "ward", "flood"]


def test_the_slower_edge_is_the_orin_times_one_and_a_half(tmp_path: Path) -> None:
    orin, slower = load_profile("orin-resnet50"), load_profile(slower_edge(tmp_path))
    assert slower.predict_s(8) == pytest.approx(1.5 * orin.predict_s(8))


def test_what_clients_got_is_counted_by_how_it_ended() -> None:
    def row(status: str, *, within: bool = False, error: str = "") -> dict[str, str]:
        return {"status": status, "within_slo": str(within), "error": error}

    sent = Sent([row("200", within=True), row("200"), row("503", error="late"), row("0", error="cut")], {})
    assert sent.counts == (4, 2, 1)
    assert sent.within == 0.25
    assert sent.others == ["0 cut"]
    assert Sent([], {}).within == 0.0


@pytest.mark.parametrize(
    ("seen", "raised", "status", "said"),
    [
        ([GOOD, EXPLAINED], None, 0, "Every point holds."),
        ([GOOD, replace(GOOD, holds=False)], None, 1, "Not every point holds."),
        ([], None, 1, "Not every point holds."),
        ([GOOD], DemoError("the daemon does not answer"), 2, "demo_failures: the daemon does not answer"),
        ([GOOD], KeyboardInterrupt(), 130, "the list is partial"),
    ],
)
def test_the_exit_status_is_that_of_the_list(
    seen: list[Seen],
    raised: BaseException | None,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def played(*_: object) -> Generator[Seen, None, None]:
        yield from seen
        if raised is not None:
            raise raised

    monkeypatch.setattr(demo, "_played", played)
    monkeypatch.setattr(demo.signal, "signal", lambda *_: None)
    monkeypatch.setattr(demo, "ignore_interrupts", lambda: None)
    assert demo.main(["--out", str(tmp_path)]) == status
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    if seen:
        content = json.loads((tmp_path / "checklist.json").read_text())
        assert (content["passes"], content["partial"]) == (status == 0, status > 1)
        assert len(content["checks"]) == sum(isinstance(one, Check) for one in seen)
