"""Requests found by number or client's id, and a file of them that no disk can turn against the daemon."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.explained import TEN, a_batch, an_explanation, explanations_of
from support.virtual_loop import run_virtual

from scheduler.daemon.explain.file import ExplanationFile
from scheduler.daemon.explain.requests import CLOSE_LIMIT_S, SETTLE_LIMIT_S, WRITE_EVERY_S, ClientIds, Explanations
from scheduler.dispatch.decision_ring import Explanation, Sending
from scheduler.domain.batches import BatchReport
from scheduler.explain.json_lines import from_json

T = TypeVar("T")


@given(st.lists(st.sampled_from("abc")), st.integers(1, 5))
def test_ids_lead_to_the_newest_requests_that_had_them(names: list[str], limit: int) -> None:
    ids = ClientIds(limit)
    for number, name in enumerate(names):
        ids.add(number, name)
    kept = list(enumerate(names))[-limit:]
    for name in "abcd":
        assert list(ids.numbers(name)) == [number for number, known in reversed(kept) if known == name]
    for number in range(len(names)):
        assert ids.name(number) == dict(kept).get(number, "")
    assert len(ids._numbers) == len({name for _, name in kept})


def test_a_very_long_id_is_kept_and_found_by_its_beginning() -> None:
    ids = ClientIds(3)
    ids.add(1, "x" * 10_000)
    assert list(ids.numbers("x" * 10_000)) == [1]
    assert len(ids.name(1)) == 128


def known(*numbers: int) -> dict[int, Explanation]:
    return {number: an_explanation(request_id=number) for number in numbers}


def found(explanations: Explanations, name: str) -> list[object]:
    return [values["request_id"] for values in explanations.find(name)]


def test_a_request_is_found_by_its_number_first_and_by_its_clients_id_newest_first() -> None:
    explanations = explanations_of(known(1, 2, 3, 4).get, lambda: 100.0)
    for number, name in ((1, "a"), (2, "b"), (3, "a"), (4, "1"), (5, "a")):
        explanations.arrived(number, name)
    assert found(explanations, "2") == [2]
    assert found(explanations, "a") == [3, 1]
    assert found(explanations, "1") == [1, 4]
    assert [values["request_id"] for values in explanations.find_client("1")] == [4]
    assert [values["request_id"] for values in explanations.find("1", None, 4)] == [1]
    assert found(explanations, "unknown") == found(explanations, "") == found(explanations, "9" * 400) == []


def test_the_newest_request_of_a_token_is_the_last_of_its_own() -> None:
    def newest(*, missed: bool) -> Iterator[int]:
        yield from [2] if missed else [3, 2, 1]

    explanations = explanations_of(known(1, 2, 3).get, lambda: 100.0, newest=newest)
    for number, owner in ((1, "a"), (2, "b"), (3, "a")):
        explanations.arrived(number, "", owner)

    def last(owner: str | None, *, missed: bool = False) -> list[object]:
        return [values["request_id"] for values in explanations.last(owner, missed=missed)]

    assert (last(None), last("a"), last("b"), last("c")) == ([3], [3], [2], [])
    assert (last(None, missed=True), last("a", missed=True)) == ([2], [])


def test_what_is_found_names_client_currency_and_the_time_of_day() -> None:
    explanations = explanations_of(known(1).get, lambda: 160.25)
    explanations.arrived(1, "abc")
    [values] = explanations.find("abc")
    assert values["client_id"] == "abc"
    assert values["currency"] == "CNY"
    assert values["first_decided_at"] == "2026-05-04T09:58:59.750Z"
    assert TEN.isoformat() == "2026-05-04T10:00:00+00:00"


def test_what_is_found_names_what_its_tenant_counts_as_at_present() -> None:
    explanations = explanations_of(known(1).get, lambda: 160.25)
    assert explanations.find("1")[0]["counts_as"] == ""
    explanations.shares = {"lab": 0.75, "other": 0.25}
    [values] = explanations.find("1")
    assert (values["counts_as"], values["tenant_share"]) == ("other", 0.25)


def file_in(folder: Path, **changes: Any) -> ExplanationFile:
    return ExplanationFile(folder / "why.jsonl", **{"max_bytes": 2**20, "files": 3, **changes})


def told_in(folder: Path) -> list[int]:
    return [from_json(line)[0].request_id for line in (folder / "why.jsonl").read_text().splitlines()]


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_virtual(main, start_s=100.0)


def test_each_ended_request_is_written_once_in_order(tmp_path: Path) -> None:
    async def main() -> dict[str, object]:
        loop = asyncio.get_running_loop()
        explanations = explanations_of(known(*range(1, 201)).get, loop.time, file_in(tmp_path))
        for number in range(1, 91):
            explanations.ended(number)
        await asyncio.sleep(1.5 * WRITE_EVERY_S)
        assert told_in(tmp_path) == list(range(1, 91))
        explanations.ended(150)
        await explanations.close()
        return explanations.status()

    status = run(main())
    assert told_in(tmp_path) == [*range(1, 91), 150]
    assert (status["written"], status["lost"], status["failure"]) == (91, 0, "")


def test_a_hedged_request_is_written_when_the_loser_is_back_too(tmp_path: Path) -> None:
    under_way = an_explanation(sendings=(Sending(a_batch(7, (1,))),))
    settled = an_explanation(sendings=(Sending(a_batch(7, (1,)), 101.0, BatchReport(1.0), None, 0.5),))
    requests = {1: under_way, **known(2)}

    async def main() -> tuple[list[int], list[int]]:
        explanations = explanations_of(requests.get, asyncio.get_running_loop().time, file_in(tmp_path))
        explanations.ended(1)
        explanations.ended(2)
        await asyncio.sleep(1.0)
        before = told_in(tmp_path)
        requests[1] = settled
        await asyncio.sleep(1.0)
        after = told_in(tmp_path)
        await explanations.close()
        return before, after

    assert run(main()) == ([2], [2, 1])
    assert '"cost":0.5' in (tmp_path / "why.jsonl").read_text()


def test_a_batch_that_never_comes_back_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        under_way = an_explanation(sendings=(Sending(a_batch(7, (1,))),))
        explanations = explanations_of({1: under_way}.get, asyncio.get_running_loop().time, file_in(tmp_path))
        explanations.ended(1)
        await asyncio.sleep(SETTLE_LIMIT_S + 1.0)

    run(main())
    assert told_in(tmp_path) == [1]


def test_a_stop_writes_what_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        under_way = an_explanation(request_id=2, sendings=(Sending(a_batch(7, (1,))),))
        requests = {**known(1), 2: under_way}
        explanations = explanations_of(requests.get, asyncio.get_running_loop().time, file_in(tmp_path))
        explanations.ended(1)
        explanations.ended(2)
        await explanations.close()

    run(main())
    assert told_in(tmp_path) == [1, 2]


def test_more_than_the_ring_holds_never_waits_to_be_written_and_the_loss_is_counted(tmp_path: Path) -> None:
    # The last 100 wait, which are 51 to 150; the engine has forgotten one of them.
    written = [number for number in range(1, 151) if number != 60]

    async def main() -> dict[str, object]:
        explanations = explanations_of(known(*written).get, asyncio.get_running_loop().time, file_in(tmp_path))
        for number in range(1, 151):
            explanations.ended(number)
        await explanations.close()
        return explanations.status()

    status = run(main())
    assert told_in(tmp_path) == written[50:]
    assert status["lost"] == 51


def test_without_a_file_nothing_waits() -> None:
    async def main() -> int:
        explanations = explanations_of(known(1).get, asyncio.get_running_loop().time)
        explanations.ended(1)
        tasks = len(asyncio.all_tasks())
        await explanations.close()
        return tasks

    assert run(main()) == 1


def test_a_full_file_is_put_aside_and_so_many_are_kept(tmp_path: Path) -> None:
    file = file_in(tmp_path, max_bytes=100, files=3)
    file.write_lines([json.dumps({"n": n, "pad": "x" * 30}) for n in range(10)])
    file.close()
    names = ["why.jsonl.2", "why.jsonl.1", "why.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    lines = [json.loads(line)["n"] for name in names for line in (tmp_path / name).read_text().splitlines()]
    assert lines == list(range(10 - len(lines), 10))
    assert all((tmp_path / name).stat().st_size <= 100 for name in names)


def test_a_full_disk_costs_lines_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    full = ExplanationFile(Path("/dev/full"), max_bytes=2**20, files=2)
    full.write_lines(["{}"] * 3)
    assert (full.written, full.lost) == (0, 3)
    assert "No space left" in full.failure
    assert [record.getMessage() for record in caplog.records] == ["explain_file_failed"]


def test_a_file_that_can_be_written_again_goes_on_and_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    file = ExplanationFile(folder / "why.jsonl", max_bytes=2**20, files=2)
    file.write_lines(['{"n":1}'])
    folder.mkdir()
    (folder / "why.jsonl").write_text('{"n":1')
    file.write_lines(['{"n":2}', '{"n":3}'])
    file.close()
    assert (folder / "why.jsonl").read_text().splitlines() == ['{"n":1', '{"n":2}', '{"n":3}']
    assert (file.written, file.lost, file.failure) == (2, 1, "")


def test_a_disk_that_fails_does_not_keep_the_daemon_from_stopping(tmp_path: Path) -> None:
    async def main() -> dict[str, object]:
        file = ExplanationFile(tmp_path / "nowhere" / "why.jsonl", max_bytes=2**20, files=2)
        explanations = explanations_of(known(1).get, asyncio.get_running_loop().time, file)
        explanations.ended(1)
        await explanations.close()
        return explanations.status()

    assert run(main())["lost"] == 1


def test_a_disk_that_hangs_keeps_the_daemon_from_stopping_no_longer_than_its_limit(tmp_path: Path) -> None:
    async def hang(_work: Callable[[], None]) -> None:
        await asyncio.sleep(1e9)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        explanations = explanations_of(known(1).get, loop.time, file_in(tmp_path), hang)
        explanations.ended(1)
        await explanations.close()
        return loop.time()

    assert run(main()) == 100.0 + CLOSE_LIMIT_S


def test_what_never_was_expected_back_can_be_written_as_json(tmp_path: Path) -> None:
    async def main() -> None:
        sending = Sending(a_batch(7, (1,), predicted_finish_s=math.inf), 100.5, BatchReport(0.5), None, 0.0)
        requests = {1: an_explanation(sendings=(sending,))}
        explanations = explanations_of(requests.get, asyncio.get_running_loop().time, file_in(tmp_path))
        explanations.ended(1)
        await explanations.close()

    run(main())
    assert told_in(tmp_path) == [1]
