"""Rows of the dashboard about what is used: money and functions, by tenant, daemon and edge servers."""

from __future__ import annotations

from scripts.monitoring.panels import CLASS, DAEMON, MODEL, PLACE, TIER, Panel, Query, Row, of, per_s, quantile

_CAP_USED = f"{of('edgeburst_spend_cap_used', DAEMON)} / {of('edgeburst_spend_cap', DAEMON)}"
_EDGE_S = per_s("edgeburst_tenant_edge_seconds_total", "tenant", DAEMON)
_OFF = "edgeburst_time_seconds"
_SHADOWED = f'end=~"answered|refused",{MODEL}'
_SERVERS = 'model=~"$model"'

MONEY = Row(
    "Money and functions",
    (
        Panel(
            "Money an hour",
            "none",
            (
                Query(
                    f"3600 * {per_s('edgeburst_spent_total', 'what, currency')}",
                    "{{what}}, {{currency}}",
                ),
                Query(f"3600 * sum({of('edgeburst_plan_expected_cost_per_second')})", "as the plan expects"),
            ),
            kind="lines",
        ),
        Panel("Caps: part that is spent", "percentunit", (Query(_CAP_USED, "{{window}}"),), top=1.0),
        Panel(
            "Caps: what is left", "none", (Query(of("edgeburst_spend_cap_left", DAEMON), "{{window}}, {{currency}}"),)
        ),
        Panel("No money may be spent", "none", (Query(of("edgeburst_spend_closed", DAEMON), "{{by}}"),), kind="states"),
        Panel(
            "Calls of functions",
            "none",
            (
                Query(per_s("edgeburst_function_calls_total", "model, tier"), TIER),
                Query(per_s("edgeburst_warming_calls_total", "model, tier"), f"{TIER}: warming"),
            ),
        ),
        Panel(
            "Cold starts",
            "percentunit",
            (
                Query(
                    f"{per_s('edgeburst_cold_starts_total', 'model, tier')}"
                    f" / {per_s('edgeburst_function_calls_total', 'model, tier')}",
                    TIER,
                ),
            ),
            top=1.0,
        ),
        Panel(
            "Refused for want of capacity",
            "none",
            (
                Query(
                    per_s("edgeburst_batch_failures_total", "model, place", f'kind="throttled",{MODEL}'),
                    PLACE,
                ),
                Query(of("edgeburst_function_concurrency_learned", DAEMON), f"{TIER}: granted at once"),
            ),
        ),
        Panel(
            "Initializer of a cold start: half",
            "s",
            (
                Query(
                    quantile(0.5, "edgeburst_cold_start_init_seconds", "model, tier"),
                    TIER,
                ),
            ),
        ),
        Panel("Saved by misses on purpose", "none", (Query(of("edgeburst_missed_on_purpose_saved_total"), CLASS),)),
    ),
)

TENANTS = Row(
    "Tenants",
    (
        Panel(
            "Within the SLO",
            "percentunit",
            (
                Query(
                    f"{per_s('edgeburst_tenant_within_slo_total', 'tenant')}"
                    f" / {per_s('edgeburst_tenant_requests_total', 'tenant')}",
                    "{{tenant}}",
                ),
            ),
            top=1.0,
        ),
        Panel(
            "Latency: 95 %",
            "s",
            (Query(quantile(0.95, "edgeburst_tenant_request_seconds", "tenant"), "{{tenant}}"),),
        ),
        Panel(
            "Part of the edge, and its share",
            "percentunit",
            (
                Query(
                    f"{_EDGE_S} / ignoring (tenant) group_left sum({_EDGE_S})",
                    "{{tenant}}",
                ),
                Query(of("edgeburst_tenant_share_ratio", DAEMON), "{{tenant}}: share"),
            ),
            top=1.0,
        ),
        Panel(
            "Money an hour",
            "none",
            (Query(f"3600 * {per_s('edgeburst_tenant_cost_total', 'tenant')}", "{{tenant}}"),),
            width=12,
        ),
        Panel(
            "Requests under way",
            "none",
            (Query(of("edgeburst_tenant_open_requests", DAEMON), "{{tenant}}"),),
            width=12,
        ),
    ),
)

