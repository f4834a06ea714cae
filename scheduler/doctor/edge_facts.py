"""Asks an edge server what it is, and calls it: the questions and batches that the daemon would send."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import requests

from models.card import TensorSpec
from scheduler.client_access import ClientAccess, set_up
from scheduler.daemon.clocks import wall_s
from scheduler.daemon.config.edge_sections import EdgeSection
from scheduler.doctor.facts import Calls, EdgeFacts, EdgeModelFacts
from scheduler.doctor.wanted import Wanted, WantedModel
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.failures import lost
from scheduler.measuring.edge_call import EdgeCaller
from scheduler.measuring.inputs import chosen_payloads
from scheduler.terminal import Progress
from scheduler.wire import Tensor, WireError
from scheduler.wire.servers import NAME_CHARACTERS, TensorForm, said_of_model

ASK_LIMIT_S = 5.0
CALLS_LIMIT_S = 20.0
"""Seconds after which no further call of a model is begun."""


def edge_facts(
    edge: EdgeSection, table: str, access: ClientAccess, wanted: Wanted, *, where: str, calls: int, work: Progress
) -> EdgeFacts:
    """Returns the facts of an edge server.

    Args:
        edge: its table.
        table: the header of that, in words.
        access: what it is shown.
        wanted: the configuration's expectations; its models on this server are asked for.
        where: its name in the table of rows.
        calls: real calls of each model; 0: none.
        work: shows what is done, and counts the calls.
    """
    work.say(f"asking {where} at {edge.url}")
    with requests.Session() as session:
        set_up(session, access)
        ask = _Asking(session, edge.url.rstrip("/"), access)
        try:
            ready, rtt_s, ahead_s = ask.timed("/v2/health/ready")
        except requests.RequestException as error:
            return EdgeFacts(edge.name, where, edge.url, table, problem=_why(error))
        _, said = ask("/v2")
        about = said.get("environment")
        names = [name for name, model in wanted.models.items() if edge.serves(name) and _is_wanted(edge, model)]
        reached = ready.status_code not in (401, 403)
        return EdgeFacts(
            name=edge.name,
            where=where,
            url=edge.url,
            table=table,
            problem="",
            status=ready.status_code,
            server=str(said.get("name") or "")[:NAME_CHARACTERS],
            version=str(said.get("version") or "")[:NAME_CHARACTERS],
            environment=about if isinstance(about, dict) else {},
            rtt_s=rtt_s,
            ahead_s=ahead_s,
            models=tuple(
                _model(ask, edge, access, wanted.models[name], server=said, calls=calls, work=work) for name in names
            )
            if reached
            else (),
        )


def _is_wanted(edge: EdgeSection, model: WantedModel) -> bool:
    """Whether the daemon sends this model to that server: it has a profile there, or a card to be measured by."""
    return edge.name in model.edge_batches or bool(model.folder)


class _Asking:
    """Asks a server for JSON."""

    def __init__(self, session: requests.Session, url: str, access: ClientAccess) -> None:
        self._session, self._url, self._access = session, url, access

    def timed(self, path: str) -> tuple[requests.Response, float, float | None]:
        """Returns an answer, the seconds that it took, and by how much this host's clock is ahead of its Date."""
        self._get(path)  # opens the connection
        asked_s, asked_at_s = time.perf_counter(), wall_s()
        response = self._get(path)
        took_s = time.perf_counter() - asked_s
        return response, took_s, ahead_of(response.headers.get("Date", ""), asked_at_s + took_s / 2)

    def __call__(self, path: str) -> tuple[int, Mapping[str, Any]]:
        """Returns status and JSON object of an answer; 0 without one, an empty object where it is none."""
        try:
            response = self._get(path)
            found = response.json()
        except requests.JSONDecodeError:
            return response.status_code, {}
        except (requests.RequestException, RecursionError):
            return 0, {}
        return response.status_code, found if isinstance(found, dict) else {}

    def _get(self, path: str) -> requests.Response:
        limit_s, verify = ASK_LIMIT_S, self._access.verify
        return self._session.get(self._url + path, timeout=limit_s, verify=verify, allow_redirects=False)


