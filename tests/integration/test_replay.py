"""Replay against servers on real sockets: a stub that may stall or misbehave, and the daemon's own ingress."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from support.daemon_process import LIMIT_S, until
from support.fake_runner import FakeRunner
from support.ingress_server import IngressServer
from support.stub_oip_server import StubOipServer, SumsServer

from scheduler import cli
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.config.config import load_config
from scheduler.daemon.records import BatchRecord
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.bills import Bill
from scheduler.domain.requests import Backend, Place
from scheduler.measuring.batch_log import BatchLog, Row
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.exchange import Target
from scheduler.measuring.payloads import Payload
from scheduler.measuring.replay import ReplayedRequest, ReplayOptions, ReplayResult, replay
from scheduler.measuring.replay_report import BATCH_COLUMNS, INVOCATION_COLUMNS, REQUEST_COLUMNS
from scripts.support.stub_edge import Behaviour, expected_row

PICTURES = [Payload(f"{index}.png", bytes([index]) * 9000) for index in range(5)]
REQUESTS = 40
TIMES_S = np.arange(REQUESTS) / 400

CONFIG = """
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model]]
name = "sums"
edge_profile = "orin-resnet50"
inputs = [{ name = "x", datatype = "FP32", shape = [3] }]
outputs = [{ name = "z", datatype = "FP32" }]
"""


def replayed(server: StubOipServer, **options: Any) -> ReplayResult:
    target = Target(server.url, "digits", "picture")
    return asyncio.run(replay(TIMES_S, PICTURES, target, options=ReplayOptions(**options)))


def test_every_request_ends_once_with_the_answer_to_its_own_picture() -> None:
    with StubOipServer() as server:
        result = replayed(server, keep_outputs=True)
    assert [request.index for request in result.requests] == list(range(REQUESTS))
    assert all(request.answered for request in result.requests)
    for request in result.requests:
        assert request.output is not None
        assert request.output.tolist() == expected_row(PICTURES[request.index % 5].data).tolist()
        assert request.arrival_s <= request.sent_s <= request.answered_s <= result.wall_s


def test_a_server_that_never_answers_delays_no_send() -> None:
    with StubOipServer(Behaviour(mode="hang")) as server:
        result = replayed(server, give_up_s=1.5)
        heard = server.stub.counters.batches
    # A client that waits for answers would have got no further than its first request.
    assert heard == REQUESTS
    assert {request.reply.error for request in result.requests} == {"no answer within 1.5 s"}
    assert not any(request.within_slo for request in result.requests)


def test_an_answer_after_the_slo_is_an_answer_and_not_within_it() -> None:
    with StubOipServer(Behaviour(alpha_s=0.002)) as server:
        result = replayed(server, slo_s=1e-6)
    assert all(request.answered and not request.within_slo for request in result.requests)


def test_outputs_are_kept_only_if_asked_for() -> None:
    with StubOipServer() as server:
        assert all(request.output is None for request in replayed(server).requests)


def test_requests_beyond_the_bound_are_counted_as_not_sent() -> None:
    with StubOipServer(Behaviour(mode="hang")) as server:
        result = replayed(server, give_up_s=1.0, max_outstanding=3)
        assert server.stub.counters.batches == 3
    errors = [request.reply.error for request in result.requests]
    assert errors.count("not sent: 3 requests were unanswered") == REQUESTS - 3


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        (Behaviour(mode="status", status=503, error="no place answers\nin time"), 503, "no place answers in time"),
        (Behaviour(mode="wrong_id"), 200, "the answer is to request '77777', not to '0'"),
        (Behaviour(mode="garbage"), 200, "the answer cannot be read"),
        (Behaviour(mode="cut"), 0, "disconnected"),
        (Behaviour(bad_item=PICTURES[0].data.hex()), 200, "told to"),
    ],
    ids=["refused", "mixed up", "no answer", "cut off", "item error"],
)
def test_whatever_goes_wrong_is_the_requests_own_error(behaviour: Behaviour, status: int, words: str) -> None:
    with StubOipServer(behaviour) as server:
        first = replayed(server).requests[0]
    assert first.reply.status == status
    assert words in first.reply.error
    assert not first.answered
    assert not first.within_slo


def test_the_watchers_are_told_each_request_once() -> None:
    sent: list[int] = []
    ended: list[ReplayedRequest] = []
    with StubOipServer() as server:
        target = Target(server.url, "digits", "picture")
        result = asyncio.run(
            replay(TIMES_S, PICTURES, target, options=ReplayOptions(), on_sent=sent.append, on_answer=ended.append)
        )
    assert sent == list(range(1, REQUESTS + 1))
    assert sorted(ended, key=lambda request: request.index) == list(result.requests)


@pytest.mark.parametrize(("times_s", "payloads"), [(np.empty(0), PICTURES), (TIMES_S, [])])
def test_nothing_to_send_is_refused(times_s: np.ndarray, payloads: list[Payload]) -> None:
    with pytest.raises(MeasuringError, match="there are no"):
        asyncio.run(replay(times_s, payloads, Target("http://127.0.0.1:1", "digits"), options=ReplayOptions()))


class BatchingRunner(FakeRunner):
    """Puts every third request into a function batch of its own, and keeps the account that the daemon keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[BatchRecord] = []
        self.asked_after: list[int] = []

    async def submit(self, call: InferenceCall) -> Answer:
        answer = await super().submit(call)
        backend = Backend.FUNCTION if answer.batch_id % 3 == 0 else Backend.EDGE
        self.records.append(self.record(call, answer.batch_id, backend))
        return answer

    def record(self, call: InferenceCall, batch_id: int, backend: Backend) -> BatchRecord:
        now_s = self.now()
        in_function = backend is Backend.FUNCTION
        batch = Batch(
            batch_id=batch_id,
            place=Place.function("1gb") if in_function else Place.edge(),
            model=call.model,
            request_ids=(batch_id,),
            items=call.items,
            body_bytes=call.body_bytes,
            sent_at_s=now_s,
            deadline_s=now_s + 1.0,
            give_up_at_s=now_s + 2.0,
            predicted_finish_s=now_s + 0.1,
            predicted_service_s=0.1,
        )
        report = BatchReport(
            elapsed_s=0.025,
            service_s=0.02,
            billed_duration_s=0.0214 if in_function else None,
            cold_start=True if in_function else None,
            memory_bytes=2**28 if in_function else None,
            init_s=1.25 if in_function else None,
        )
        billed_s, cost = (0.022, 1e-6) if in_function else (None, 0.0)
        return BatchRecord(
            batch, now_s, 0.004, report, billed_s=billed_s, bill=Bill(cost), log_tail="ready\n" if call.log_tail else ""
        )

    def batches(self, after_id: int, limit: int) -> list[dict[str, object]]:
        self.asked_after.append(after_id)
        rows = [{"record": number, **record.row()} for number, record in enumerate(self.records, start=1)]
        return rows[after_id:][:limit]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[str, BatchingRunner]]:
    path = tmp_path / "edgeburst.toml"
    path.write_text(CONFIG)
    runner = BatchingRunner()
    with IngressServer(runner.parts(), load_config(path, {}), {}) as server:
        yield server.url, runner


