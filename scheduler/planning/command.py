"""`edgeburst plan` without an edge: functions for applications, or for one arrival process."""

import argparse
import json
import math
import sys
from pathlib import Path
from time import perf_counter

from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.problem import OBJECTIVES, Application, FunctionPlan, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.planning.answer import as_json, print_answer
from scheduler.planning.applications import application_from_gaps, application_from_map, read_applications
from scheduler.planning.frontier_plot import plot_frontier
from scheduler.planning.profiles import read_profiles
from scheduler.plotting import require_plots
from scheduler.terminal import progress

DEFAULT_PRICES = "fc3-cu-usd"


def add_arguments(parser: argparse.ArgumentParser, sources: "argparse._MutuallyExclusiveGroup") -> None:
    """Adds the arguments of planning without an edge.

    Args:
        parser: the parser of the sub-command.
        sources: group of arguments of which exactly one says what to plan.
    """
    sources.add_argument("--apps", type=Path, metavar="FILE.toml", help="[[app]] tables: name, slo_s, rps, ...")
    sources.add_argument("--arrivals", type=Path, metavar="FILE.gaps", help="one application: a trace of gaps, seconds")
    sources.add_argument("--map", type=Path, metavar="FILE.json", help="one application: an arrival process (D0, D1)")
    parser.add_argument("--slo-s", type=float, metavar="S", help="SLO of the one application")
    parser.add_argument("--percentile", type=float, default=0.99, metavar="P", help="within the SLO (default: 0.99)")
    parser.add_argument("--from-s", type=float, default=0.0, metavar="A", help="start of the part of --arrivals")
    parser.add_argument("--to-s", type=float, metavar="B", help="end of the part of --arrivals")
    parser.add_argument(
        "--profile", action="append", metavar="FILE.json", help="functions to choose from; may be there several times"
    )
    parser.add_argument("--prices", default=DEFAULT_PRICES, metavar="NAME", help="sheet or file (default: %(default)s)")
    parser.add_argument("--objective", choices=OBJECTIVES, default="percentile", help="(default: %(default)s)")
    parser.add_argument("--minimise", choices=("cost", "latency"), default="cost", help="(default: %(default)s)")
    parser.add_argument("--budget", type=float, metavar="X", help="most money a request, in the sheet's currency")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw cost against latency")


def run(args: argparse.Namespace) -> int:
    """Plans and prints the plan.

    Returns:
        Exit status; 1 if some SLO cannot be met, which a sentence on stderr then names.
    """
    if args.plot:
        require_plots("--plot")
    problem = _problem(args)
    started_s = perf_counter()
    with progress("planning"):
        plan = plan_functions(problem)
    planning_s = perf_counter() - started_s
    if args.plot:
        plot_frontier(problem, plan, args.plot)
    if args.json:
        print(json.dumps(as_json(problem, plan, planning_s=planning_s)))
    else:
        print_answer(problem, plan, planning_s=planning_s)
    return _status(plan)


def _status(plan: FunctionPlan) -> int:
    if plan.infeasible is None:
        return 0
    print(f"edgeburst: {plan.infeasible.reason}; it would need {plan.infeasible.would_need}", file=sys.stderr)
    return 1


def _problem(args: argparse.Namespace) -> PlanningProblem:
    if not args.profile:
        raise PlanInputError("--profile is missing; name the functions to choose from")
    problem = PlanningProblem(
        applications=_applications(args),
        profile=read_profiles(args.profile),
        sheet=load_sheet(args.prices),
        objective=args.objective,
        minimise=args.minimise,
        budget=args.budget,
    )
    problem.check()
    return problem


def _applications(args: argparse.Namespace) -> tuple[Application, ...]:
    if (args.from_s or args.to_s is not None) and not args.arrivals:
        raise PlanInputError("--from-s and --to-s go with --arrivals; leave them out")
    if args.apps:
        if args.slo_s is not None:
            raise PlanInputError("--slo-s goes with --arrivals or --map; in --apps every app has its slo_s")
        return read_applications(args.apps)
    if args.slo_s is None:
        raise PlanInputError("--slo-s is missing; say how soon the requests must be answered")
    if not (math.isfinite(args.slo_s) and args.slo_s > 0):
        raise PlanInputError(f"--slo-s must be above 0, not {args.slo_s:g}")
    if not 0 < args.percentile < 1:
        raise PlanInputError(f"--percentile must be above 0 and below 1, not {args.percentile:g}")
    if args.map:
        return (application_from_map(args.map, slo_s=args.slo_s, percentile=args.percentile),)
    return (
        application_from_gaps(
            args.arrivals, slo_s=args.slo_s, percentile=args.percentile, from_s=args.from_s, to_s=args.to_s
        ),
    )
