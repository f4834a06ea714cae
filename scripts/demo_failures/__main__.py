"""Entry point of `make demo-failures` and of `python -m scripts.demo_failures --out out/demo-failures`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.domain.errors import EdgeburstError
from scheduler.program_options import positive
from scripts.demo.page import open_page
from scripts.demo.processes import Processes, child_environment, ignore_interrupts
from scripts.demo_failures.checklist import Check, Explained, brief, passes
from scripts.demo_failures.configuration import KEY_ID_VARIABLE, KEY_SECRET_VARIABLE, Site, slower_edge
from scripts.demo_failures.page import Page
from scripts.demo_failures.scenes import SCENES, Seen, Stage
from scripts.fault_table.neighbours import KEY, LIMIT_S, ROOT, SECRET, Neighbours

_HELP = """\
Runs an edge server, a local Function Compute endpoint, the daemon and clients on this machine, and lets four things go
wrong, one after the other: the edge server is killed, the uplink is cut, a cap on money is reached, a tenant floods the
daemon. Each is seen in what the daemon's page gets, explained, and mended. The list of what must hold is printed, and
written to checklist.json.
"""
_EPILOG = """\
Exit status: 0 if every point of the list holds; 1 otherwise; 2 if the demo could not run; 130 if it was interrupted
(its processes are stopped, and the list so far is printed as partial).

examples:
  make demo-failures              about a minute and a half
  make demo-failures OPEN=1       with the daemon's page in a browser
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    given = _arguments(argv)
    console = Console(highlight=False)
    environ = {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    seen: list[Seen] = []
    status = 0
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        # What a scene has begun is mended before its processes are stopped.
        with Processes(given.out / "logs", environ) as processes, closing(_played(given, processes, console)) as played:
            for one in played:
                seen.append(one)
                if not given.quiet:
                    _tell(one, console)
    except (EdgeburstError, OSError, RuntimeError) as error:
        print(f"demo_failures: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        ignore_interrupts()  # a late one would end the process by the signal, not with this status
        print("demo_failures: interrupted; its processes are stopped, and the list is partial", file=sys.stderr)
        status = 130
    checks = [one for one in seen if isinstance(one, Check)]
    explained = [asdict(one) for one in seen if isinstance(one, Explained)]
    content = {"passes": passes(checks) and not status, "partial": bool(status), "checks": [asdict(c) for c in checks]}
    path = given.out / "checklist.json"
    if checks:
        path.write_text(json.dumps({**content, "explained": explained}, indent=2) + "\n", encoding="utf-8")
        console.print(_table(checks))
    if status:
        return status
    console.print("[green]Every point holds.[/green]" if content["passes"] else "[red]Not every point holds.[/red]")
    console.print(f"See {escape(str(path))}.")
    return 0 if content["passes"] else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo_failures", description=_HELP, epilog=_EPILOG, formatter_class=plain
    )
    add = parser.add_argument
    out = Path("out/demo-failures")
    add("--out", type=Path, default=out, help="folder for all output files (default %(default)s)")
    add("--pace", type=positive, default=1.0, metavar="X", help="factor on the seconds for which each state lasts")
    add("--open", action="store_true", help="open the daemon's page in a browser, where there is one")
    add("--quiet", action="store_true", help="print the list at the end only")
    return parser.parse_args(argv)


def _played(given: argparse.Namespace, processes: Processes, console: Console) -> Generator[Seen, None, None]:
    """Starts everything and plays the scenes; yields what is seen."""
    tell = _teller(console, quiet=given.quiet)
    tell("starting the edge server, the local Function Compute endpoint and the daemon")
    profile = slower_edge(given.out)
    neighbours = Neighbours(given.out, processes, edge_profile=profile)
    neighbours.restore(edge=True, function=True)
    site = Site(neighbours.edge_port, neighbours.endpoint_port, profile)
    config = given.out / "edgeburst.toml"
    config.write_text(site.toml(), encoding="utf-8")
    keys = {KEY_ID_VARIABLE: KEY, KEY_SECRET_VARIABLE: SECRET}
    daemon = processes.start("daemon", ["scheduler.cli", "serve", "--config", str(config)], **keys)
    ready = daemon.wait_for("ready", limit_s=LIMIT_S)
    url = f"http://{ready['host']}:{ready['port']}"
    tell(f"the daemon's page: {url}")
    if given.open:
        tell(open_page(url, os.environ))
    page = Page(url)
    site = replace(site, port=int(ready["port"]))
    stage = Stage(neighbours, processes, daemon, site, page, given.out, given.pace)
    try:
        for number, scene in enumerate(SCENES, start=1):
            tell(f"{number} of {len(SCENES)}: {(scene.__doc__ or '').splitlines()[0]}")
            yield from scene(stage)
    finally:
        page.close()


def _teller(console: Console, *, quiet: bool) -> Callable[[str], None]:
    began_s = time.monotonic()

    def tell(sentence: str) -> None:
        if not quiet:
            console.print(f"[dim]{time.monotonic() - began_s:6.1f} s[/dim]  {escape(sentence)}")

    return tell


def _tell(one: Seen, console: Console) -> None:
    if isinstance(one, Check):
        console.print(f"          {_mark(one)} {escape(one.must)}: {escape(one.seen)}", soft_wrap=True)
    else:
        for line in brief(one.text):
            console.print(f"             [dim]{escape(line)}[/dim]", soft_wrap=True)


def _mark(check: Check) -> str:
    return "[green]✓[/green]" if check.holds else "[bold red]✗[/bold red]"


def _table(checks: Sequence[Check]) -> Table:
    table = Table(title="what must hold", title_justify="left", show_edge=False)
    for column in ("", "scene", "must hold", "seen"):
        table.add_column(column, overflow="fold")
    before = ""
    for check in checks:
        scene = "" if check.scene == before else check.scene
        table.add_row(_mark(check), scene, escape(check.must), escape(check.seen))
        before = check.scene
    return table


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