def a_call() -> InferenceCall:
    return InferenceCall("digits", (), 1, 0, 0.0)


def test_the_account_is_read_on_from_where_it_was_and_the_last_word_on_a_batch_counts(
    daemon: tuple[str, BatchingRunner],
) -> None:
    url, runner = daemon
    runner.records.append(runner.record(a_call(), 1, Backend.EDGE))

    async def follow() -> tuple[bool, list[Row]]:
        async with aiohttp.ClientSession() as session:
            log = BatchLog(session, url + "/")
            opened = await log.open()
            runner.records += [runner.record(a_call(), batch_id, Backend.EDGE) for batch_id in (2, 3)]
            await log.poll()
            runner.records.append(replace(runner.record(a_call(), 2, Backend.EDGE), error="timeout: gone"))
            await log.poll()
            return opened, log.rows(started_at_s=0.0)

    opened, rows = asyncio.run(follow())
    assert opened
    # Each page is made in pieces; none begins before the record that the page before ended with.
    assert [*dict.fromkeys(runner.asked_after)] == [0, 1, 3, 4]
    assert {row["batch_id"]: row["error"] for row in rows} == {3: "", 2: "timeout: gone"}


def test_a_daemon_that_is_gone_is_a_missed_poll_and_not_the_end_of_a_replay() -> None:
    async def poll() -> tuple[bool, int]:
        async with aiohttp.ClientSession() as session:
            log = BatchLog(session, "http://127.0.0.1:1")
            opened = await log.open()
            await log.poll()
            return opened, log.missed

    assert asyncio.run(poll()) == (False, 1)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def columns(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text().splitlines()[0].split(","))