SHADOW = Row(
    "Shadow: what another configuration would have done",
    (
        Panel(
            "Within the SLO",
            "percentunit",
            (
                Query(
                    f"{per_s('edgeburst_shadow_within_slo_total', 'engine')}"
                    f" / {per_s('edgeburst_shadow_requests_total', 'engine', _SHADOWED)}",
                    "{{engine}}",
                ),
            ),
            description="Of the requests that the live engine and its shadow both heard, each by its own SLO.",
            top=1.0,
        ),
        Panel(
            "Latency: 95 %",
            "s",
            (Query(quantile(0.95, "edgeburst_shadow_request_seconds", "engine", DAEMON), "{{engine}}"),),
        ),
        Panel(
            "Money since the comparison began",
            "none",
            (Query(of("edgeburst_shadow_spent", DAEMON), "{{engine}}, {{currency}}"),),
        ),
        Panel(
            "Answers by place",
            "reqps",
            (Query(per_s("edgeburst_shadow_answers_total", "engine, place", DAEMON), "{{engine}}: {{place}}"),),
            width=12,
        ),
        Panel(
            "Hears, and takes of the loop's time",
            "percentunit",
            (
                Query(of("edgeburst_shadow_up", DAEMON), "hears"),
                Query(per_s("edgeburst_shadow_loop_seconds_total", "instance", DAEMON), "of the loop's time"),
            ),
            width=12,
        ),
    ),
)

PROCESSES = Row(
    "Daemon and edge servers",
    (
        Panel(
            "Own latency of the daemon",
            "s",
            (
                Query(quantile(0.5, "edgeburst_own_latency_seconds", "instance", DAEMON), "{{instance}}: 50 %"),
                Query(quantile(0.99, "edgeburst_own_latency_seconds", "instance", DAEMON), "{{instance}}: 99 %"),
            ),
        ),
        Panel(
            "Processor", "percentunit", (Query(per_s("process_cpu_seconds_total", "instance", DAEMON), "{{instance}}"),)
        ),
        Panel(
            "Memory",
            "bytes",
            (
                Query(of("process_resident_memory_bytes", DAEMON), "{{instance}}"),
                Query(of("edgeburst_unanswered_bytes", DAEMON), "{{instance}}: bodies"),
            ),
        ),
        Panel(
            "Error responses",
            "reqps",
            (
                Query(per_s("edgeburst_http_errors_total", "code", DAEMON), "{{code}}"),
                Query(per_s("edgeburst_grpc_errors_total", "code", DAEMON), "gRPC {{code}}"),
            ),
        ),
        Panel(
            "Clock beside Prometheus'",
            "s",
            (
                Query(f"{of(_OFF, DAEMON)} - timestamp({of(_OFF, DAEMON)})", "{{instance}}"),
                Query(of("edgeburst_clock_steps_total", DAEMON), "{{instance}}: times it was set"),
            ),
        ),
        Panel(
            "Edge server: service, 95 %",
            "s",
            (
                Query(
                    quantile(0.95, "edgeburst_edge_service_seconds", "instance, model", _SERVERS),
                    "{{instance}} {{model}}",
                ),
                Query(
                    quantile(0.95, "edgeburst_edge_queue_seconds", "instance, model", _SERVERS),
                    "{{instance}} {{model}}: waits",
                ),
            ),
            description="As the edge servers themselves count: the job edgeburst-edge.",
        ),
        Panel(
            "Edge server: wait behind other daemons",
            "s",
            (
                Query(of("edgeburst_edge_others_wait_observed_seconds"), "{{instance}} {{edge}} {{model}}: observed"),
                Query(of("edgeburst_edge_others_wait_seconds"), "{{instance}} {{edge}} {{model}}: in forecasts"),
                Query(of("edgeburst_edge_shared"), "{{instance}} {{edge}} {{model}}: 1 while it is trusted"),
            ),
            description="Of a batch, where several daemons send to one edge server. No line: none waits for others.",
        ),
        Panel(
            "Release",
            "none",
            (Query(of("edgeburst_build_info", DAEMON), "{{instance}} {{version}}, Python {{python}}"),),
            width=12,
            kind="states",
        ),
        Panel(
            "Ready",
            "none",
            (
                Query(of("edgeburst_ready", DAEMON), "{{instance}}"),
                Query(of("edgeburst_state_up", DAEMON), "{{instance}}: state folder"),
            ),
            width=12,
            kind="states",
        ),
    ),
)
