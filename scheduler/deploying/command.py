"""`edgeburst fc`: makes, shows and removes the functions that a configuration or a plan names."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.credentials import read_access_key
from scheduler.daemon.config.warm_instances import proposals
from scheduler.deploying.applying import Apply
from scheduler.deploying.difference import Action, Change, Kind, difference
from scheduler.deploying.drafting import Draft, draft, draft_plan, tier_table
from scheduler.deploying.errors import DeployError
from scheduler.deploying.instance_costs import InstanceCosts, instance_costs
from scheduler.deploying.observed import Function
from scheduler.deploying.observing import leftovers, observe_all
from scheduler.deploying.platform import Patience, Platform
from scheduler.deploying.removing import remove
from scheduler.deploying.tables import changes_json, print_changes, print_status, status_rows, summary
from scheduler.domain.errors import EdgeburstError
from scheduler.fc_client import Account, proxy_variable
from scheduler.planning.plan_file import read_plan
from scheduler.terminal import note, progress_console

_DESCRIPTION = """\
Makes the functions of Function Compute that the tiers of a configuration, or the groups of a plan, name: function,
version, alias, limit and provisioned instances. Each tier is an alias of a version that never changes. An alias is
moved only to a version that has answered a probe (two invocations, which are billed). Functions that this command did
not make stay unchanged."""

_EPILOG = """\
examples:
  edgeburst fc plan edgeburst.toml                             show the changes and their cost; change nothing
  edgeburst fc plan edgeburst.toml --exit-code                 exit status 0: no change, 2: changes, 1: an error
  edgeburst fc apply edgeburst.toml                            show the changes, ask, and make them
  edgeburst fc apply plan.json --config edgeburst.toml --yes   the functions of `edgeburst plan --json`, without asking
  edgeburst fc status edgeburst.toml                           exit status 1 if a tier is not as configured and active
  edgeburst fc destroy edgeburst.toml                          remove what apply has made

Account and access key are those of [function]; the image and the other values are in [deploy] of the configuration. The
key needs permission to read and write functions, versions, aliases, provision and concurrency configs, to list
triggers, and to invoke; the daemon itself needs fc:InvokeFunction only."""

_VERBS = {
    "plan": "show the changes",
    "apply": "show the changes, ask, and make them",
    "status": "show the state of the tiers",
    "destroy": "show what is deleted, ask, and delete it",
}


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "fc",
        help="make, show and remove the functions that a configuration or a plan names",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="|".join(_VERBS), required=True)
    for verb, words in _VERBS.items():
        one = verbs.add_parser(
            verb,
            help=words,
            description=f"{words.capitalize()}.",
            epilog=f"example:\n  edgeburst fc {verb} edgeburst.toml",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_arguments(one, verb)


def _add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="configuration (.toml), or plan (.json) with --config")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="account, image and tiers for a plan")
    parser.add_argument("--model", default="", help="model of the plan, if the configuration has several")
    if verb in ("plan", "status"):
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    if verb == "plan":
        parser.add_argument(
            "--exit-code", action="store_true", help="exit status 0 without changes, 2 with changes, 1 after an error"
        )
    if verb in ("apply", "destroy"):
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--prune", action="store_true", help="also delete what earlier files asked for")
    parser.add_argument(
        "--wait-s",
        type=_seconds,
        default=300.0,
        metavar="S",
        help="longest wait for each function to become active (default %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs one verb; returns the exit status.

    Raises:
        EdgeburstError: a file is not valid, or the provider refuses a call.
    """
    if not getattr(args, "exit_code", False):
        return _run(args)
    try:
        return _run(args)
    except EdgeburstError as error:
        # 2 says that there are changes.
        print(f"edgeburst: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    config, wanted = _read(args)
    if args.verb == "apply":
        config.refuse_idle_over_cap()
    platform = _platform(config, args)
    if variable := proxy_variable(platform.account.host):
        note(f"calls use the proxy in {variable}; unset it to avoid that")
    if args.verb in ("plan", "apply"):
        costs = _costs(config, wanted)
        return (_plan if args.verb == "plan" else _apply)(args, platform, wanted, costs)
    return (_status if args.verb == "status" else _destroy)(args, platform, wanted)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} must be a number of seconds from 0 to 86400")
    return value


def _read(args: argparse.Namespace) -> tuple[Config, Draft]:
    if args.file.suffix != ".json":
        if args.config is not None or args.model:
            raise DeployError(
                f"--config and --model are for plans (.json), but {args.file} is a configuration; leave them out"
            )
        config = load_config(args.file, os.environ, with_plans=False)
        return config, draft(config)
    if args.config is None:
        raise DeployError(f"{args.file} names no account and no image; give a configuration with --config")
    config = load_config(args.config, os.environ, with_plans=False)
    plan = read_plan(args.file)
    if plan.infeasible:
        note(f"the plan does not keep its objectives: {plan.infeasible}")
    return config, draft_plan(config, plan.groups, model_name=args.model)


def _platform(config: Config, args: argparse.Namespace) -> Platform:
    function = config.function
    if function is None:
        raise DeployError(f"{config.path}: the table [function], which names the account, is missing; add it")
    account = Account(
        region=function.region,
        key=read_access_key(config, os.environ),
        endpoint=function.endpoint,
        protocol=function.protocol,
    )
    return Platform(account, Patience(limit_s=args.wait_s, clock=time.monotonic, sleep=time.sleep))


