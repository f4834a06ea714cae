"""Builds the dashboard for Grafana with grafana-foundation-sdk, as `make dashboard`, in an environment of its own."""

from __future__ import annotations

import argparse
import sys
from itertools import count
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort

from scripts.monitoring.decision_rows import OBJECTIVES, PLACES, PLAN, PREDICTION
from scripts.monitoring.panels import Panel, Query
from scripts.monitoring.resource_rows import MONEY, PROCESSES, SHADOW, TENANTS

ROWS = (OBJECTIVES, PLACES, PREDICTION, PLAN, MONEY, TENANTS, SHADOW, PROCESSES)
"""From top to bottom."""
PATH = Path(__file__).with_name("edgeburst.dashboard.json")
_HEIGHT = 8
_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")


def built() -> str:
    """Returns the dashboard as JSON."""
    board = (
        dashboard.Dashboard("edgeburst")
        .uid("edgeburst")
        .description("Objectives, decisions, predictions, money and places of edgeburst's daemons.")
        .tags(["edgeburst"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(_variable("instance", "Daemon", "label_values(edgeburst_build_info, instance)"))
        .with_variable(_variable("model", "Model", "label_values(edgeburst_class_slo_seconds, model)"))
    )
    ids = count(1)
    for row in ROWS:
        board = board.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            board = board.with_panel(_panel(panel).id(next(ids)))
    text: str = JSONEncoder(sort_keys=True, indent=1).encode(board.build())
    return f"{text}\n"


def _variable(name: str, label: str, query: str) -> Any:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _panel(panel: Panel) -> Any:
    made: Any = _states() if panel.kind == "states" else _lines(panel)
    made = made.title(panel.title).datasource(_SOURCE).unit(panel.unit).height(_HEIGHT).span(panel.width)
    if panel.description:
        made = made.description(panel.description)
    if panel.top is not None:
        made = made.min(0.0).max(panel.top)
    for number, query in enumerate(panel.queries):
        made = made.with_target(_target(query, "ABCDEF"[number]))
    return made


def _target(query: Query, name: str) -> Any:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(name).range()


def _lines(panel: Panel) -> Any:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = (
        timeseries.Panel()
        .legend(legend.show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .show_points(VisibilityMode.NEVER)
        .line_width(1.0)
    )
    if panel.kind == "areas":
        return made.fill_opacity(40.0).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return made


def _states() -> Any:
    return statetimeline.Panel().show_value(VisibilityMode.NEVER).row_height(0.8)


def main() -> int:
    """Prints the dashboard, or writes it beside this file."""
    parser = argparse.ArgumentParser(prog="python -m scripts.monitoring.build_dashboard", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write edgeburst.dashboard.json")
    if parser.parse_args().write:
        PATH.write_text(built(), encoding="utf-8")
    else:
        sys.stdout.write(built())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
