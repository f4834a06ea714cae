"""Every sub-command takes --quiet, --no-color and --debug anywhere, and the shell completes all of them."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from edge_server.__main__ import main as edge_main
from models.authoring import command as model_command
from scheduler import cli
from scheduler.completion_command import script, words_by_path
from scheduler.doctor import command as doctor
from scheduler.doctor.rows import Row, ok
from scheduler.domain.errors import EdgeburstError
from scheduler.program_options import EVERYWHERE, take_everywhere
from scheduler.terminal import (
    Progress,
    _Beside,
    be_quiet,
    first_interrupt,
    note,
    progress,
    progress_console,
    shows_progress,
)
from scripts.support.script import run_script
from serverless_fn.__main__ import main as function_main
from serverless_fn.local_fc.__main__ import main as local_fc_main

README = Path(__file__).parents[2] / "scheduler" / "README.md"


def completed(words: str, folder: Path, shell: str = "bash") -> list[str]:
    """What bash offers for the last word of a line."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    line = words.split(" ")
    (folder / "script").write_text(script(words_by_path(cli.whole_parser()), shell))
    array = " ".join(f"'{word}'" for word in line)
    asked = (
        f"source {folder}/script; COMP_WORDS=({array}); COMP_CWORD={len(line) - 1}; _edgeburst; echo ${{COMPREPLY[@]}}"
    )
    return subprocess.run([bash, "-c", asked], capture_output=True, text=True, check=True).stdout.split()


def test_the_shell_completes_sub_commands_their_verbs_and_options(tmp_path: Path) -> None:
    assert set(completed("edgeburst ", tmp_path)) >= {each.name for each in cli.SUB_COMMANDS}
    assert completed("edgeburst fc ", tmp_path)[:4] == ["plan", "apply", "status", "destroy"]
    assert completed("edgeburst fc apply --y", tmp_path) == ["--yes"]
    assert "--last-miss" in completed("edgeburst explain --l", tmp_path)
    assert completed("edgeburst doctor x.toml --no-c", tmp_path) == ["--no-calls"]
    assert completed("edgeburst completion ", tmp_path)[:2] == ["bash", "zsh"]


