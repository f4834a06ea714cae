"""The results of a replay: a summary, and the rows behind it as CSV."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scheduler.measuring.batch_log import Row
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.exchange import number
from scheduler.measuring.replay import ReplayedRequest, ReplayResult

# Times are seconds from the replay's start. `arrival_s` is the intended send time; `latency_s` counts from it.
REQUEST_COLUMNS = (
    "id",
    "payload",
    "arrival_s",
    "sent_s",
    "answered_s",
    "wait_s",
    "latency_s",
    "within_slo",
    "status",
    "error",
    "backend",
    "edge",
    "tier",
    "batch_id",
    "batch_items",
    "service_s",
    "cost",
    "cold_start",
    "attempts",
    "tenant",
)
BATCH_COLUMNS = (
    "batch_id",
    "backend",
    "tier",
    "place",
    "reason",
    "why_left",
    "model",
    "requests",
    "items",
    "body_bytes",
    "sent_s",
    "finished_s",
    "wait_max_s",
    "predicted_service_s",
    "service_s",
    "elapsed_s",
    "start_kind",
    "what",
    "cost",
    "call_cost",
    "start_cost",
    "start_estimate_cost",
    "provisioning_cost",
    "error",
    "tenants",
)
INVOCATION_COLUMNS = (
    "batch_id",
    "tier",
    "model",
    "items",
    "sent_s",
    "finished_s",
    "start_kind",
    "instance_id",
    "duration_s",
    "billed_s",
    "init_s",
    "memory_bytes",
    "what",
    "cost",
    "error",
    "log_tail",
)
_TOLD = ("backend", "edge", "tier", "batch_id", "batch_items", "service_s", "cost", "cold_start", "attempts")
_ERRORS_NAMED = 10


def request_row(request: ReplayedRequest, payload_name: str) -> dict[str, object]:
    """Returns a request as a row of requests.csv; values that the server did not report are None."""
    told = {name: request.reply.parameters.get(name) for name in _TOLD}
    return {
        "id": request.index,
        "payload": payload_name,
        "arrival_s": request.arrival_s,
        "sent_s": request.sent_s,
        "answered_s": request.answered_s,
        "wait_s": request.wait_s,
        "latency_s": request.latency_s,
        "within_slo": request.within_slo,
        "status": request.reply.status,
        "error": request.reply.error,
        **told,
        "tenant": request.tenant,
    }


def summarise(result: ReplayResult, batches: Sequence[Row] | None) -> dict[str, Any]:
    """Returns the figures of a replay.

    Args:
        result: the replay.
        batches: the daemon's rows; None if the server keeps none.
    """
    answered = [request for request in result.requests if request.answered]
    errors = Counter(request.reply.error for request in result.requests if not request.answered)
    last_s = result.requests[-1].arrival_s
    return {
        "requests": len(result.requests),
        "answered": len(answered),
        "errors": sum(errors.values()),
        "error_kinds": dict(errors.most_common(_ERRORS_NAMED)),
        "within_slo": sum(request.within_slo for request in result.requests) / len(result.requests),
        "slo_s": result.slo_s,
        "offered_rps": len(result.requests) / last_s if last_s > 0 else None,
        "latency_s": quantiles([request.latency_s for request in answered]),
        "wait_s": quantiles([request.wait_s for request in answered if request.wait_s is not None]),
        "client_lag_s": quantiles(result.lags_s.tolist()),
        **_shares(answered),
        **_batch_figures(batches),
        **_by_tenant(result.requests),
        "wall_s": result.wall_s,
    }


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the median, the 95th and 99th percentile and the maximum; None for each without values."""
    names = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    if len(values) == 0:
        return dict.fromkeys(names)
    return {name: float(np.quantile(values, share)) for name, share in names.items()}


def _shares(answered: Sequence[ReplayedRequest]) -> dict[str, Any]:
    backends = Counter(request.reply.parameters.get("backend") for request in answered)
    costs = [number(request.reply.parameters, "cost") for request in answered]
    known = [cost for cost in costs if cost is not None]
    return {
        "edge_requests": backends["edge"],
        "function_requests": backends["function"],
        "cold_start_requests": sum(request.reply.parameters.get("cold_start") is True for request in answered),
        # The sum of the answers' shares; `batch_cost` also includes failed batches that are billed.
        "cost": sum(known) if known else None,
    }


def _by_tenant(requests: Sequence[ReplayedRequest]) -> dict[str, Any]:
    """Returns the figures of each tenant; nothing where no request named one."""
    figures: dict[str, Any] = {}
    for name in sorted({request.tenant for request in requests} - {""}):
        own = [request for request in requests if request.tenant == name]
        figures[name] = {
            "requests": len(own),
            "answered": sum(request.answered for request in own),
            "within_slo": sum(request.within_slo for request in own) / len(own),
            "cost": _shares([request for request in own if request.answered])["cost"],
        }
    return {"tenants": figures} if figures else {}


def _batch_figures(batches: Sequence[Row] | None) -> dict[str, Any]:
    if batches is None:
        return {}
    figures: dict[str, Any] = {}
    for backend in ("edge", "function"):
        items = [float(row.get("items") or 0) for row in batches if row.get("backend") == backend]
        figures[f"{backend}_batches"] = len(items)
        figures[f"mean_{backend}_batch"] = float(np.mean(items)) if items else None
    figures["failed_batches"] = sum(bool(row.get("error")) for row in batches)
    figures["batch_cost"] = sum(float(row.get("cost") or 0.0) for row in batches)
    return figures


def write_files(
    folder: Path,
    summary: Mapping[str, Any],
    *,
    requests: Iterable[Mapping[str, object]],
    batches: Sequence[Row] | None,
) -> None:
    """Writes summary.json and requests.csv, and batches.csv and invocations.csv if there are rows of batches.

    Raises:
        MeasuringError: a file cannot be written.
    """
    try:
        _write_csv(folder / "requests.csv", REQUEST_COLUMNS, requests)
        if batches is not None:
            _write_csv(folder / "batches.csv", BATCH_COLUMNS, batches)
            calls = [row for row in batches if row.get("backend") == "function"]
            _write_csv(folder / "invocations.csv", INVOCATION_COLUMNS, calls)
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error


def make_folder(folder: Path) -> None:
    """Creates the folder before the measurement, so that a wrong name costs no time.

    Raises:
        MeasuringError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "requests.csv").touch()
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> MeasuringError:
    return MeasuringError(f"cannot write the results to {folder}: {error.strerror}; name another folder with --out")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
