"""Rows of the dashboard about what is decided: objectives, places, predictions, the plan."""

from __future__ import annotations

from scripts.monitoring.panels import CLASS, DAEMON, MODEL, PLACE, Panel, Query, Row, mean, of, per_s, quantile

_IN_TIME, _COUNTED = (per_s(f"edgeburst_{name}_total", "model, class") for name in ("within_slo", "slo_requests"))
_WITHIN = f"{_IN_TIME} / {_COUNTED}"
_LATENCY = "edgeburst_request_seconds"

OBJECTIVES = Row(
    "Objectives",
    (
        Panel(
            "Answered within the SLO",
            "percentunit",
            (Query(_WITHIN, CLASS), Query(of("edgeburst_class_objective_ratio"), f"{CLASS}: objective")),
            description="Of what was answered, or refused for no fault of its client.",
            top=1.0,
        ),
        Panel(
            "Latency: 99 %",
            "s",
            (
                Query(quantile(0.99, _LATENCY, "model, class"), CLASS),
                Query(of("edgeburst_class_slo_seconds"), f"{CLASS}: SLO"),
            ),
        ),
        Panel(
            "Latency: half, 95 %",
            "s",
            (
                Query(quantile(0.5, _LATENCY, "model, class"), f"{CLASS}: 50 %"),
                Query(quantile(0.95, _LATENCY, "model, class"), f"{CLASS}: 95 %"),
            ),
        ),
        Panel(
            "Requests by end", "reqps", (Query(per_s("edgeburst_requests_total", "kind"), "{{kind}}"),), kind="areas"
        ),
        Panel(
            "Refusals by what decided",
            "reqps",
            (Query(per_s("edgeburst_refusals_total", "kind, reason", DAEMON), "{{kind}} {{reason}}"),),
        ),
        Panel(
            "Misses still allowed",
            "none",
            (
                Query(of("edgeburst_slo_budget_balance_requests"), CLASS),
                Query(of("edgeburst_missed_on_purpose_total"), f"{CLASS}: missed on purpose"),
            ),
            description="Below 0 a class has missed more than its percentile allows.",
        ),
    ),
)

PLACES = Row(
    "Where and why",
    (
        Panel("Items by place", "none", (Query(per_s("edgeburst_items_total", "place"), "{{place}}"),), kind="areas"),
        Panel(
            "Why requests went where they went",
            "reqps",
            (Query(per_s("edgeburst_placements_total", "place, reason"), "{{place}}: {{reason}}"),),
            kind="areas",
            description="At functions: why it spilled.",
        ),
        Panel(
            "Why batches left",
            "none",
            (Query(per_s("edgeburst_batches_left_total", "place, why"), "{{place}}: {{why}}"),),
            kind="areas",
        ),
        Panel("Items in a batch: mean", "none", (Query(mean("edgeburst_batch_items", "model, place"), PLACE),)),
        Panel("Wait for a batch: 95 %", "s", (Query(quantile(0.95, "edgeburst_wait_seconds", "place"), "{{place}}"),)),
        Panel(
            "Waiting and in flight",
            "none",
            (
                Query(of("edgeburst_queue_requests", DAEMON), "waiting"),
                Query(of("edgeburst_in_flight_requests", DAEMON), "in flight"),
                Query(of("edgeburst_in_flight_batches", DAEMON), "batches at {{backend}}"),
            ),
        ),
        Panel(
            "Places in use",
            "none",
            (
                Query(of("edgeburst_edge_up", DAEMON), "edge {{edge}}"),
                Query(of("edgeburst_backend_up", DAEMON), "{{backend}}"),
                Query(of("edgeburst_edge_model_up"), "{{model}} on {{edge}}"),
            ),
            kind="states",
        ),
        Panel(
            "Failures, and circuits that opened",
            "none",
            (
                Query(per_s("edgeburst_batch_failures_total", "place, kind"), "{{place}}: {{kind}}"),
                Query(
                    f"increase({of('edgeburst_circuit_openings_total', DAEMON)}[$__rate_interval])",
                    "{{place}} {{model}}: opened",
                ),
            ),
        ),
        Panel(
            "Hedges and late answers",
            "none",
            (
                Query(per_s("edgeburst_hedged_requests_total", "place"), "copies to {{place}}"),
                Query(per_s("edgeburst_late_answers_total", "instance", DAEMON), "given up, then answered"),
            ),
        ),
    ),
)

