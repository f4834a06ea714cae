"""The pages of documentation are short, whole and true: links, keys, endpoints, metrics, errors and commands."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from support.documents import ELSEWHERE, NOT_RUN, PAGES, ROOT, blocks, commands, run_commands, text_of

from scheduler import cli
from scheduler.daemon.http.app import Ingress
from scheduler.daemon.http.model_calls import ModelCalls
from scheduler.daemon.http.page import PageCalls
from scheduler.daemon.http.read_outs import ReadOutCalls
from scheduler.domain.errors import HTTP_STATUS
from scripts import config_reference

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
LANGUAGES = {"sh", "toml", "json", "text"}
FIRST = "scheduler/README.md"
CLASSES = re.compile(r"^class (\w+)(.*?)(?=^\S|\Z)", re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def daemon_source() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "scheduler/daemon").rglob("*.py")))


def test_the_first_page_is_read_in_minutes() -> None:
    assert len(text_of("README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        found = (folder / path).resolve() if path else ROOT / page
        if not found.exists() or (anchor and anchor not in anchors(str(found.relative_to(ROOT)))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_a_block_says_its_language_unless_it_is_a_drawing(page: str) -> None:
    fences = re.findall(r"^```(\w*)$", text_of(page), re.MULTILINE)
    opening = fences[::2]
    wanted = LANGUAGES | ({""} if page == "scheduler/ARCHITECTURE.md" else set())
    assert set(opening) <= wanted
    assert set(fences[1::2]) <= {""}
    for block in blocks(page, "toml"):
        tomllib.loads(block)
    for block in blocks(page, "json"):
        json.loads(block)


def test_the_reference_of_the_configuration_is_that_of_the_types() -> None:
    page = text_of(FIRST)
    current = config_reference.replaced(page, config_reference.reference())
    assert page == current, "run: .venv/bin/python -m scripts.config_reference --write"


def test_a_page_without_the_marks_of_the_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="put it back"):
        config_reference.replaced("a page", "tables")


def test_the_reference_gives_type_range_default_and_meaning() -> None:
    lines = config_reference.reference().splitlines()
    assert "### `[[model.class]]`" in lines
    assert "| `port` | whole number, 0 to 65535 | `8600` | TCP port; 0 takes a free port and prints it. |" in lines
    assert [line for line in lines if line.startswith("| `per_hour` | number, at least 0 | absent |")]
    assert [line for line in lines if line.startswith("| `provisioned` | table of whole numbers | `{}` |")]
    assert [line for line in lines if line.startswith('| `labels` | list of `"edge-only"` or `"deferrable"` | `[]` |')]


def test_every_endpoint_is_documented() -> None:
    ingress = Ingress.__new__(Ingress)  # its paths need none of its parts
    model_calls = ModelCalls.__new__(ModelCalls)
    read_outs = ReadOutCalls.__new__(ReadOutCalls)
    page = PageCalls.__new__(PageCalls)
    all_routes = ingress.routes([*model_calls.routes(), *read_outs.routes(), *page.routes()])
    all_routes = [route for route in all_routes if not route.path.startswith("/page/")]  # in the row of `GET /`
    routes = [f"`{route.method} {route.path}`" for route in all_routes]
    assert [route for route in routes if route not in text_of(FIRST)] == []


def test_every_metric_is_documented() -> None:
    names = set(re.findall(r'"(edgeburst_\w+)"', daemon_source()))
    assert len(names) > 20
    page = text_of(FIRST)
    assert [name for name in sorted(names) if f"`{name}`" not in page and f"`{name}_total`" not in page] == []


def test_every_event_of_the_log_is_documented() -> None:
    events = set(re.findall(r'(?:\blog\(\s*logging\.\w+,\s*|_logger\.exception\(\s*)"(\w+)"', daemon_source()))
    assert len(events) > 15
    events = {event for event in events if not event.endswith("_bug")}  # faults of the program, documented together
    assert [event for event in sorted(events) if f"`{event}`" not in text_of(FIRST)] == []


def test_every_status_and_kind_of_refusal_is_documented() -> None:
    page = text_of(FIRST)
    assert [kind for kind in HTTP_STATUS if f"`{kind.value}`" not in page] == []
    statuses = {
        *re.findall(r"(?:Rejected|error_response)\(\s*(\d{3})", daemon_source()),
        *map(str, HTTP_STATUS.values()),
    }
    assert len(statuses) > 8
    rows = page[page.index("## Errors") : page.index("## Operations")]
    assert [status for status in sorted(statuses) if not re.search(rf"^\| [\d, ]*{status}\b", rows, re.MULTILINE)] == []


def test_the_methods_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", text_of("scheduler/ARCHITECTURE.md"))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "scheduler").rglob("*.py")]
    bodies = {(name, body) for text in sources for name, body in CLASSES.findall(text)}
    assert len(named) > 20
    missing = [
        f"{owner}.{member}"
        for owner, member in named
        if not any(owner == name and re.search(rf"\b{member}\b", body) for name, body in bodies)
    ]
    assert missing == []


def test_every_sub_command_is_documented() -> None:
    assert [each.name for each in cli.SUB_COMMANDS if f"| `{each.name}` |" not in text_of(FIRST)] == []


def test_the_changes_of_the_present_version_are_written_down() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    assert f"## {settings['metadata']['version']}" in text_of("scheduler/CHANGELOG.md")


def test_what_is_not_run_is_documented_and_checked_by_a_test_that_exists() -> None:
    documented = {command for page in PAGES for command in commands(page)}
    assert sorted(NOT_RUN.keys() - documented) == []
    assert [each for each in NOT_RUN.values() if not each.reason or not (ROOT / each.instead).exists()] == []


def test_what_a_page_repeats_is_run_on_another_page() -> None:
    run = {command for page in PAGES for command in run_commands(page)}
    repeated = {command for commands_ in ELSEWHERE.values() for command in commands_}
    assert sorted(repeated - run) == []


def test_commands_that_are_not_run_name_files_that_exist() -> None:
    rooms = ("scripts/", "tests/", "serverless_fn/", "edge_server/")
    words = [word for command in NOT_RUN for word in command.split() if word.startswith(rooms)]
    assert words
    assert [word for word in words if not (ROOT / word).exists()] == []


def test_extras_that_are_installed_exist() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    named = {
        name
        for page in PAGES
        for extras in re.findall(r"'\.\[([\w,]+)\]'", text_of(page))
        for name in extras.split(",")
    }
    assert {"client", "edge"} <= named
    assert sorted(named - set(settings["options.extras_require"])) == []


def test_scripts_that_are_not_run_take_the_options_that_are_shown() -> None:
    for command in NOT_RUN:
        module = re.search(r"-m scripts\.(\w+)", command)
        if module is None:
            continue
        name = ROOT / "scripts" / module[1]
        files = [*name.rglob("*.py")] if name.is_dir() else [name.with_suffix(".py")]
        files += [*(ROOT / "scripts" / "evaluation").glob("command.py")] if module[1] == "evaluate" else []
        source = "".join(path.read_text(encoding="utf-8") for path in files)
        assert [option for option in re.findall(r" (--[\w-]+)", command) if f'"{option}"' not in source] == [], command


def test_the_walked_decision_is_explained_in_the_words_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures change with the engine; the words by which the page explains them must not."""
    page = "scheduler/DECISIONS.md"
    monkeypatch.chdir(tmp_path)
    for command in run_commands(page):
        capsys.readouterr()
        assert cli.main(shlex.split(command)[1:]) == 0
    shown = capsys.readouterr().out
    words, printed = (
        {re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines()}
        for text in (blocks(page, "text")[0], shown)
    )
    figures = re.compile(r"[+\d]|decided by|an answer after")
    assert {word for word in words if not figures.search(word)} - printed == set()
    assert "decided by cost-to-others" in shown
