"""`edgeburst completion`: a script by which the shell completes sub-commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

_DESCRIPTION = """\
Prints a script that lets the shell complete sub-commands and options; files are completed as ever. Load it in every new
shell from its start-up file: eval "$(edgeburst completion bash)", for zsh with compinit before it.

Exit status: 0 printed."""

_SCRIPT = """\
_edgeburst() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} path="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $each" in
            {paths}) path="$path $each" ;;
        esac
    done
    local words
    case "$path" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _edgeburst edgeburst
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script for the shell's completion",
        description=_DESCRIPTION,
        epilog='example:\n  eval "$(edgeburst completion bash)"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def run(args: argparse.Namespace) -> int:
    """Prints the script; returns the exit status. `args.whole_parser` returns the parser of all sub-commands."""
    print(script(words_by_path(args.whole_parser()), args.shell), end="")
    return 0


def words_by_path(parser: argparse.ArgumentParser) -> Mapping[str, tuple[str, ...]]:
    """Returns what may follow each sequence of sub-commands: further ones, choices and options."""
    return dict(_walk(parser, ""))


def _walk(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    words: list[str] = []
    choices: list[str] = []
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse shows its options nowhere else
        words += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            below = dict(action.choices)
        elif not action.option_strings and action.choices:
            choices += [str(choice) for choice in action.choices]
    yield path, (*below, *choices, *sorted(words))
    for name, one in below.items():
        yield from _walk(one, f"{path} {name}")


def script(words: Mapping[str, tuple[str, ...]], shell: str) -> str:
    """Returns the script for "bash" or "zsh"."""
    paths = " | ".join(f'"{path}"' for path in words if path)
    cases = "\n".join(f'        "{path}") words="{" ".join(of)}" ;;' for path, of in words.items())
    return (_ZSH if shell == "zsh" else "") + _SCRIPT.format(paths=paths, cases=cases)