PREDICTION = Row(
    "Predicted and actual",
    (
        Panel(
            "Finish over its prediction",
            "none",
            (
                Query(quantile(0.5, "edgeburst_finish_to_prediction_ratio", "model, place"), f"{PLACE}: 50 %"),
                Query(quantile(0.95, "edgeburst_finish_to_prediction_ratio", "model, place"), f"{PLACE}: 95 %"),
            ),
            description="1: as predicted when the batch left; 2: twice as late.",
        ),
        Panel(
            "Error of the predicted finish: 95 %",
            "s",
            (Query(quantile(0.95, "edgeburst_finish_prediction_error_seconds", "model, place"), PLACE),),
        ),
        Panel(
            "Service: mean, and as predicted",
            "s",
            (
                Query(mean("edgeburst_service_seconds", "model, place"), PLACE),
                Query(
                    f"{per_s('edgeburst_predicted_service_seconds_total', 'model, place')}"
                    f" / {per_s('edgeburst_service_seconds_count', 'model, place')}",
                    f"{PLACE}: predicted",
                ),
            ),
        ),
        Panel(
            "Service over its profile",
            "none",
            (Query(of("edgeburst_service_to_profile_ratio"), PLACE),),
            description="As learned: 2 takes twice as long as profiled.",
        ),
        Panel(
            "Within the SLO, as the plan expects",
            "percentunit",
            (Query(of("edgeburst_plan_expected_within_slo"), f"{CLASS}: expected"), Query(_WITHIN, CLASS)),
            top=1.0,
        ),
        Panel(
            "Share at functions, and as the plan expects",
            "percentunit",
            (
                Query(
                    'sum by (model) (rate(edgeburst_items_total{place=~"function:.*",' + MODEL + "}[$__rate_interval]))"
                    f" / {per_s('edgeburst_items_total', 'model')}",
                    "{{model}}",
                ),
                Query(of("edgeburst_plan_expected_spill_ratio"), "{{model}}: expected"),
            ),
            top=1.0,
        ),
    ),
)

PLAN = Row(
    "Plan and estimates",
    (
        Panel("Plan keeps the percentile", "none", (Query(of("edgeburst_plan_feasible"), CLASS),), kind="states"),
        Panel(
            "Plans, by cause",
            "none",
            (
                Query(
                    f"sum by (cause) (increase({of('edgeburst_plans_total', DAEMON)}[$__rate_interval]))", "{{cause}}"
                ),
            ),
            kind="areas",
        ),
        Panel("Age of the plan", "s", (Query(of("edgeburst_plan_age_seconds", DAEMON), "{{instance}}"),)),
        Panel("Arrivals: items a second", "none", (Query(of("edgeburst_arrival_items_per_second"), "{{model}}"),)),
        Panel(
            "Uplink to the functions",
            "Bps",
            (Query(of("edgeburst_uplink_bytes_per_second", DAEMON), "bandwidth"),),
        ),
        Panel("Round trip", "s", (Query(of("edgeburst_uplink_round_trip_seconds", DAEMON), "{{instance}}"),)),
        Panel(
            "Changes that were found",
            "none",
            (
                Query(
                    f"sum by (cause) (increase({of('edgeburst_changes_total', DAEMON)}[$__rate_interval]))", "{{cause}}"
                ),
            ),
            kind="areas",
        ),
        Panel("Needs attention", "none", (Query(of("edgeburst_alarm"), "{{alarm}} {{model}}"),), kind="states"),
        Panel(
            "Why the plan in force was made",
            "none",
            (Query(of("edgeburst_plan_info", DAEMON), "{{cause}}"),),
            kind="states",
        ),
    ),
)
