"""Simulates policies x workloads x networks x faults, and writes tables and plots of the results.

    python -m scripts.evaluate --out out/evaluation                      # all suites; an hour of processor time
    python -m scripts.evaluate --suite load --policy edgeburst,static --quick
    python -m scripts.evaluate --suite load,noise,varied --scales 2,2.4,3,4 --reuse OLD   # the published tables
    python -m scripts.evaluate --suite figures --traces DIR              # required figures beside measured ones
    python -m scripts.evaluate --suite figures --out NEW --beside OLD    # the same beside those of an earlier run
    python -m scripts.evaluate --suite engine --against WORKTREE        # the engine's time here and there

Traffic is drawn from arrival processes of this repository with fixed seeds. With --traces (or EDGEBURST_TRACES) real
traces and bandwidth logs are used as well, and marked. The output folder gets evaluation.csv (one line for each run),
evaluation.md and plots.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scheduler.domain.errors import EdgeburstError
from scheduler.simulator.scenario import POLICIES
from scripts.evaluation import against, beside, detection, edges, engine_cost, learning, quota, reuse, tenants, varied
from scripts.evaluation.case import Case, Result, Row
from scripts.evaluation.figures import figures_table
from scripts.evaluation.options import OURS, QUICK, SOURCES, TRACES, Options, real_traces
from scripts.evaluation.plots import draw_all
from scripts.evaluation.runs import run_all, run_case
from scripts.evaluation.suite_tables import suite_tables
from scripts.evaluation.suites import SUITES
from scripts.evaluation.tables import ORACLE, Table, write_csv

ROOT = Path(__file__).parents[2]
Task = Callable[[], Result]

ALL = (*SUITES, tenants.SUITE, quota.SUITE, "changepoints", "engine")
FIGURES = "figures"
"""All suites that have required figures, and the table of these figures."""
JUDGED = {"lte": (OURS, ORACLE), "steps": (OURS, ORACLE)}
"""Policies that the figures of a suite are about, where they are not about all."""


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments of the command."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate", description=head, epilog=rest, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--suite", type=_names(*ALL, FIGURES), default=ALL, metavar="NAME,...", help=", ".join((*ALL, FIGURES))
    )
    parser.add_argument(
        "--policy", type=_names(*POLICIES), default=POLICIES, metavar="NAME,...", help=", ".join(POLICIES)
    )
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), metavar="DIR", help="default: %(default)s")
    traces = os.environ.get("EDGEBURST_TRACES")
    parser.add_argument(
        "--traces", type=Path, default=Path(traces) if traces else None, metavar="DIR", help="folder of real traces"
    )
    parser.add_argument("--jobs", type=_at_least_one, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--scales", type=_scales, metavar="K,...", help="factors on the rate, for load and noise")
    parser.add_argument("--quick", action="store_true", help="few loads, one seed, a tenth of the requests")
    parser.add_argument(
        "--requests", type=_at_least_one, metavar="N", help="requests in each run of load, noise and lte"
    )
    parser.add_argument("--seeds", type=_at_least_one, metavar="N", help="seeds of each case, from 0 on (3, steps 5)")
    parser.add_argument(
        "--first", type=_whole, default=0, metavar="N", help="traces from gap N on, for instance 20000 or 40000"
    )
    parser.add_argument(
        "--traffic",
        type=_names(*SOURCES),
        default=Options().sources,
        metavar="NAME,...",
        help=f"of load and noise: {', '.join(SOURCES)} (default: {', '.join(Options().sources)})",
    )
    parser.add_argument(
        "--reuse",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="take runs of other policies than the engine from an earlier --out DIR; may be repeated",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables, and nothing else, to stdout")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="WORKTREE",
        help=f"with --suite engine: compare with another checkout, in {against.ALTERNATIONS} alternations",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="DIR",
        help="with --suite figures: print those of an earlier --out DIR beside them",
    )
    args = parser.parse_args(words)
    if args.beside is not None and FIGURES not in args.suite:
        parser.error("--beside compares required figures: give --suite figures with it")
    if args.against is not None and tuple(args.suite) != ("engine",):
        parser.error("--against compares the engine's own time: give --suite engine with it")
    return args


def _names(*known: str) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return read


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(word) for word in text.split(","))
    except ValueError:
        scales = (0.0,)
    if not all(0 < scale < math.inf for scale in scales):
        raise argparse.ArgumentTypeError(f"must be numbers above 0 with commas between, not {text!r}")
    return scales


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, not {text!r}")
    return int(text)


def options_of(args: argparse.Namespace) -> Options:
    """Returns the options of the cases."""
    base = QUICK if args.quick else Options()
    some = None if args.seeds is None else tuple(range(args.seeds))
    return replace(
        base,
        policies=tuple(args.policy),
        traces=args.traces,
        scales=args.scales or base.scales,
        requests=args.requests or base.requests,
        seeds=some or base.seeds,
        repeats=some or base.repeats,
        first=args.first,
        sources=tuple(args.traffic),
    )


def missing_traces(options: Options) -> str:
    """Returns a sentence if there are no real traces; otherwise an empty text."""
    folder = options.traces
    if folder is None:
        return "rows on real traces are omitted: name their folder with --traces or EDGEBURST_TRACES"
    if not real_traces(folder):
        return f"rows on real traces are omitted: there is no {folder / TRACES}"
    return ""


def tasks_of(suites: Sequence[str], options: Options, *, quick: bool) -> Iterator[Task]:
    """Yields the tasks of the given suites."""
    asked = ALL if FIGURES in suites else suites
    for name in SUITES:
        if name in asked:
            chosen = (case for case in SUITES[name](options) if name in suites or _has_figures(case))
            yield from (partial(run_case, case) for case in chosen)
    if "changepoints" in asked:
        runs, hours = (10, 0.5) if quick else (100, 10.0)
        yield from detection.tasks(runs=runs, hours=hours, traces=real_traces(options.traces))
    if tenants.SUITE in asked:
        yield from tenants.tasks(options.seeds)
    if quota.SUITE in asked:
        yield from quota.tasks(options.seeds)
    if "engine" in asked:
        ours = replace(options, policies=(OURS,), scales=(3.0,))
        cases = [case for case in SUITES["noise"](ours) if case.scenario.policy == OURS]
        yield from engine_cost.tasks(cases)


def _has_figures(case: Case) -> bool:
    """Whether a figure is required of this case: over the load of every policy on real traces only."""
    if case.suite in (varied.SUITE, learning.SUITE):
        return False
    if case.suite == "noise" and not case.on_trace:
        return case.scenario.policy in (OURS, "static") and 2.0 <= case.traffic.scale <= 3.0
    policies = JUDGED.get(case.suite)
    judged = policies is None or case.scenario.policy in policies
    return judged and (case.on_trace or case.suite not in ("load", "lte", edges.SUITE))


def tables_of(rows: Sequence[Row], *, with_figures: bool) -> list[Table]:
    """Returns the tables of the rows."""
    found = [row for row in rows if row["suite"] == "changepoints"]
    tables = list(suite_tables([row for row in rows if row["suite"] in SUITES]))
    if found:
        tables.append(detection.table(found))
    shared = [row for row in rows if row["suite"] == tenants.SUITE]
    if shared:
        tables.append(tenants.table(shared))
    walled = [row for row in rows if row["suite"] == quota.SUITE]
    if walled:
        tables.append(quota.table(walled))
    return [*tables, figures_table(rows)] if with_figures else tables


def evaluate(args: argparse.Namespace, console: Console) -> None:
    """Runs the tasks, and writes CSV, Markdown and plots."""
    options = options_of(args)
    sentence = missing_traces(options)
    if sentence:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    before = None if args.beside is None else beside.read_rows(args.beside)
    tasks = list(tasks_of(args.suite, options, quick=args.quick))
    kept = reuse.kept(tasks, [row for folder in args.reuse for row in beside.read_rows(folder)])
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeburstError(f"cannot make the folder {args.out}: {error.strerror}; name another with --out") from error
    new = iter(_run([task for i, task in enumerate(tasks) if i not in kept], args.jobs, console))
    results = [Result(kept[i]) if i in kept else next(new) for i in range(len(tasks))]
    rows = [result.row for result in results]
    tables = tables_of(rows, with_figures=FIGURES in args.suite)
    if before is not None:
        tables.append(beside.beside_table(before, rows, name=str(args.beside)))
    markdown = "\n".join(table.markdown() for table in tables)
    write_csv(rows, args.out / "evaluation.csv")
    (args.out / "evaluation.md").write_text(markdown, encoding="utf-8")
    drawn = draw_all(results, args.out)
    if args.markdown:
        print(markdown)
    else:
        console.print(f"{len(rows)} runs: {args.out}/evaluation.csv, evaluation.md, {len(drawn)} plots", markup=False)


def compare(args: argparse.Namespace, console: Console) -> None:
    """Prints the engine's own time in this checkout beside that in another one."""
    words = ["--quick"] if args.quick else []
    if args.traces is not None:
        words += ["--traces", str(args.traces.resolve())]
    with _progress("measuring", console) as progress:
        bar = progress.add_task("", total=2 * against.ALTERNATIONS)
        table = against.alternate(
            ROOT,
            args.against.resolve(),
            measure=partial(against.measure_engine, words=words),
            done=lambda: progress.advance(bar),
        )
    print(table.markdown())


def _run(tasks: Sequence[Task], jobs: int, console: Console) -> list[Result]:
    with _progress("simulating", console) as progress:
        bar = progress.add_task("", total=len(tasks))
        return run_all(tasks, jobs=jobs, done=lambda: progress.advance(bar))


def _progress(what: str, console: Console) -> Progress:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the evaluation; returns the exit status, 2 after an error."""
    args = parse(words)
    # One thread in each process: the processes already use all cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console = Console(stderr=True)
    try:
        if args.against is None:
            evaluate(args, console)
        else:
            compare(args, console)
    except EdgeburstError as error:
        console.print(f"error: {error}", style="red", soft_wrap=True, markup=False, highlight=False)
        return 2
    return 0
