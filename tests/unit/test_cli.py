"""The command line: help that teaches, one sentence for every error, nothing imported that is not asked for."""

import argparse
import subprocess
import sys
from types import ModuleType

import pytest

from scheduler import cli
from scheduler.domain.errors import EdgeburstError


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A sub-command `try` whose behaviour a test chooses by replacing `run`."""
    module = ModuleType("stand_in_command")

    def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        subparsers.add_parser("try").add_argument("--count", type=int, default=0)

    module.add_parser = add_parser  # type: ignore[attr-defined]
    module.run = lambda args: args.count  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stand_in_command", module)
    command = cli.SubCommand("try", "stand_in_command", "try something out", "edgeburst try --count 3")
    missing = cli.SubCommand("gone", "stand_in_that_needs.a_package", "cannot be imported", "edgeburst gone")
    monkeypatch.setattr(cli, "SUB_COMMANDS", (*cli.SUB_COMMANDS, command, missing))
    return module


def test_the_status_of_a_sub_command_is_the_status_of_the_program(stand_in: ModuleType) -> None:
    assert cli.main(["try", "--count", "3"]) == 3


def test_an_error_is_its_sentence_on_stderr_and_status_2(
    stand_in: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_args: argparse.Namespace) -> int:
        raise EdgeburstError("the trace is empty; choose another")

    stand_in.run = fail  # type: ignore[attr-defined]
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == "edgeburst: the trace is empty; choose another\n"


def test_an_interrupt_ends_with_130_and_says_nothing(stand_in: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    stand_in.run = interrupt  # type: ignore[attr-defined]
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == ""


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    stand_in: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gone"]) == 2
    message = capsys.readouterr().err
    assert "'stand_in_that_needs'" in message
    assert "'.[client]'" in message


def test_help_lists_every_sub_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for command in cli.SUB_COMMANDS:
        assert command.example in text
        assert command.example.startswith(f"edgeburst {command.name} ")


def test_help_of_a_sub_command_has_its_example(stand_in: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["try", "--help"])
    text = capsys.readouterr().out
    assert "edgeburst try --count 3" in text
    assert "Try something out." in text


@pytest.mark.parametrize("name", [command.name for command in cli.SUB_COMMANDS if not command.passes_on])
def test_every_sub_command_teaches_with_examples_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"edgeburst {name} " in text.partition("example")[2]


def test_a_command_of_another_program_gets_all_arguments_and_gives_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[list[str]] = []
    module = ModuleType("stand_in_that_passes_on")
    module.run_with = lambda arguments: given.append(arguments) or 7  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    command = cli.SubCommand("pass", module.__name__, "pass on", "edgeburst pass", passes_on=True)
    monkeypatch.setattr(cli, "SUB_COMMANDS", (*cli.SUB_COMMANDS, command))

    assert cli.main(["pass", "--help", "new", "--x=1"]) == 7
    assert given == [["--help", "new", "--x=1"]]


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("edgeburst ")


@pytest.mark.parametrize("arguments", [["fly"], ["--fly"]])
def test_an_unknown_word_is_refused_with_the_known_ones(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "examples:" in capsys.readouterr().out


def test_help_imports_no_sub_command() -> None:
    code = (
        "import sys, contextlib\nfrom scheduler import cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "heavy = {'numpy', 'aiohttp', 'scheduler.daemon', 'scheduler.simulator'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
