"""report.html: a self-contained page with the timeline, the figures, the plans and the emulated parts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from scripts.demo.alternatives import HEADS, Alternative, table_rows
from scripts.demo.watch import PlanSeen

_LEAST_CNY_PER_S = 1e-9
"""Smaller costs come from the tail of a distribution and are shown as 0."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100%; border: 1px solid #ddd }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .25rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top }
.good { color: #1a7a34 } .bad { color: #b02020 } .note { color: #666; font-size: .9rem }
"""


def page(summary: Mapping[str, Any], *, failures: Sequence[str], plans: Sequence[PlanSeen], timeline_png: bytes) -> str:
    """Returns the HTML page.

    Args:
        summary: content of summary.json.
        failures: sentences that say why the demo failed; empty if it did not.
        plans: the plans, with `at_s` counted from the start of the first phase.
        timeline_png: content of timeline.png.
    """
    picture = base64.b64encode(timeline_png).decode("ascii")
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>edgeburst demo</title><style>{_STYLE}</style></head>
<body>
<h1>edgeburst demo</h1>
{_verdict(failures)}
{_emulated(summary["emulated"])}
<h2>Timeline</h2>
<img alt="Timeline of arrivals, backends, latencies, queue and plans" src="data:image/png;base64,{picture}">
<p class="note">Dotted lines mark new plans and their causes.</p>
<h2>Figures</h2>
{_table(figure_rows(summary))}
<h2>What it saves</h2>
{_alternatives(summary)}
<h2>Money</h2>
{_table(money_rows(summary))}
{_sheets(summary["price_sheets"])}
<h2>Plans and their causes</h2>
{_plans(plans)}
<h2>Cold start, outside the figures</h2>
{_cold_start(summary["cold_start"])}
</body>
</html>
"""


def figure_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the figures as rows of texts, for page and terminal."""
    latency_s = summary["latency_s"]
    percentiles = ", ".join(f"{name} {value:.3f} s" for name, value in latency_s.items() if value is not None)
    return [
        ("requests", f"{summary['requests']}, answered {summary['answered']}, failed {summary['errors']}"),
        ("answers that differ from the model's own", f"{summary['wrong_answers']}"),
        ("accuracy on held-out digits", f"{summary['accuracy']:.4f}"),
        (f"within the SLO of {summary['slo_s']:g} s", f"{summary['within_slo']:.2%}"),
        ("the same, without the second after each step", f"{summary['within_slo_settled']:.2%}"),
        ("latency", percentiles or "none"),
        ("edge", _place(summary, "edge")),
        ("functions", _place(summary, "function")),
        ("measured for", f"{summary['wall_s']:.1f} s"),
    ]


def money_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the costs as rows of texts, for page and terminal."""
    cost, everything = summary["cost_cny"], summary["cost_all_function_cny"]
    share = f" ({cost / everything:.1%} of the calls below)" if everything else ""
    bill, bill_all = summary["bill_cny"], summary["bill_all_function_cny"]
    bill_share = f" ({summary['bill_share']:.1%} of that below)" if summary["bill_share"] is not None else ""
    return [
        ("function calls, as metered", f"{cost:.6f} CNY{share}"),
        ("the same, as the daemon computed it", f"{summary['cost_booked_cny']:.6f} CNY"),
        (
            f"{summary['provisioned_instances']} provisioned instances while idle",
            f"{summary['provisioned_idle_cny']:.6f} CNY",
        ),
        ("the whole bill", f"{bill:.6f} CNY{bill_share}"),
        ("all requests by function, cheapest feasible batch: calls", f"{everything:.6f} CNY"),
        (
            f"the {summary['provisioned_all_function']} provisioned instances that this needs, while idle",
            f"{summary['provisioned_idle_all_function_cny']:.6f} CNY",
        ),
        ("the whole bill of all requests by function", f"{bill_all:.6f} CNY"),
        ("function calls on the provider's CU meter", f"{summary['cu_usd']:.6f} USD"),
        ("provisioned instances on the CU meter", f"{summary['provisioned_idle_usd']:.6f} USD, not in the above"),
    ]


def cold_start_sentence(cold: Mapping[str, Any] | None) -> str:
    """Returns a sentence on the burst after the measured part."""
    if cold is None:
        return "It was omitted."
    burst = f"A burst of {cold['requests']} requests met no warm instance: {cold['answered']} were answered"
    if not cold["cold_batches"]:
        return f"{burst}, all without a function, so there was no cold start."
    return (
        f"{burst}, {cold['cold_batches']} batches of them by functions after a cold start"
        f" ({cold['instances_started']} instances). The slowest such batch took {cold['slowest_cold_batch_s']:.2f} s,"
        f" of which {cold['service_s']:.2f} s were inference. Calls and starts cost {cold['metered_cny']:.6f} CNY by"
        f" the meter and {cold['booked_cny']:.6f} CNY by the daemon's books."
    )


def _place(summary: Mapping[str, Any], backend: str) -> str:
    return (
        f"{summary[f'{backend}_requests']} requests in {summary[f'{backend}_batches']} batches,"
        f" {summary[f'mean_{backend}_batch']:.1f} a batch"
    )


def alternative_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns what happened, and what other policies would have done, as rows of texts under `HEADS`."""
    return table_rows([Alternative(**values) for values in summary["alternatives"]])


def _alternatives(summary: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    rows = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in alternative_rows(summary))
    notes = "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in summary["alternatives_notes"])
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>{notes}"


def _verdict(failures: Sequence[str]) -> str:
    if not failures:
        return '<p class="good">Every request was answered once, and every answer is the model\'s own.</p>'
    return "".join(f'<p class="bad">{escape(sentence)}</p>' for sentence in failures)


def _emulated(sentences: Sequence[str]) -> str:
    if not sentences:
        return "<p>Nothing is emulated: edge and functions ran at the speed of this machine.</p>"
    return "<p>Emulated parts:</p><ul>" + "".join(f"<li>{escape(each)}</li>" for each in sentences) + "</ul>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = (f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    return "<table>" + "".join(lines) + "</table>"


def _sheets(sheets: Mapping[str, Mapping[str, str]]) -> str:
    lines = (
        f"{escape(name)}: {escape(sheet['currency'])}, {escape(sheet['source'])}, {escape(sheet['date'])}"
        for name, sheet in sheets.items()
    )
    return '<p class="note">Price sheets.<br>' + "<br>".join(lines) + "</p>"


def _plans(plans: Sequence[PlanSeen]) -> str:
    heads = ("at", "cause", "detail", "edge batches up to", "function batches of", "expected CNY/s")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>" + "".join(map(_plan, plans)) + "</table>"


def _plan(plan: PlanSeen) -> str:
    cost = plan.expected_cost_cny_per_s
    cells = (
        f"{plan.at_s:.1f} s",
        plan.cause,
        plan.detail,
        "" if plan.edge_batch_cap is None else str(plan.edge_batch_cap),
        "" if plan.function_target_batch is None else str(plan.function_target_batch),
        "" if cost is None else f"{cost:.2g}" if cost >= _LEAST_CNY_PER_S else "0",
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _cold_start(cold: Mapping[str, Any] | None) -> str:
    return f"<p>{escape(cold_start_sentence(cold))}</p>"
