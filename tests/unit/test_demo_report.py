"""The demo's page, timeline and live table, from values made by hand."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scripts.demo import live, report, timeline
from scripts.demo.settings import Settings
from scripts.demo.summary import ColdStart, Money, Outcome, PlanCause, Run, summarise
from scripts.demo.watch import Batch, PlanSeen, Sample

OUTCOMES = [
    Outcome(
        arrival_s=number / 10,
        latency_s=0.1 + number / 100,
        answered=True,
        wrong=False,
        correct=True,
        backend="edge" if number % 3 else "function",
        batch_id=number // 2,
    )
    for number in range(60)
]
SAMPLES = [Sample(number / 2, 10.0, number, number, 0.001, 1e6) for number in range(-2, 14)]
PLAN = PlanSeen(3, 2.5, "rate", "30 -> <150> requests/s", 64, 4, 1.5e-4)
COLD = ColdStart(
    requests=120,
    answered=119,
    cold_batches=4,
    instances_started=3,
    metered_cny=0.00021,
    booked_cny=0.0002,
    slowest_cold_batch_s=6.25,
    service_s=0.6,
)
RUN = Run(
    outcomes=OUTCOMES,
    slo_s=1.0,
    steps_s=(2.0, 4.0),
    plans=[PlanCause(PLAN.at_s, PLAN.cause, PLAN.detail)],
    money=Money(0.004, 0.0039, 0.02, 40, 0.05, 0.01, 0.003, 0.02),
    price_sheets={"cny-gbs-2023": {"currency": "CNY", "source": "a <document>", "date": "2023-01-01"}},
    cold_start=COLD,
    wall_s=6.5,
    emulated=["The edge is held back to 1 & 2 seconds."],
    seed=1,
    provisioned=16,
)
TIMELINE = timeline.Timeline(
    outcomes=OUTCOMES, samples=SAMPLES, plans=RUN.plans, slo_s=1.0, duration_s=6.0, emulated=True
)


def page(**changed: Any) -> str:
    given: dict[str, Any] = {"failures": [], "plans": [PLAN], "timeline_png": b"\x89PNG"}
    return report.page(summarise(RUN), **{**given, **changed})


def test_the_page_needs_nothing_but_itself() -> None:
    text = page()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in text
    assert "@import" not in text


def test_the_page_says_figures_money_plans_emulation_and_the_cold_start_by_name() -> None:
    text = page()
    for words in (
        "60, answered 60, failed 0",
        "0.004000 CNY (20.0% of the calls below)",
        "16 provisioned instances",
        "0.014000 CNY (20.0% of that below)",
        "the 40 provisioned instances that this needs, while idle",
        "0.070000 CNY",
        "0.000210 CNY by the meter and 0.000200 CNY by the daemon",
        "0.003000 USD",
        "30 -&gt; &lt;150&gt; requests/s",
        "The edge is held back to 1 &amp; 2 seconds.",
        "cny-gbs-2023: CNY, a &lt;document&gt;, 2023-01-01",
        "Cold start, outside the figures",
        "6.25 s",
    ):
        assert words in text, words


def test_the_page_says_why_a_demo_has_failed_instead_of_praising_it() -> None:
    text = page(failures=["Only 1 of <2> requests were answered once."])
    assert "Only 1 of &lt;2&gt; requests" in text
    assert "every answer is the model's own" not in text


def test_a_plan_that_was_replaced_before_it_was_seen_leaves_its_numbers_blank() -> None:
    text = page(plans=[PlanSeen(1, 0.0, "start", "the first plan")])
    assert "<td>the first plan</td><td></td><td></td><td></td>" in text


def test_the_sentence_on_the_cold_start_claims_none_where_none_was() -> None:
    assert "omitted" in report.cold_start_sentence(None)
    warm = {"requests": 120, "answered": 120, "cold_batches": 0, "instances_started": 0}
    assert "there was no cold start" in report.cold_start_sentence(warm)


def test_money_that_is_only_a_tail_of_a_distribution_is_shown_as_none() -> None:
    assert "<td>0</td></tr>" in page(plans=[replace(PLAN, expected_cost_cny_per_s=1e-97)])
    assert "<td>0.00015</td></tr>" in page()


def test_nothing_emulated_is_said_so() -> None:
    text = report.page(summarise(replace(RUN, emulated=[])), failures=[], plans=[], timeline_png=b"")
    assert "Nothing is emulated" in text


@pytest.mark.parametrize(
    "drawn",
    [
        TIMELINE,
        replace(TIMELINE, outcomes=[replace(each, latency_s=30.0) for each in OUTCOMES]),
        replace(TIMELINE, outcomes=[replace(each, answered=False, backend="") for each in OUTCOMES], samples=[]),
        replace(TIMELINE, duration_s=0.6, plans=[]),
    ],
    ids=["usual", "all late", "nobody answered", "short"],
)
def test_the_timeline_is_drawn_whatever_happened(drawn: timeline.Timeline, tmp_path: Path) -> None:
    timeline.draw(drawn, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


SETTINGS = Settings(out=Path("out"), time_scale=0.05, rates_rps=(10.0, 20.0, 30.0))
BATCH = Batch(
    batch_id=1,
    backend="edge",
    requests=6,
    sent_at_s=1.0,
    finished_at_s=1.1,
    predicted_service_s=0.1,
    service_s=0.1,
    start_kind="",
    instance_id="",
    cost_cny=0.0,
    error="",
    place="edge:main",
    reason="least-total",
)
VIEW = live.View(
    at_s=3.0,
    settings=SETTINGS,
    sample=Sample(103.0, 20.5, 9, 4, 0.00123, None),
    batches=[BATCH, replace(BATCH, batch_id=2, requests=3), replace(BATCH, batch_id=3, backend="function")],
    last_plan=PLAN,
    plan_at_s=2.5,
    progress={"answered": 199, "failed": 1, "within_slo": 150},
)


def text_of(view: live.View) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(live.render(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_live_table_shows_phase_rate_queue_batches_slo_money_and_the_last_plan() -> None:
    text = text_of(VIEW)
    for words in (
        "phase 2 of 3, 20 requests/s offered",
        "20.5 requests/s",
        "4 waiting, 9 unanswered",
        "2 batches, 9 requests, 4.5 a batch",
        "1 batches, 6 requests, 6.0 a batch",
        "75.00% within 1 s, 1 failed",
        "0.00123 CNY",
        "rate at 2 s: 30 -> <150> requests/s",
    ):
        assert words in text, words


@pytest.mark.parametrize(("at_s", "words"), [(-1.0, "about to start"), (0.0, "phase 1 of 3"), (6.0, "last answers")])
def test_the_live_table_has_words_for_before_and_after(at_s: float, words: str) -> None:
    assert words in text_of(replace(VIEW, at_s=at_s, last_plan=None, batches=[], progress={}))


def test_the_picture_of_the_terminal_needs_nothing_from_the_network() -> None:
    svg = live.as_svg(VIEW)
    assert svg.startswith("<svg")
    assert "@font-face" not in svg
    assert "href" not in svg
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", svg))
    assert "unanswered" in svg.replace("&#160;", " ")
