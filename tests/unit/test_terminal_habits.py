"""Every sub-command takes --quiet, --no-color and --debug anywhere, and the shell completes all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler import cli
from scheduler.completion_command import script, words_by_path
from scheduler.doctor import command as doctor
from scheduler.doctor.rows import Row, ok
from scheduler.terminal import be_quiet, note, progress_console


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
    text = (Path(__file__).parents[2] / "scheduler" / "README.md").read_text()
    table = text[text.index("| `edgeburst` | what it does | exit status |") :].partition("\n\n")[0]
    for command in cli.SUB_COMMANDS:
        [row] = [line for line in table.splitlines() if line.startswith(f"| `{command.name}` |")]
        assert row.rsplit("|", 2)[1].strip().startswith("0")
