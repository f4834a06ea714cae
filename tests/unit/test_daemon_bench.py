"""The comparison of daemons under load: its cases are what their names say, and its figures what was seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scheduler import wire
from scheduler.domain.errors import EdgeburstError
from scripts.daemon_bench import stages
from scripts.daemon_bench.cases import ALL, USUAL, Case, requests
from scripts.daemon_bench.client import Seen
from scripts.daemon_bench.comparison import Figures, lines
from scripts.daemon_bench.contenders import checkout_of


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_case_has_the_name_it_is_asked_for_by(case: Case) -> None:
    assert Case.of(case.name) == case
    assert len(ALL) == 54
    assert set(USUAL) <= set(ALL)


@pytest.mark.parametrize("name", ["24kb-binary-64", "24-binary-64-edge", "24kb-xml-64-edge", "24kb-binary-64-cloud"])
def test_what_is_no_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"case|unpack"):
        Case.of(name)


@pytest.mark.parametrize("named", ["no-commit-of-this-name", "."])
def test_what_is_no_checkout_to_compare_with_is_refused(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeburstError, match="commit"):
        checkout_of(named, tmp_path)


@pytest.mark.parametrize("form", ["binary", "json", "classify"])
def test_requests_are_of_the_form_and_about_the_size(form: str) -> None:
    for sent in requests(Case(24, form)):
        head, _, body = sent.partition(b"\r\n\r\n")
        said = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert int(said["Content-Length"]) == len(body)
        if form == "classify":
            picture = body
        else:
            length = wire.json_length_of(said)
            [tensor] = wire.parse_request(body, length).inputs
            [picture] = wire.base64_elements(tensor).elements()
        assert 0.9 < len(picture) / (24 * 1024) < 1.1


def test_figures_are_sums_and_quantiles_of_windows() -> None:
    seen = Seen(
        [0.001 * index for index in range(100)], {200: 99, 503: 1}, [(100, 1.0, 0.01 * n) for n in range(1, 21)]
    )
    assert (seen.rps, seen.cpu_us, seen.latency_ms(0.5)) == (100.0, pytest.approx(300.0), pytest.approx(50.0))


def test_lines_compare_with_bare_aiohttp_and_the_other_checkout() -> None:
    figures = [Figures(1.0, cpu_us, 1.0, 1.0, 1.0, 0) for cpu_us in (100.0, 400.0, 200.0)]
    text = "\n".join(lines(Case(), dict(zip(["bare aiohttp", "there", "here"], figures, strict=True))))
    assert "CPU  2.00 x bare aiohttp, 0.500 x there" in text


def test_a_frame_belongs_to_the_innermost_stage() -> None:
    assert stages.stage(sys._getframe()) == stages.LOOP
    code = compile("import sys\nfound = sys._getframe()", "/x/scheduler/wire/body.py", "exec")
    place: dict[str, object] = {}
    exec(code, place)  # noqa: S102 - a frame of a file of that name
    assert stages.stage(place["found"]) == "wire format"  # type: ignore[arg-type]
