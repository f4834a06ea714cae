"""Traces of other programs as traffic: what is read, and which doubtful files are refused with line and reason."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.explained import an_explanation

from scheduler.explain.json_lines import to_json
from scheduler.explain.text import Context
from scheduler.recordings.layout import Kind, RecordingError
from scheduler.recordings.moments import UNITS_S, iso_s, moment_s
from scheduler.recordings.tables import Columns
from scheduler.recordings.traces import read_traffic
from scheduler.recordings.traffic import Traffic
from scheduler.workloads import WorkloadError, read_gaps

NINE_S = 1_767_603_600.0
"""2026-01-05 09:00:00 UTC."""


def read(
    folder: Path, text: str, *, name: str = "trace.csv", columns: Columns | None = None, form: str | None = None
) -> Traffic:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_traffic(path, columns=columns or Columns(), rng=np.random.default_rng(1), format_name=form)


def refusal(folder: Path, text: str, *, columns: Columns | None = None, form: str | None = None) -> str:
    with pytest.raises(RecordingError) as refused:
        read(folder, text, columns=columns, form=form)
    return str(refused.value).replace(f"{folder}/", "")


def test_a_named_column_of_dates_is_read_to_its_last_digit_and_the_zone_is_said(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-05 09:00:00.1000000,374,44\n"
        "2026-01-05 09:00:00.6000000,396,109\n2026-01-05 09:00:02.1000000,91,16\n",
    )
    assert (found.times_s - NINE_S).tolist() == pytest.approx([0.1, 0.6, 2.1], abs=1e-6)
    assert found.dated
    assert found.notes == (f"the dates of {tmp_path}/trace.csv name no zone and are read as UTC",)
    zoned = read(tmp_path, "at,x\n2026-01-05T10:00:00+01:00,1\n2026-01-05T09:00:01Z,2\n")
    assert (zoned.times_s - NINE_S).tolist() == [0.0, 1.0]
    assert zoned.notes == ()


@given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=20).map(sorted),
    st.sampled_from(sorted(UNITS_S)),
    st.sampled_from(",;\t"),
)
def test_dates_as_numbers_are_read_in_whatever_unit_they_are(offsets_us: list[int], unit: str, delimiter: str) -> None:
    folder = Path("/dev/shm")
    times_s = [NINE_S + offset / 1e6 for offset in offsets_us]
    lines = [f"{at_s / UNITS_S[unit]:.9f}{delimiter}7" for at_s in times_s]
    found = read(folder, "\n".join([f"timestamp{delimiter}size", *lines]), name="edgeburst-units.csv")
    assert found.times_s.tolist() == pytest.approx(times_s, abs=2e-6)
    assert found.dated


def test_times_from_a_files_own_zero_and_the_names_of_models_classes_and_sizes_are_taken(tmp_path: Path) -> None:
    text = "arrival_s,model,class,tenant,items,bytes\n0.5,a,fast,lab,2,100\n0.25,b,slow,,1,200\n"
    found = read(tmp_path, text)
    assert found.times_s.tolist() == [0.25, 0.5]
    assert [found.kinds[index] for index in found.kind] == [Kind("b", "slow", "", 0), Kind("a", "fast", "lab", 0)]
    assert (found.items.tolist(), found.body_bytes.tolist(), found.dated) == ([1, 2], [200, 100], False)
    assert found.notes == (f"1 rows of {tmp_path}/trace.csv were not in order of time, and were sorted",)


def test_a_file_of_numbers_alone_is_times_where_they_never_fall(tmp_path: Path) -> None:
    assert read(tmp_path, "1.5\n2\n2\n7\n").times_s.tolist() == [1.5, 2, 2, 7]
    assert refusal(tmp_path, "1.5\n2\n1\n") == (
        "the numbers of trace.csv fall, so they are no times; give gaps with --arrivals, counts with --rates"
    )


def test_gaps_that_never_fall_are_taken_for_times_and_refused(tmp_path: Path) -> None:
    (tmp_path / "t.gaps").write_text("\n".join(map(str, range(10))))
    with pytest.raises(WorkloadError, match="never fall, as times do and gaps do not"):
        read_gaps(tmp_path / "t.gaps")
    (tmp_path / "t.gaps").write_text("0.5 " * 10)
    assert len(read_gaps(tmp_path / "t.gaps").times_s) == 10


AZURE = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f1,http,0,2,1\no,a,f2,timer,5,0,0\n"


def test_counts_by_minute_become_as_many_requests_within_their_minute(tmp_path: Path) -> None:
    found = read(tmp_path, AZURE)
    assert np.bincount((found.times_s // 60).astype(int)).tolist() == [5, 2, 1]
    http = read(tmp_path, AZURE, columns=Columns(row="http"))
    assert np.bincount((http.times_s // 60).astype(int)).tolist() == [0, 2, 1]
    assert "1 of 2 rows" in http.notes[0]


def test_a_column_of_times_beside_one_of_counts_is_spread_over_the_time_between(tmp_path: Path) -> None:
    found = read(tmp_path, "time,count\n2026-01-05T09:00Z,3\n2026-01-05T09:05Z,0\n2026-01-05T09:10Z,1\n")
    assert np.bincount(((found.times_s - NINE_S) // 300).astype(int)).tolist() == [3, 0, 1]
    assert "each count" in found.notes[0]


def test_what_replay_measured_is_replayed(tmp_path: Path) -> None:
    text = "id,payload,arrival_s,sent_s,answered_s,tenant\n0,x,0.0,0.1,0.5,lab\n1,x,2.5,2.6,3.0,\n"
    found = read(tmp_path, text, name="requests.csv")
    assert found.times_s.tolist() == [0.0, 2.5]
    assert [found.kinds[index].tenant for index in found.kind] == ["lab", ""]


def test_the_file_of_explain_gives_dates_kinds_and_cancellations_over_its_rotated_parts(tmp_path: Path) -> None:
    context = Context(first_decided_at="2026-01-05T09:00:00.500Z")
    lines = [json.loads(to_json(an_explanation(request_id=number), context)) for number in (1, 2)]
    at_s = lines[0]["decisions"][0]["at_s"]
    lines[1] |= {"outcome": "cancelled", "ended_at_s": lines[1]["arrived_at_s"] + 0.25, "tenant": "lab"}
    (tmp_path / "why.jsonl.1").write_text(json.dumps(lines[0]) + "\n")
    found = read(tmp_path, json.dumps(lines[1]) + '\n{"cut', name="why.jsonl")
    expected = NINE_S + 0.5 + lines[0]["arrived_at_s"] - at_s
    assert found.times_s.tolist() == pytest.approx([expected] * 2)
    assert [found.kinds[index].tenant for index in found.kind] == [lines[0]["tenant"], "lab"]
    assert found.cancelled_s.tolist() == pytest.approx([np.nan, 0.25], nan_ok=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a,b\n1.5,2\n2.5,3\n",
            "trace.csv has several columns that may be times (a, b); say which: --time-column NAME",
        ),
        ("time,timestamp\n1,2\n", "several columns that may be times (time, timestamp)"),
        (
            "time,count,requests\n1,2,3\n2,2,3\n",
            "trace.csv:1: several columns may be counts (count, requests); leave one, or name the others otherwise",
        ),
        ("name,kind\nx,y\n", "trace.csv has no column of times, only name, kind; a time is a date or a number"),
        (
            "time,n\n1,x\nsoon,y\n",
            "trace.csv:3: 'soon' in column time is no time in seconds; correct or remove the line",
        ),
        ("time\n1\n1e30\n", "trace.csv:3: '1e30' in column time is no time in seconds"),
        ("time\n2026-01-05\n2026-13-05\n", "trace.csv:3: '2026-13-05' in column time is no date, as the rows before"),
        ("time,x\n1,2\n3\n", "trace.csv:3: it has 1 columns and the first line 2; correct it"),
        ("time,items\n1,2\n2,0\n", "trace.csv:3: a request has at least one item; correct or remove the line"),
        ("time,items\n1,2\n2,1.5\n", "trace.csv:3: '1.5' in column items is no number of items"),
        ("time\n", "trace.csv has a line of names only"),
        ("\n \n", "trace.csv is empty"),
        ("f,1,2\nx,3,-1\n", "trace.csv:2: '-1' in column 2 is no count"),
        ("f,1,2\nx,0,0\n", "trace.csv holds no request"),
        ("time,count\n5,3\n", "counts of a single moment; it needs two"),
        ('{"a": 1}\n', "trace.csv:1: this is no explanation of a request, as [explain] writes them"),
        ('{"arrived_at_s": 1}\n', "trace.csv:1: this is no explanation of a request ('first_decided_at')"),
        ('{x\n{"arrived_at_s": 1}\n', "trace.csv:1: this line is no JSON; remove it"),
    ],
)
def test_every_doubtful_file_is_refused_with_line_and_reason(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text)


EXPLAINED = {
    **{"model": "m", "class_name": "c", "tenant": "", "priority": 1, "outcome": "answered", "ended_at_s": 2.0},
    **{"arrived_at_s": 1.0, "first_decided_at": "", "decisions": [], "body_bytes": 5, "items": 1},
}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("arrived_at_s", math.nan, "arrived_at_s is no time"),
        ("arrived_at_s", 1e30, "arrived_at_s is no time"),
        ("body_bytes", math.inf, "cannot convert float infinity to integer"),
        ("body_bytes", 10**30, "body_bytes or items is out of range"),
        ("items", 0, "body_bytes or items is out of range"),
    ],
)
def test_an_explanation_with_numbers_of_no_request_is_refused(
    tmp_path: Path, name: str, value: float, reason: str
) -> None:
    assert len(read(tmp_path, json.dumps(EXPLAINED))) == 1
    said = refusal(tmp_path, json.dumps({**EXPLAINED, name: value}))
    assert said == f"trace.csv:1: this is no explanation of a request ({reason})"


def test_a_column_that_is_named_decides_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    text = "a,b\n1,20\n2,30\n"
    assert read(tmp_path, text, columns=Columns(time="b")).times_s.tolist() == [20, 30]
    for table in ("1,20\n2,30\n", text):
        assert read(tmp_path, table, columns=Columns(time="2")).times_s.tolist() == [20, 30]
    for number in ("0", "3"):
        assert f"trace.csv has no column '{number}'" in refusal(tmp_path, text, columns=Columns(time=number))
    assert read(tmp_path, text, columns=Columns(time="b", unit="ms")).times_s.tolist() == [0.02, 0.03]
    assert refusal(tmp_path, text, columns=Columns(time="c")) == (
        "trace.csv has no column 'c', only a, b; name one of them"
    )
    assert "no row with a cell 'queue'" in refusal(tmp_path, AZURE, columns=Columns(row="queue"))
    assert "has no columns named 1, 2, 3" in refusal(tmp_path, text, form="minutes")
    assert "is no requests.csv" in refusal(tmp_path, text, form="requests")


def test_moments_of_flags_are_dates_of_this_host_unless_they_name_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert moment_s("2026-01-05T17:00") == (NINE_S, "local time")
        assert moment_s("2026-01-05T09:00Z") == (NINE_S, "UTC offset as given")
        assert moment_s("1767603600") == (NINE_S, "seconds since 1970")
        assert moment_s("1767603600000") == (NINE_S, "seconds since 1970")
    finally:
        monkeypatch.undo()
        time.tzset()
    for text in ("yesterday", "1e30", "-1e300", "inf", "nan"):
        with pytest.raises(ValueError, match=text):
            moment_s(text)
    assert iso_s("2026-02-30") is None