def ahead_of(date: str, now_s: float) -> float | None:
    """Returns by how many seconds a time is ahead of an answer's Date, which says whole seconds; None without one.

    >>> ahead_of("Thu, 01 Jan 1970 01:00:00 GMT", 7200.5), ahead_of("soon", 0.0)
    (3600.0, None)
    """
    try:
        return now_s - parsedate_to_datetime(date).timestamp() - 0.5
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _model(
    ask: _Asking,
    edge: EdgeSection,
    access: ClientAccess,
    wanted: WantedModel,
    *,
    server: Mapping[str, Any],
    calls: int,
    work: Progress,
) -> EdgeModelFacts:
    name, path = wanted.name, f"/v2/models/{quote(wanted.name, safe='')}"
    status, metadata = ask(path)
    if status != 200:
        listed = server.get("models")
        said = str(metadata.get("error") or (f"it answers {status}" if status else "no answer"))[:300]
        served = tuple(str(each)[:NAME_CHARACTERS] for each in listed) if isinstance(listed, list) else ()
        problem = f"{edge.url} does not describe model {name}: {said}"
        return EdgeModelFacts(name, problem, missing=status in (400, 404), served=served)
    _, config = ask(f"{path}/config")
    said_here, (ready, _) = said_of_model(metadata, config), ask(f"{path}/ready")
    parameters = metadata.get("parameters")
    files = parameters.get("files") if isinstance(parameters, dict) else None
    made, refused = None, False
    if calls:
        work.say(f"calling {name} on the edge at {edge.url}, {calls} times")
        made, refused = _called(edge, access, wanted, str(server.get("name") or ""), calls, work.advance)
    limit = said_here.get("max_batch")
    return EdgeModelFacts(
        model=name,
        problem="",
        ready=None if ready == 404 else ready == 200,
        max_batch=limit if isinstance(limit, int) else None,
        identity=str(said_here.get("identity") or ""),
        files=hashes(files),
        calls=made,
        binary_refused=refused,
    )


def hashes(files: object) -> Mapping[str, str]:
    """Returns what a place says of its files, as texts; nothing where it says none."""
    return {str(key): str(value) for key, value in files.items()} if isinstance(files, dict) else {}


def drawn(inputs: Sequence[TensorSpec], model: str) -> list[tuple[Tensor, ...]]:
    """Returns payloads for a model: one item of each input."""
    return [payload.inputs(inputs[0].name) for payload in chosen_payloads([], inputs, model=model, seed=0)]


def _called(
    edge: EdgeSection, access: ClientAccess, wanted: WantedModel, server: str, calls: int, on_call: Callable[[], None]
) -> tuple[Calls, bool]:
    """Returns the calls, and whether the server takes JSON only where the configuration says binary."""
    payloads = drawn(wanted.inputs, wanted.name)

    def caller(form: TensorForm | None) -> EdgeCaller:
        return EdgeCaller(url=edge.url, model=wanted.name, payloads=payloads, server=server, access=access, form=form)

    form = None if edge.tensors == "auto" else TensorForm(edge.tensors)
    made = timed_calls(caller(form), calls, on_call)
    if made.seconds or form is not TensorForm.BINARY:
        return made, False
    in_json = timed_calls(caller(TensorForm.JSON), calls, on_call)
    return (in_json, True) if in_json.seconds else (made, False)


def timed_calls(call: Callable[[int], float], count: int, on_call: Callable[[], None]) -> Calls:
    """Makes one call to warm up and then so many with one item, or those that there is time for; counts each."""
    seconds: list[float] = []
    began_s = time.perf_counter()
    try:
        call(1)
        on_call()
        while len(seconds) < count and (not seconds or time.perf_counter() - began_s < CALLS_LIMIT_S):
            seconds.append(call(1))
            on_call()
    except (EdgeburstError, WireError) as error:
        return Calls(tuple(seconds), str(error))
    return Calls(tuple(seconds))


def _why(error: requests.RequestException) -> str:
    meaning = lost(error)
    what = "" if meaning is None else meaning.what.removeprefix("cannot be reached").removeprefix(": ")
    return what or "nothing listens there, or a firewall is between"