def _costs(config: Config, wanted: Draft) -> InstanceCosts:
    sheet = config.price_sheet()
    assert sheet is not None, "the draft needs [function]"
    # A plan has proposals of its own, for its own traffic.
    return instance_costs(wanted.deployment, sheet, () if wanted.proposed else proposals(config), wanted.proposed)


def _plan(args: argparse.Namespace, platform: Platform, wanted: Draft, costs: InstanceCosts) -> int:
    changes = _changes(platform, wanted)
    if args.json:
        found = {"endpoint": platform.account.host, "changes": changes_json(changes), "provisioned": costs.as_json()}
        print(json.dumps(found))
    else:
        _show(args, platform, wanted, changes, costs)
    return 2 if args.exit_code and any(_is_due(change, prune=False) for change in changes) else 0


def _apply(args: argparse.Namespace, platform: Platform, wanted: Draft, costs: InstanceCosts) -> int:
    changes = _changes(platform, wanted)
    _show(args, platform, wanted, changes, costs)
    due = [change for change in changes if _is_due(change, prune=args.prune)]
    money = costs.sentence()
    if due and not _agreed(args, f"Apply this? {money}." if money else "Apply this?"):
        return 1
    with _progress() as tell:
        apply = Apply(platform, wanted.deployment, tell)
        # Also without changes, it waits for provisioned instances.
        apply.run()
        if args.prune:
            apply.prune()
    _console().print("applied" if due else "nothing to do: everything is as configured")
    return 0


def _status(args: argparse.Namespace, platform: Platform, wanted: Draft) -> int:
    rows = status_rows(wanted.deployment, observe_all(platform, wanted.deployment))
    if args.json:
        print(json.dumps({"endpoint": platform.account.host, "tiers": rows}))
    else:
        print_status(_console(), rows, title=f"{wanted.deployment.name} at {platform.account.host}")
    return 0 if all(row["ok"] for row in rows) else 1


def _destroy(args: argparse.Namespace, platform: Platform, wanted: Draft) -> int:
    deployment = wanted.deployment
    found = observe_all(platform, deployment)
    deleted = [function for function in found.values() if deployment.made(function.description)]
    names = [function.name for function in deleted]
    names += leftovers(platform, deployment) if args.prune else ()
    for name in found:
        if name not in names:
            _console().print(escape(f"{name} was not made by this deployment and stays"))
    if not names:
        _console().print("nothing to do: none of its functions exists")
        return 0
    aliases = {function.name: tuple(function.aliases) for function in deleted}
    changes = []
    for name in names:
        changes.append(Change(Action.DELETE, Kind.FUNCTION, name))
        changes += [Change(Action.DELETE, Kind.ALIAS, name, alias) for alias in aliases.get(name, ())]
    print_changes(_console(), changes, title=f"{deployment.name} at {platform.account.host}")
    if not _agreed(args, "Delete this?"):
        return 1
    with _progress() as tell:
        for name in names:
            remove(platform, deployment, name, tell=tell)
    _console().print("destroyed")
    return 0


def _changes(platform: Platform, wanted: Draft) -> tuple[Change, ...]:
    functions: dict[str, Function] = observe_all(platform, wanted.deployment)
    return difference(wanted.deployment, functions, leftovers(platform, wanted.deployment))


def _is_due(change: Change, *, prune: bool) -> bool:
    return change.action is not Action.UNCHANGED and (prune or not change.only_pruned)


def _show(
    args: argparse.Namespace, platform: Platform, wanted: Draft, changes: tuple[Change, ...], costs: InstanceCosts
) -> None:
    console = _console()
    print_changes(console, changes, title=f"{wanted.deployment.name} at {platform.account.host}")
    console.print(escape(summary(changes)))
    for line in costs.lines():
        console.print(escape(line), soft_wrap=True)
    if wanted.unconfigured:
        console.print("\nThe daemon calls these functions only with this in its configuration:\n")
    for tier in wanted.unconfigured:
        console.print(escape(tier_table(tier)) + "\n", soft_wrap=True)
    if args.config is not None and not read_plan(args.file).infeasible:
        named = os.path.relpath(args.file, args.config.parent)
        words = f'It follows the batches and waits of the plan with function_plan = "{named}" in its [[model]].'
        console.print(escape(words), soft_wrap=True)


def _agreed(args: argparse.Namespace, question: str) -> bool:
    """Returns whether the user agrees, in the terminal or with --yes."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise DeployError(
            "stdin is not a terminal, so the command cannot ask; check the changes above, then give --yes"
        )
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Prints each step as a line, and in a terminal a sign that the work continues."""
    console = progress_console()
    steps = _Steps(console)
    if not console.is_terminal:
        yield steps.tell
        return
    with console.status("working"):
        yield steps.tell


class _Steps:
    """Printed steps: each once, also if it is reported several times in a row."""

    def __init__(self, console: Console) -> None:
        """Starts without a step."""
        self._console = console
        self._last = ""

    def tell(self, step: str) -> None:
        """Prints a step."""
        if step != self._last:
            self._console.print(escape(step), style="dim", soft_wrap=True)
        self._last = step


def _console() -> Console:
    return Console(highlight=False)
