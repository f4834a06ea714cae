"""What the facts of an edge server mean. Pure."""

from __future__ import annotations

from scheduler.doctor.facts import EdgeFacts, EdgeModelFacts
from scheduler.doctor.model_checks import served_files, speed
from scheduler.doctor.rows import Row, Rows, finding, ok, skipped
from scheduler.doctor.wanted import Wanted, WantedModel

OURS = "edgeburst-edge"
_NO_TOKEN = (401, 403)


def edge_rows(found: EdgeFacts, wanted: Wanted, *, version: str) -> Rows:
    """Yields the rows of an edge server; `version`: of this program."""
    if found.problem:
        yield finding(
            found.where,
            "reachable",
            f"{found.url} cannot be reached ({found.problem}); start the server there, or correct `url` in"
            f" {found.table}",
        )
        return
    if found.status in _NO_TOKEN:
        yield finding(
            found.where,
            "credentials",
            f"{found.url} answers {found.status} to what it is shown; set `token_env` in {found.table} to the variable"
            " with its token, or start it with --open",
        )
        return
    rtt = "" if found.rtt_s is None else f", round trip {found.rtt_s * 1000:.2g} ms"
    yield ok(found.where, "reachable", f"{found.url} answers{rtt}")
    yield _ready(found)
    yield _version(found, version)
    yield _numpy(found)
    for model in found.models:
        yield from _model(found, model, wanted.models[model.model])


def _ready(found: EdgeFacts) -> Row:
    if found.status == 200:
        return ok(found.where, "ready", "it says that it is ready")
    return finding(
        found.where,
        "ready",
        f"{found.url} is not ready, it answers {found.status} at /v2/health/ready; wait until its models are loaded,"
        " and look at its log where that lasts",
    )


def _version(found: EdgeFacts, version: str) -> Row:
    said = f"{found.server} {found.version}".strip()
    if found.server == OURS and found.version != version:
        return finding(
            found.where,
            "versions",
            f"it runs edgeburst {found.version or 'of an unknown release'}, this host {version}; install the same"
            " release on both",
        )
    return ok(found.where, "versions", said or "the server does not say what it is")


def _numpy(found: EdgeFacts) -> Row:
    about = found.environment
    numpy, torch, fits = about.get("numpy"), about.get("torch"), about.get("numpy_fits_torch")
    if fits is False:
        return finding(
            found.where,
            "numpy",
            f"it has numpy {numpy} under torch {torch}, which was built for numpy 1; run there: pip install 'numpy<2',"
            " with the constraints of the board's JetPack (scripts/requirements/jetpack-6.txt)",
        )
    if fits is True:
        return ok(found.where, "numpy", f"numpy {numpy} and torch {torch} go together")
    return skipped(found.where, "numpy", "it reports no torch" if about else "it does not report numpy and torch")


def _model(edge: EdgeFacts, found: EdgeModelFacts, wanted: WantedModel) -> Rows:
    where, name = edge.where, wanted.name
    if found.missing:
        has = f", but {', '.join(found.served)}" if found.served else ""
        yield finding(
            where,
            "model",
            f"{edge.url} has no model {name}{has}; start it with --model {wanted.folder or name}, or correct"
            f" `models` in {edge.table}",
        )
        return
    if found.problem:
        yield finding(where, "model", f"{found.problem}; correct the server, or name another in {edge.table}")
        return
    answered = found.calls is not None and bool(found.calls.seconds)
    if found.ready is False and not answered:
        yield finding(where, "ready", f"model {name} is not ready there; look at the server's log")
    yield served_files(where, wanted, found.identity, found.files, there="copy to the edge, and restart it there with,")
    yield from _largest(edge, found, wanted)
    if found.binary_refused:
        yield finding(
            where,
            "tensors",
            f"{edge.server or 'the server'} answers {name} in JSON, but not in binary tensors, as `tensors` says; set"
            f' `tensors = "json"` in {edge.table}, or remove the key',
        )
    if found.calls is not None:
        if found.calls.problem:
            yield finding(
                where, "calls", f"a call of {name} failed: {found.calls.problem}; correct the model there, or its card"
            )
        measure = f"edgeburst profile edge --url {edge.url} --model {name} --out {name}-{edge.name}.json"
        predicted_s = wanted.edge_one_item_s.get(edge.name)
        profile = wanted.edge_profiles.get(edge.name, "")
        yield speed(where, name, found.calls, predicted_s=predicted_s, profile=profile, measure=measure)


def _largest(edge: EdgeFacts, found: EdgeModelFacts, wanted: WantedModel) -> Rows:
    planned, takes = wanted.edge_batches.get(edge.name), found.max_batch
    if planned is None or takes is None:
        return
    if takes < planned:
        yield finding(
            edge.where,
            "batches",
            f"it takes at most {takes} items of {wanted.name} in a batch, but batches up to {planned} are planned;"
            f" start it with --max-batch {planned}, or set max_items = {takes} in [[model]] {wanted.name}",
        )
    else:
        yield ok(edge.where, "batches", f"it takes {takes} items of {wanted.name} in a batch, {planned} are planned")
