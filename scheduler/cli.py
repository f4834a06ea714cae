"""The `edgeburst` command and its sub-commands.

The module of a sub-command is imported only when it is called, so that help is fast and a host needs only the packages
of the sub-commands that it runs. Such a module has `add_parser(subparsers)` and `run(args) -> int`.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from scheduler.domain.errors import EdgeburstError
from scheduler.program_options import add_everywhere, show_where, take_everywhere


@dataclass(frozen=True, slots=True)
class SubCommand:
    """A sub-command: its module, what it does, and an example of its use."""

    name: str
    module: str
    summary: str
    example: str
    passes_on: bool = False
    """Whether another program reads the arguments: the module has `run_with(arguments) -> int` instead."""


SUB_COMMANDS = (
    SubCommand(
        "serve",
        "scheduler.daemon.serve",
        "run the daemon: batch requests, split them between edge and functions",
        "edgeburst serve --config /etc/edgeburst/edgeburst.toml",
    ),
    SubCommand(
        "check-config",
        "scheduler.daemon.config_command",
        "check a configuration and show its meaning",
        "edgeburst check-config --config edgeburst.toml",
    ),
    SubCommand(
        "config",
        "scheduler.daemon.init_command",
        "write a configuration after five questions",
        "edgeburst config init --edge http://192.168.1.20:8700 --model digits --slo-s 0.5",
    ),
    SubCommand(
        "doctor",
        "scheduler.doctor.command",
        "look for what is wrong on the three hosts",
        "edgeburst doctor --config edgeburst.toml",
    ),
    SubCommand(
        "token",
        "scheduler.daemon.token_command",
        "make a client's token, and the table by which the daemon knows it",
        "edgeburst token new camera-3",
    ),
    SubCommand(
        "replay",
        "scheduler.measuring.replay_command",
        "send a trace or a pattern of requests to a daemon and measure the answers",
        "edgeburst replay --url http://127.0.0.1:8600 --model digits --pattern bursty --rps 30 --duration-s 60",
    ),
    SubCommand(
        "model",
        "scheduler.model_command",
        "make a model's folder from its file, and check it",
        "edgeburst model new mynet --from mynet.onnx --picture",
        passes_on=True,
    ),
    SubCommand(
        "profile",
        "scheduler.measuring.profile_command",
        "measure latency by batch size of an edge server or a function",
        "edgeburst profile edge --url http://192.168.1.20:8700 --model resnet50 --out orin.json",
    ),
    SubCommand(
        "plan",
        "scheduler.daemon.plan_command",
        "plan functions for applications, or show the plan of a configuration at a given rate",
        "edgeburst plan --apps apps.toml --profile functions.json",
    ),
    SubCommand(
        "explain",
        "scheduler.daemon.explain.command",
        "show why a request was sent to its backend, and how it ended",
        "edgeburst explain 4711",
    ),
    SubCommand(
        "top",
        "scheduler.daemon.top_command",
        "show what a running daemon does, live",
        "edgeburst top --config edgeburst.toml",
    ),
    SubCommand(
        "limits",
        "scheduler.daemon.limits_command",
        "show or set operators' limits of a running daemon",
        "edgeburst limits set digits --function-batch-cap 4 --config edgeburst.toml",
    ),
    SubCommand(
        "fc",
        "scheduler.deploying.command",
        "make, show and remove the functions that a configuration or a plan names",
        "edgeburst fc apply edgeburst.toml",
    ),
    SubCommand(
        "completion",
        "scheduler.completion_command",
        "print a script for the shell's completion",
        "edgeburst completion bash",
    ),
    SubCommand(
        "simulate",
        "scheduler.whatif.command",
        "run the daemon's engine under virtual time against simulated backends",
        "edgeburst simulate --policy edgeburst --poisson 120 --requests 20000 --slo-s 1.0",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command.

    Args:
        argv: the arguments after the program's name; None takes them from the command line.

    Returns:
        The exit status: 0 success, 1 what the command looks for is not so, 2 error (one sentence on stderr), 130
        interrupted, 141 the reader of its output is gone.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except EdgeburstError as error:
        show_where()
        print(f"edgeburst: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the pipe has closed it; closing stderr prevents a message of the interpreter at exit.
        sys.stderr.close()
        return 141


def _run(given: list[str]) -> int:
    arguments = take_everywhere(given)
    for command in SUB_COMMANDS:
        if command.passes_on and arguments[:1] == [command.name]:
            given.remove(command.name)
            passed_on: int = _import(command).run_with(given)
            return passed_on
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser, modules = _parser(chosen)
    if not arguments:
        parser.print_help()
        return 2
    options = parser.parse_args(arguments)
    options.whole_parser = whole_parser
    status: int = modules[options.sub_command].run(options)
    return status


def _parser(chosen: str | None) -> tuple[argparse.ArgumentParser, dict[str, ModuleType]]:
    """Returns the parser and the imported modules; imports only the module of the chosen sub-command."""
    parser = argparse.ArgumentParser(
        prog="edgeburst",
        description="Batches inference requests and splits them between an edge GPU and serverless functions, so that "
        "requests meet their deadlines at the lowest cost.",
        epilog="examples:\n" + "\n".join(f"  {command.example}" for command in SUB_COMMANDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_everywhere(parser)
    subparsers = parser.add_subparsers(dest="sub_command", metavar="COMMAND", required=True)
    modules = {}
    for command in SUB_COMMANDS:
        if command.name == chosen:
            modules[command.name] = _import(command)
            modules[command.name].add_parser(subparsers)
            _complete_help(subparsers.choices[command.name], command)
        else:
            subparsers.add_parser(command.name, help=command.summary)
    return parser, modules


def whole_parser() -> argparse.ArgumentParser:
    """Returns the parser with every sub-command whose packages are installed here."""
    parser, _ = _parser(None)
    [subparsers] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    for command in SUB_COMMANDS:
        try:
            module = _import(command)
        except EdgeburstError:
            continue
        del subparsers._name_parser_map[command.name]  # noqa: SLF001 - it was there without its options
        if command.passes_on:
            subparsers._name_parser_map[command.name] = module.parser()  # noqa: SLF001
            continue
        module.add_parser(subparsers)
    return parser


def _complete_help(parser: argparse.ArgumentParser, command: SubCommand) -> None:
    """Adds a description and an example to a sub-command's help if its module has none."""
    if not parser.description:
        parser.description = command.summary[0].upper() + command.summary[1:] + "."
    if not parser.epilog:
        parser.epilog = f"example:\n  {command.example}"
        parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _import(command: SubCommand) -> ModuleType:
    try:
        return importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("scheduler", "models"):
            raise
        raise EdgeburstError(
            f"`edgeburst {command.name}` needs the Python package {missing!r}: install it from "
            "the source tree with pip install '.[client]'"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