def test_a_replay_against_the_daemon_leaves_rows_of_requests_batches_and_invocations(
    daemon: tuple[str, BatchingRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, runner = daemon
    # What was over before is not part of the replay.
    runner.records.append(runner.record(a_call(), 10**6, Backend.EDGE))
    trace, out = tmp_path / "trace.gaps", tmp_path / "results"
    trace.write_text("0.01\n" * 30)
    arguments = ["replay", "--url", url, "--arrivals", str(trace), "--laps", "2", "--gap-s", "0.1", "--out", str(out)]
    assert cli.main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["requests"], summary["answered"], summary["within_slo"]) == (60, 60, 1.0)
    assert (summary["edge_batches"], summary["function_batches"]) == (40, 20)
    requests, batches, invocations = (table(out / f"{name}.csv") for name in ("requests", "batches", "invocations"))
    assert columns(out / "requests.csv") == REQUEST_COLUMNS
    assert columns(out / "batches.csv") == BATCH_COLUMNS
    assert columns(out / "invocations.csv") == INVOCATION_COLUMNS
    assert [row["id"] for row in requests] == [str(index) for index in range(60)]
    assert {(row["backend"], row["wait_s"], row["batch_items"], row["attempts"]) for row in requests} == {
        ("edge", "0.004", "4", "1")
    }
    assert sorted(int(row["batch_id"]) for row in batches) == list(range(1, 61))
    assert {(row["start_kind"], row["duration_s"], row["billed_s"], row["memory_bytes"]) for row in invocations} == {
        ("cold", "0.0214", "0.022", str(2**28))
    }
    # The daemon's clock is read through a round trip, which a busy machine may stretch.
    answered_s = {row["batch_id"]: float(row["answered_s"]) for row in requests}
    sent_s = {row["batch_id"]: float(row["sent_s"]) for row in requests}
    for row in batches:
        assert sent_s[row["batch_id"]] - 1.0 <= float(row["sent_s"]) <= answered_s[row["batch_id"]] + 1.0


def test_the_containers_logs_are_asked_for_where_they_are_wanted(
    daemon: tuple[str, BatchingRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, options in (("with", ["--log-tail"]), ("without", [])):
        pattern = ["--pattern", "poisson", "--rps", "100", "--duration-s", "0.3", "--out", str(tmp_path / name)]
        assert cli.main(["replay", "--url", daemon[0], *pattern, *options]) == 0
    rows = {name: table(tmp_path / name / "invocations.csv") for name in ("with", "without")}
    assert {(row["init_s"], row["log_tail"]) for row in rows["with"]} == {("1.25", "ready\n")}
    assert {row["log_tail"] for row in rows["without"]} == {""}
    assert "answered" in capsys.readouterr().out


def test_requests_are_sent_for_tenants_by_weight(
    daemon: tuple[str, BatchingRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.gaps"
    trace.write_text("0.002\n" * 200)
    arguments = ["replay", "--url", daemon[0], "--arrivals", str(trace), "--out", str(tmp_path / "out"), "--json"]
    assert cli.main([*arguments, "--tenant", "lab=3", "ward"]) == 0
    tenants = [row["tenant"] for row in table(tmp_path / "out" / "requests.csv")]
    assert set(tenants) == {"lab", "ward"}
    assert tenants.count("lab") / 200 == pytest.approx(0.75, abs=0.1)
    told = json.loads(capsys.readouterr().out)["tenants"]
    assert {name: own["requests"] for name, own in told.items()} == {n: tenants.count(n) for n in ("lab", "ward")}
    assert {own["within_slo"] for own in told.values()} == {1.0}
    assert [call.tenant for call in daemon[1].calls].count("lab") == tenants.count("lab")


def test_a_server_without_an_account_of_batches_is_told_of_and_replayed_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = ["--pattern", "poisson", "--rps", "100", "--duration-s", "0.3"]
    with StubOipServer() as server:
        assert cli.main(["replay", "--url", server.url, *pattern, "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.csv", "summary.json"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "the server keeps no records of batches" in printed
    assert "within SLO" in printed


def test_a_replay_without_one_answer_ends_with_1_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    pattern = ["--pattern", "poisson", "--rps", "100", "--duration-s", "0.3"]
    with StubOipServer(Behaviour(mode="status", status=503, error="no place answers in time")) as server:
        assert cli.main(["replay", "--url", server.url, *pattern]) == 1
    assert "× no place answers in time" in capsys.readouterr().out


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["replay", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_cannot_be_replayed_is_one_sentence(
    daemon: tuple[str, BatchingRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = daemon
    empty = tmp_path / "empty.gaps"
    empty.touch()
    pattern = ("--pattern", "poisson", "--rps", "10", "--duration-s", "1")
    assert f"the trace {empty} is empty" in sentence(capsys, "--url", url, "--arrivals", str(empty))
    assert "needs --rps and --duration-s" in sentence(capsys, "--url", url, *pattern[:2])
    assert "does not serve the model 'digit'" in sentence(capsys, "--url", url, "--model", "digit", *pattern)
    sums = ("--url", url, "--model", "sums", *pattern)
    assert "model 'sums' takes x (FP32), not one encoded" in sentence(capsys, *sums, "--payload", str(empty))
    assert "model 'sums' takes x (FP32); name a model" in sentence(capsys, *sums, "--images", str(tmp_path))
    assert "cannot read the arrays in" in sentence(capsys, *sums, "--payload", str(tmp_path / "gone.npy"))
    assert "cannot reach http://127.0.0.1:1 (no connection)" in sentence(
        capsys, "--url", "http://127.0.0.1:1", *pattern
    )
    assert "'127.0.0.1:8600' is not a URL" in sentence(capsys, "--url", "127.0.0.1:8600", *pattern)
    assert f"cannot write the results to {empty}" in sentence(capsys, "--url", url, *pattern, "--out", str(empty))
    assert "is not a folder" in sentence(capsys, "--url", url, *pattern, "--images", str(tmp_path / "gone"))


@pytest.mark.parametrize("payload", ["random", "sums.npz"])
def test_a_model_of_several_tensors_gets_arrays_drawn_or_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, payload: str
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = np.arange(9, dtype=np.float32).reshape(3, 3), np.array([10, 20, 30])
    np.savez("sums.npz", x=x, y=y)
    with SumsServer() as server:
        arguments = ["replay", "--url", server.url, "--model", "sums", "--payload", payload]
        assert cli.main([*arguments, "--pattern", "poisson", "--rps", "60", "--duration-s", "0.5", "--json"]) == 0
        heard = server.stub.heard
    summary = json.loads(capsys.readouterr().out)
    assert summary["answered"] == summary["requests"] == len(heard) > 5
    rows = {(tuple(one[0].ravel().tolist()), int(one[1][0])) for one in heard}
    if payload == "random":
        assert len(rows) == 8
    else:
        assert rows == {(tuple(x[row].tolist()), int(y[row])) for row in range(3)}


def test_an_interrupted_replay_shows_what_had_ended(tmp_path: Path) -> None:
    with StubOipServer() as server:
        command = ["replay", "--url", server.url, "--model", "digits", "--pattern", "poisson"]
        command += ["--rps", "40", "--duration-s", "300", "--json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "scheduler.cli", *command, "--out", str(tmp_path / "out")],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda: server.stub.counters.batches >= 10, "some requests")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT_S)
    summary = json.loads(out)
    assert process.returncode == 130
    assert 1 <= summary["answered"] < 300 * 40
    assert summary["partial"].startswith("it was interrupted: ")
    assert (tmp_path / "out" / "requests.csv").exists()
