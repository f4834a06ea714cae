"""`edgeburst profile` and bench_edge against servers on real sockets, the provider's SDK among the clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import stub_fc
from support.stub_fc import Heard, Say, StubFc, answer_frame
from support.stub_oip_server import ServerThread, StubOipServer, SumsServer
from support.triton_stub import TritonServer, TritonStub

from models.profile import load_profile
from scheduler import cli, wire
from scheduler.measuring.payloads import synthetic_pictures
from scheduler.planning.profiles import read_profiles
from scripts.support.stub_edge import Behaviour

ROOT = Path(__file__).parents[2]
QUICK = ("--repetitions", "3", "--warm-up", "1")


@pytest.fixture(autouse=True)
def _no_proxy_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "a secret")


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["profile", *arguments]) == 2
    # What the calls will cost is said first.
    lines = [line for line in capsys.readouterr().err.splitlines() if "will be billed" not in line]
    assert len(lines) == 1
    return lines[0]


def test_an_edge_server_is_measured_into_the_profile_that_the_daemon_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "stub-edge.json", tmp_path / "stub-edge.png"
    with StubOipServer(parameters={"max_batch": 6}) as server:
        assert cli.main(["profile", "edge", "--url", server.url, *QUICK, "--out", str(out), "--plot", str(plot)]) == 0
        sizes = server.stub.counters.batch_sizes
    assert sizes == [1, 2, 4, 6] * 4
    profile = load_profile(out)
    assert (profile.name, profile.backend, profile.model, profile.max_batch) == ("stub-edge", "edge", "digits", 6)
    assert [(row.batch, row.samples) for row in profile.rows] == [(1, 3), (2, 3), (4, 3), (6, 3)]
    assert plot.read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "model off by" in printed
    assert "for b up to 6" in printed


def test_several_batches_at_once_are_measured_into_the_same_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "stub.json"
    with StubOipServer(parameters={"max_batch": 2}) as server:
        options = ["--url", server.url, *QUICK, "--concurrency", "1..3", "--out", str(out)]
        assert cli.main(["profile", "edge", *options]) == 0
        assert server.stub.counters.batches == 2 * 4 * (1 + 2 + 3)
    rows = load_profile(out).at_once
    assert [(row.parallel, row.batch, row.samples) for row in rows] == [(2, 1, 6), (2, 2, 6), (3, 1, 9), (3, 2, 9)]
    printed = capsys.readouterr().out
    assert "several batches at once" in printed
    assert "one more adds less than half of what one alone answers: parallel = " in " ".join(printed.split())
    assert "--concurrency must be" in sentence(capsys, "edge", "--url", server.url, "--concurrency", "0")


@pytest.mark.parametrize("takes_binary", [True, False])
def test_a_server_of_others_is_measured_in_the_form_that_it_takes(tmp_path: Path, takes_binary: bool) -> None:
    out = tmp_path / "triton.json"
    stub = TritonStub(takes_binary=takes_binary)
    with TritonServer(stub) as server:
        arguments = ["profile", "edge", "--url", server.url, *QUICK, "--model", "sums", "--payload", "random"]
        assert cli.main([*arguments, "--out", str(out)]) == 0
    # Its configuration says that it takes 8 items; the first batch that falls over is sent again.
    assert [row.batch for row in load_profile(out).rows] == [1, 2, 4, 8]
    assert (stub.binary[0], set(stub.binary[1:]), stub.refused) == (True, {takes_binary}, [])


def test_named_pictures_are_the_ones_sent(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"this very picture")
    wanted = b"this very picture".hex()
    with StubOipServer(Behaviour(bad_item=wanted)) as server:
        edge = ["profile", "edge", "--url", server.url, *QUICK, "--batches", "1,2"]
        assert cli.main(edge) == 0
        assert cli.main([*edge, "--payload", str(picture)]) == 2


def test_a_model_of_several_tensors_is_measured_with_arrays(tmp_path: Path) -> None:
    arrays, out = tmp_path / "sums.npz", tmp_path / "sums.json"
    np.savez(arrays, x=np.arange(9, dtype=np.float32).reshape(3, 3), y=np.array([10, 20, 30]))
    with SumsServer() as server:
        edge = ["profile", "edge", "--url", server.url, "--model", "sums", *QUICK, "--batches", "1,4"]
        assert cli.main([*edge, "--payload", str(arrays), "--out", str(out)]) == 0
        assert {len(one[1]) for one in server.stub.heard} == {1, 4}
        of_four = next(one for one in server.stub.heard if len(one[1]) == 4)
        assert of_four[1].tolist() == [10, 20, 30, 10]
        assert cli.main([*edge, "--payload", "random"]) == 0
        assert cli.main(edge) == 0
    assert load_profile(out).model == "sums"


def test_a_functions_model_is_described_by_its_card(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "model.toml").write_text(
        'format = "onnx"\nfile = "model.onnx"\ninputs = [{ name = "x", datatype = "FP32", shape = [3] }]\n'
        'outputs = [{ name = "z", datatype = "FP32" }]\n'
    )
    heard: list[tuple[str, tuple[int, ...]]] = []

    def said(request: Heard) -> Say:
        _, payload = wire.unpack_frame(request.body)
        asked = wire.parse_request(payload.body, payload.json_length)
        heard.append((asked.inputs[0].name, asked.inputs[0].shape))
        outputs = (wire.Tensor.from_numpy("z", asked.inputs[0].to_numpy().sum(axis=1)),)
        answer = wire.encode_response(wire.InferResponse("sums", outputs), binary_by_default=True)
        return Say(200, wire.pack_frame({"status": 200, "service_s": 0.01, "cold_start": False}, answer))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await StubFc(said).serve_connection(reader, writer)

    with ServerThread(serve) as server:
        function = ["profile", "function", "--function", "sums", "--model", "sums", "--endpoint", server.url[7:]]
        measured = [*function, "--protocol", "http", "--yes", *QUICK, "--batches", "1,3"]
        assert cli.main([*measured, "--card", str(folder)]) == 0
        assert cli.main([*measured, "--card", str(tmp_path / "gone")]) == 2
    assert set(heard) == {("x", (1, 3)), ("x", (3, 3))}


def test_json_is_the_profile_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StubOipServer() as server:
        assert cli.main(["profile", "edge", "--url", server.url, *QUICK, "--batches", "1,3", "--json"]) == 0
    path = tmp_path / "printed.json"
    path.write_text(capsys.readouterr().out)
    assert [row.batch for row in load_profile(path).rows] == [1, 3]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(mode="status", status=400, error="a batch holds at most 1"), "a batch of 1: a batch holds at most"),
        (Behaviour(mode="short"), "another number of items"),
        (Behaviour(mode="garbage"), "cannot be read"),
        (Behaviour(mode="cut"), "the server failed at a batch of 1"),
        (Behaviour(bad_item=synthetic_pictures(0)[0].data.hex()), "refuses an item of the batch: told to"),
    ],
    ids=["refused", "a row too many", "no answer", "cut off", "item error"],
)
def test_failing_is_not_taken_for_being_fast(
    behaviour: Behaviour, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubOipServer(behaviour) as server:
        assert words in sentence(capsys, "edge", "--url", server.url, *QUICK)


def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = str(tmp_path / "gone" / "p.json")
    with StubOipServer() as server:
        edge = ("edge", "--url", server.url)
        assert "two or more rising whole numbers" in sentence(capsys, *edge, "--batches", "4")
        assert "3 repetitions and -1 warm-up" in sentence(capsys, *edge, "--repetitions", "3", "--warm-up", "-1")
        assert "does not serve the model 'digit'" in sentence(capsys, *edge, "--model", "digit")
        assert f"the folder of {nowhere} does not exist" in sentence(capsys, *edge, "--out", nowhere)
        assert "cannot read the picture" in sentence(capsys, *edge, "--payload", nowhere)
        assert server.stub.counters.batches == 0
    assert "start the server, or correct the URL" in sentence(capsys, "edge", "--url", "http://127.0.0.1:1")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.bench_edge", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_bare_benchmark_measures_the_same_into_the_same_form(tmp_path: Path) -> None:
    out = tmp_path / "bare.json"
    with StubOipServer(parameters={"max_batch": 2}) as server:
        printed = bench("--url", server.url, *QUICK, "--out", str(out))
        assert server.stub.counters.batch_sizes == [1, 2] * 4
    assert printed.returncode == 0, printed.stderr
    assert "for b up to 2" in printed.stdout
    assert load_profile(out).name == "bare"


def test_the_bare_benchmark_tells_what_is_wrong_in_one_sentence() -> None:
    refused = bench("--url", "http://127.0.0.1:1")
    assert refused.returncode == 2
    assert refused.stderr.startswith("bench_edge: cannot reach http://127.0.0.1:1")
    assert refused.stderr.count("\n") == 1


def test_the_bare_benchmark_needs_none_of_the_clients_packages() -> None:
    code = "import sys, scripts.bench_edge; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    unwanted = {"aiohttp", "rich", "pydantic", "matplotlib", "torch", "cv2", "flask", "alibabacloud_fc20230330"}
    assert not unwanted & set(json.loads(run.stdout))


def function(stub: ServerThread, *more: str) -> list[str]:
    endpoint = f"127.0.0.1:{stub.port}"
    place = ["--function", "digits", "--endpoint", endpoint, "--protocol", "http"]
    return ["profile", "function", *place, *QUICK, "--batches", "1,2,4", *more]


def items_of(heard: Heard) -> int:
    _, payload = wire.unpack_frame(heard.body)
    return wire.parse_request(payload.body, payload.json_length).inputs[0].items


def warm(heard: Heard) -> Say:
    return answer_frame(heard, service_s=0.2 + 0.1 * items_of(heard), cold_start=False)


def test_a_function_is_measured_by_what_its_container_says(tmp_path: Path) -> None:
    out = tmp_path / "fc.json"
    with ServerThread(StubFc(warm).serve_connection) as server:
        assert cli.main(function(server, "--out", str(out), "--memory-mb", "1024", "--vcpu", "0.5")) == 0
    profile = load_profile(out)
    assert (profile.backend, profile.max_batch) == ("function", 4)
    # What it was given makes it a function that can be planned with.
    [family] = read_profiles([str(out)]).families
    assert (family.kind, family.vcpu[0], family.memory_gb[0, 0]) == ("cpu", 0.5, 1.0)
    assert (profile.alpha_s, profile.beta_s) == pytest.approx((0.2, 0.1))
    assert profile.source.startswith("edgeburst profile: 12 invocations")


def test_cold_starts_are_measured_again(tmp_path: Path) -> None:
    started: set[int] = set()

    def cold_at_first(heard: Heard) -> Say:
        items = items_of(heard)
        cold = items not in started
        started.add(items)
        return answer_frame(heard, service_s=9.0, cold_start=True) if cold else warm(heard)

    out = tmp_path / "fc.json"
    with ServerThread(StubFc(cold_at_first).serve_connection) as server:
        assert cli.main(function(server, "--warm-up", "0", "--out", str(out))) == 0
    profile = load_profile(out)
    assert max(row.p99_s or 0 for row in profile.rows) == pytest.approx(0.6)
    assert profile.environment["cold_starts_left_out"] == "3"


@pytest.mark.parametrize(("answer", "more", "status"), [("n", (), 2), ("y", (), 0), (None, ("--yes",), 0)])
def test_in_a_terminal_it_asks_before_it_spends(
    answer: str | None,
    more: tuple[str, ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def asked() -> str:
        assert answer is not None, "--yes asks nothing"
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", asked)
    heard = []

    def counted(each: Heard) -> Say:
        heard.append(each)
        return warm(each)

    with ServerThread(StubFc(counted).serve_connection) as server:
        assert cli.main(function(server, "--memory-mb", "2048", "--json", *more)) == status
    said = capsys.readouterr()
    assert (
        "12 invocations will be billed, about 0.000177 CNY by price sheet cny-gbs-2023 if an instance has 2 GB"
        in said.err
    )
    assert len(heard) == (0 if status else 12)
    assert ("nothing was measured" in said.err) == bool(status)
    assert not said.out or json.loads(said.out)["backend"] == "function", "stdout is the profile alone"


def crashed(_heard: Heard) -> Say:
    body = json.dumps({"errorMessage": "Process exited unexpectedly"}).encode()
    return Say(200, body, {"X-Fc-Error-Type": "UnhandledInvocationError"})


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda heard: answer_frame(heard, cold_start=False, service_s=-0.25), "is -0.25 s, which is not possible"),
        (lambda heard: answer_frame(heard, cold_start=False, service_s=None), "does not report its `service_s`"),
        (lambda heard: answer_frame(heard, cold_start=True), "had a cold start; provision an instance"),
        (lambda heard: answer_frame(heard, status=400, error="too many items"), "a batch of 1: too many items"),
        (crashed, "the function failed (UnhandledInvocationError): Process exited"),
        (lambda _: Say(200, b"hello"), "the function's answer cannot be read"),
        (lambda _: stub_fc.error(403, "SignatureNotMatch"), "refused the call (403 SignatureNotMatch)"),
        (lambda _: Say(cut=True), "broke the connection; check the endpoint"),
    ],
    ids=["negative", "no figure", "always cold", "refused", "crashed", "no frame", "wrong key", "cut off"],
)
def test_a_function_that_cannot_be_measured_is_one_sentence_without_secrets(
    script: Callable[[Heard], Say], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ServerThread(StubFc(script).serve_connection) as server:
        told = sentence(capsys, *function(server)[1:])
    assert words in told
    assert "a secret" not in told


def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    told = sentence(capsys, "function", "--function", "digits")
    assert "ALIBABA_CLOUD_ACCESS_KEY_SECRET is not set" in told


def test_a_proxy_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerThread(StubFc(warm).serve_connection) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert cli.main(function(server)) == 0
        assert "proxy" not in capsys.readouterr().err
        # This host by an address that is not of the loopback.
        there = [word.replace("127.0.0.1", "0.0.0.0") for word in function(server)]
        assert cli.main(there) == 2
        assert "calls use the proxy in http_proxy" in capsys.readouterr().err
        monkeypatch.setenv("NO_PROXY", "0.0.0.0")
        assert cli.main(there) == 0