def test_zsh_gets_the_same_by_its_bashcompinit() -> None:
    made = script({"": ("a",)}, "zsh")
    assert made.startswith("autoload -U +X bashcompinit && bashcompinit\n")
    assert made.endswith(script({"": ("a",)}, "bash"))


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_where_an_error_was_found_and_still_the_sentence(
    place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check-config", "--config", "/nothing.toml"]
    assert cli.main(words) == 2
    [sentence] = capsys.readouterr().err.splitlines()
    assert cli.main([*words[:place], "--debug", *words[place:]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == sentence


def test_quiet_keeps_notes_and_progress_back(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        for quiet in (False, True):
            be_quiet(quiet)
            note("calls use a proxy")
            progress_console().print("10 of 20")
            assert ("calls use a proxy" in capsys.readouterr().err) is not quiet
    finally:
        be_quiet(False)
    assert cli.main(["--quiet", "config", "example"]) == 0
    note("hidden")
    assert capsys.readouterr().err == ""
    assert cli.main(["config", "example"]) == 0
    note("seen")
    assert "seen" in capsys.readouterr().err


def test_no_color_is_for_the_command_and_what_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert cli.main(["config", "example", "--no-color"]) == 0
    assert os.environ["NO_COLOR"] == "1"


def test_an_interrupted_doctor_shows_what_it_has_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text('[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n')

    def rows(*_: object) -> Iterator[Row]:
        yield ok("client host", "versions", "edgeburst 1")
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_rows", rows)
    assert cli.main(["doctor", "--config", str(path)]) == 130
    assert "edgeburst 1" in capsys.readouterr().out


def test_every_sub_command_says_its_exit_status_or_has_the_usual_ones() -> None:
    text = README.read_text()
    table = text[text.index("| `edgeburst` | what it does | exit status |") :].partition("\n\n")[0]
    for command in cli.SUB_COMMANDS:
        [row] = [line for line in table.splitlines() if line.startswith(f"| `{command.name}` |")]
        assert row.rsplit("|", 2)[1].strip().startswith("0")


def leaves(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each command that can be called, with its options."""
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for action in below:
        for name, one in action.choices.items():
            yield from leaves(one, f"{path} {name}".strip())
    if not below:
        yield path, {option for action in parser._actions for option in action.option_strings}


def test_the_table_says_which_commands_have_json_and_names_every_other() -> None:
    having = {path for path, options in leaves(cli.whole_parser()) if "--json" in options}
    without = {path for path, _ in leaves(cli.whole_parser())} - having
    text = README.read_text()
    table = text[text.index("| with `--json` | progress |") :].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for row in rows for name in re.findall("`([^`]+)`", row)} == having
    sentence = text[text.index("Without `--json` are") :].partition(".\n")[0]
    assert set(re.findall("`([^`]+)`", sentence)) - {"--json", "--log-format json"} == without


def test_every_command_takes_the_common_options_anywhere_and_refuses_an_unknown_one() -> None:
    for path, _ in leaves(cli.whole_parser()):
        if path.startswith("model "):
            continue  # a process of its own; its parser is tried below
        words = path.split()
        for place in range(len(words) + 1):
            given = [*words[:place], *EVERYWHERE, *words[place:]]
            assert take_everywhere(given) == words, path
            with pytest.raises(SystemExit) as ended:
                cli.main([*given, "--help"])
            assert ended.value.code == 0, (path, place)
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--no-such-option"])
        assert ended.value.code == 2, path
    be_quiet(False)


@pytest.mark.parametrize(
    ("program", "main"),
    [
        ("edgeburst", cli.main),
        ("edgeburst-model", model_command.main),
        ("edgeburst-edge", edge_main),
        ("edgeburst-function", function_main),
        ("edgeburst-local-fc", local_fc_main),
    ],
)
def test_every_program_says_its_version_and_refuses_an_unknown_option(
    program: str, main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out.split()[0]) == (0, program)
    try:
        status: object = main(["--no-such-option"])
    except SystemExit as ended_with:
        status = ended_with.code
    assert status == 2
    said = capsys.readouterr().err
    assert said
    assert "Traceback" not in said


def test_debug_shows_where_a_model_was_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    for main, words in ((model_command.main, ["check", "/nothing"]), (edge_main, ["--model", "/nothing"])):
        assert main(words) == 2
        [sentence] = capsys.readouterr().err.splitlines()
        assert main([*words, "--debug"]) == 2
        assert capsys.readouterr().err.splitlines()[0] == "Traceback (most recent call last):"
        assert main(words) == 2
        assert capsys.readouterr().err.splitlines() == [sentence]


def test_a_token_as_json_has_the_table_with_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["token", "new", "camera-3", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert f'sha256 = "{sha256(made["token"].encode()).hexdigest()}"' in made["table"]


def test_progress_is_written_to_a_terminal_only_and_counts_whatever_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("waiting", 2, "items") as work:
        work.advance()
        print("a row")
    assert capsys.readouterr() == ("a row\n", "")
    assert "1 of 2 items" in work.words(1.0)


@pytest.mark.parametrize(
    ("terminal", "quiet", "term", "shows"),
    [
        (True, False, "xterm", True),
        (False, False, "xterm", False),
        (True, True, "xterm", False),
        (True, False, "dumb", False),
    ],
)
def test_progress_needs_a_terminal_that_can_erase_a_line_and_no_quiet(
    terminal: bool, quiet: bool, term: str, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    be_quiet(quiet)
    try:
        assert shows_progress() is shows
    finally:
        be_quiet(False)


@pytest.mark.parametrize(
    ("done", "elapsed_s", "words"),
    [(0, 5.0, "0 of 90 calls, 0/s"), (30, 60.0, "30 of 90 calls, 0.5/s, 2:00 left"), (90, 3.0, "90 of 90 calls, 30/s")],
)
def test_progress_says_rate_and_remaining_time(done: int, elapsed_s: float, words: str) -> None:
    work = Progress("calling", 90, "calls")
    work.reach(done)
    assert work.words(elapsed_s).endswith(words)
    assert work.words(elapsed_s, 40) == f"calling  {words}"[:40]


def test_the_first_interrupt_is_noted_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with first_interrupt() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_that_is_drawn_within_a_line_does_not_cut_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    work = Progress("rows")
    beside = _Beside(screen, work)
    for piece in ("row", " ", "1", "\n", "left over"):
        work._draw(1.0)
        beside.write(piece)
    work._draw(2.0)
    beside.flush()
    shown = [line.rpartition("\x1b[2K")[2].strip("\r") for line in screen.getvalue().split("\n")]
    assert shown == ["row 1", "left over"]


def test_a_script_has_the_exit_statuses_and_options_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(main: Callable[[], int | None], *words: str) -> int:
        monkeypatch.setattr("sys.argv", ["try", *words])
        return run_script("try", main)

    def fail() -> int:
        raise EdgeburstError("the trace is empty; choose another")

    def interrupt() -> int:
        raise KeyboardInterrupt

    assert (run(lambda: None), run(lambda: 1), run(interrupt)) == (0, 1, 130)
    assert capsys.readouterr().err == ""
    assert run(fail, "--quiet") == 2
    assert capsys.readouterr().err == "try: the trace is empty; choose another\n"
    assert run(fail, "--debug") == 2
    assert capsys.readouterr().err.startswith("Traceback")
    assert run(lambda: len(sys.argv), "--no-color", "--seed", "7") == 3
    be_quiet(False)


# What other programs start, or ends by itself: `demo` and `demo_failures` show their own progress and partial lists.
OTHERWISE = {
    *("demo/__main__", "demo/client", "demo/alternatives", "demo_failures/__main__", "bench_edge", "edge_bench/loop"),
    *("daemon_bench/bare", "daemon_bench/edge", "daemon_bench/stages", "fault_table/liar", "money/container"),
    *("support/stub_edge", "support/stub_function", "support/steady_queue", "wsgi_bench/serve", "sensitivity/__init__"),
    *("support/planning_times", "support/one_simulation", "peer_bench/litserve_app", "peer_bench/mosec_app"),
    *("config_reference", "grpc_messages", "monitoring/build_dashboard"),
}


def test_every_script_is_run_with_these_habits() -> None:
    folder = README.parents[1] / "scripts"
    run = {
        str(path.relative_to(folder).with_suffix("")): "run_script(" in text
        for path in folder.rglob("*.py")
        if 'if __name__ == "__main__"' in (text := path.read_text(encoding="utf-8"))
    }
    assert sorted(name for name, has in run.items() if not has) == sorted(OTHERWISE & set(run))
