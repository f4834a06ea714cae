"""Stages of the demo: start of the processes, measurement, cold start, bill, output files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from models.profile import load_profile
from scheduler.domain.latency import LatencyModel
from scheduler.planner.catalogue.prices import PriceSheet, load_sheet
from scripts.demo import configuration, live, report, timeline
from scripts.demo.cold_start import burst, cold_start
from scripts.demo.configuration import Places
from scripts.demo.endpoint import Endpoint, Usage
from scripts.demo.instances import WarmInstances, latency_model, plan_instances, planned
from scripts.demo.memory import memory_warning, read_meminfo
from scripts.demo.outcomes import read_outcomes
from scripts.demo.page import open_page
from scripts.demo.pictures import Picture, Probabilities, answers_alone, held_out_pictures, save_pictures
from scripts.demo.processes import Processes, Running
from scripts.demo.profiles import measured_places, shipped_places
from scripts.demo.settings import (
    CU_SHEET,
    MEMORY_GB,
    MODEL,
    PRICE_SHEET,
    Schedule,
    Settings,
    draw_schedule,
)
from scripts.demo.simulating import start_simulating, tell_alternatives, with_simulated
from scripts.demo.summary import (
    ColdStart,
    Money,
    Outcome,
    PlanCause,
    Run,
    all_function_cost,
    failures,
    summarise,
)
from scripts.demo.watch import Batch, PlanSeen, Sample, Watch, write_batches

START_LIMIT_S = 120.0
WARM_LIMIT_S = 600.0
_ANSWERS_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Results of one replay; all times are seconds from its start.

    Attributes:
        outcomes: outcomes of its requests.
        samples: states of the daemon during the replay.
        batches: its batches.
        plans: the plans up to its end.
        wall_s: seconds to the last answer.
        warning: a sentence if the client was late with sending; otherwise empty.
    """

    outcomes: Sequence[Outcome]
    samples: Sequence[Sample]
    batches: Sequence[Batch]
    plans: Sequence[PlanSeen]
    wall_s: float
    warning: str


class Demo:
    """Demo; `run` carries it out.

    Args:
        settings: settings of the demo.
        processes: starts and stops processes.
        console: shows progress and results.
    """

    def __init__(self, settings: Settings, processes: Processes, console: Console) -> None:
        self._settings = settings
        self._processes = processes
        self._console = console
        self._pictures: list[Picture] = []
        self._alone: Probabilities = np.empty((0, 0), np.float32)
        self._instances = WarmInstances(0, 0)

    def run(self) -> list[str]:
        """Runs the demo and writes its files; returns sentences that say why it failed, none if it did not.

        Raises:
            DemoError: a process did not start, or ended.
        """
        settings = self._settings
        if settings.emulate:
            self._plan_instances(settings.emulate, settings.function_emulate or "")
        endpoint_process, edge_process = self._start_endpoint(), self._start_edge()
        self._draw_pictures()
        places, endpoint = self._wait_for_backends(endpoint_process, edge_process)
        settings = self._settings
        watch = Watch(self._start_daemon(places))
        before = endpoint.usage()
        schedule = draw_schedule(settings, pictures=len(self._pictures))
        simulating = start_simulating(
            self._processes, settings, places, self._instances, schedule, item_bytes=self._picture_bytes()
        )
        measured = self._replay("client", schedule, watch, show=not settings.quiet)
        used = endpoint.usage().since(before)
        cold = self._cold_start(watch, endpoint, latency_model(places.edge_profile))
        run = self._with_alternatives(self._as_run(measured, used, cold, places), used, simulating)
        return self._write(run, measured)

    def _plan_instances(self, edge_profile: str, function_profile: str) -> None:
        """Takes over the planner's proposal of warm instances, unless the settings name a number."""
        with self._doing("planning how many instances to keep warm") as tell:
            self._instances = plan_instances(
                self._settings, edge_profile=edge_profile, function_profile=function_profile
            )
            self._settings = planned(self._settings, self._instances)
            tell(str(self._settings.provisioned))
        warning = memory_warning(self._settings.provisioned, read_meminfo())
        if warning:
            self._console.print(f"[yellow]{warning}[/yellow]")

    def _start_endpoint(self) -> Running:
        settings = self._settings
        path = configuration.write(settings.out / "local-fc.toml", configuration.function_endpoint_toml(settings))
        uplink = ("--uplink-mbit-per-s", f"{settings.uplink_mbit_per_s:g}")
        return self._processes.start("local-fc", ["serverless_fn.local_fc", "--config", str(path), *uplink])

    def _start_edge(self) -> Running:
        settings = self._settings
        emulate = ("--emulate", settings.emulate) if settings.emulate else ()
        threads = ("--torch-threads", "1", "--decode-threads", "2")
        options = ("--port", "0", "--model", MODEL, "--log-level", "warning")
        return self._processes.start("edge", ["edge_server", *options, *threads, *emulate])

    def _draw_pictures(self) -> None:
        with self._doing("drawing pictures of held-out digits, and asking the model for each alone") as tell:
            self._pictures = held_out_pictures(on_progress=lambda drawn, all_: tell(f"{drawn} of {all_}"))
            save_pictures(self._pictures, self._settings.out / "pictures")
            self._alone = answers_alone(MODEL, self._pictures)

    def _wait_for_backends(self, endpoint_process: Running, edge_process: Running) -> tuple[Places, Endpoint]:
        with self._doing("starting the edge server and the local Function Compute endpoint"):
            edge = edge_process.wait_for("ready", limit_s=START_LIMIT_S)
            ready = endpoint_process.wait_for("ready", limit_s=START_LIMIT_S)
        endpoint = Endpoint(f"{ready['host']}:{ready['port']}")
        edge_url, address = f"http://{edge['host']}:{edge['port']}", endpoint.address
        self._warm(endpoint, max(1, self._settings.provisioned))
        if self._settings.emulate:
            return shipped_places(self._settings, edge_url=edge_url, function_endpoint=address), endpoint
        with self._doing("measuring edge and function at this machine's true speed"):
            processes, settings = self._processes, self._settings
            places = measured_places(settings, processes, edge_url=edge_url, function_endpoint=address)
        self._plan_instances(places.edge_profile, places.function_profile)
        endpoint.provision(self._settings.provisioned)
        self._warm(endpoint, self._settings.provisioned)
        return places, endpoint

    def _warm(self, endpoint: Endpoint, target: int) -> None:
        with self._doing("starting function instances, kept warm for the burst") as tell:
            endpoint.wait_until_warm(
                target, limit_s=WARM_LIMIT_S, on_progress=lambda warm, all_: tell(f"{warm} of {all_}")
            )

    def _start_daemon(self, places: Places) -> str:
        settings = self._settings
        path = configuration.write(settings.out / "edgeburst.toml", configuration.daemon_toml(settings, places))
        with self._doing("starting the daemon"):
            arguments = ["scheduler.cli", "serve", "--config", str(path)]
            daemon = self._processes.start("daemon", arguments, **configuration.key_variables())
            ready = daemon.wait_for("ready", limit_s=START_LIMIT_S)
        url = f"http://{ready['host']}:{ready['port']}"
        self._console.print(f"the daemon's page: {url}", highlight=False)
        if settings.opens:
            self._console.print(open_page(url, os.environ), highlight=False)
        return url

    def _replay(self, name: str, schedule: Schedule, watch: Watch, *, show: bool) -> Measured:
        """Runs the client in its own process, and observes the daemon meanwhile."""
        settings = self._settings
        folder = settings.out / name
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "schedule.npz", times_s=schedule.times_s, pictures=schedule.pictures)
        seen_before = {batch.batch_id for batch in watch.batches}
        samples_before = len(watch.samples)
        options = {
            "--url": watch.url,
            "--pictures": str(settings.out / "pictures"),
            "--schedule": str(folder / "schedule.npz"),
            "--out": str(folder),
            "--slo-s": f"{settings.slo_s}",
        }
        arguments = [word for option in options.items() for word in option]
        client = self._processes.start(name, ["scripts.demo.client", *arguments])
        self._follow(client, watch, show=show)
        done = client.wait_for("done", limit_s=_ANSWERS_LIMIT_S)
        watch.look()
        start_s = float(done["started_at_s"])
        batches = [each.counted_from(start_s) for each in watch.batches if each.batch_id not in seen_before]
        write_batches(batches, folder / "batches.csv")
        return Measured(
            outcomes=read_outcomes(folder, self._pictures, self._alone),
            samples=[replace(each, at_s=each.at_s - start_s) for each in watch.samples[samples_before:]],
            batches=batches,
            plans=[replace(plan, at_s=plan.at_s - start_s) for plan in watch.plans],
            wall_s=float(done["wall_s"]),
            warning=str(done["warning"]),
        )

    def _follow(self, client: Running, watch: Watch, *, show: bool) -> None:
        """Observes the daemon until the client has ended; shows the live table, and keeps a picture of the burst."""
        started_at_s = float(client.wait_for("started", limit_s=START_LIMIT_S)["at_s"])
        settings = self._settings
        pictured_until_s = 1.9 * settings.phase_s
        pictured: live.View | None = None
        with Live(console=self._console, auto_refresh=False, transient=True) as screen:
            while client.process.poll() is None:
                looked_at_s = time.monotonic()
                watch.look()
                shown = live.view(settings, watch, _progress(client), started_at_s=started_at_s)
                if pictured is None or shown.at_s <= pictured_until_s:
                    pictured = shown
                if show:
                    screen.update(live.render(shown), refresh=True)
                watch.rest(looked_at_s)
        if show and pictured is not None:
            (settings.out / "terminal.svg").write_text(live.as_svg(pictured), encoding="utf-8")

    def _cold_start(self, watch: Watch, endpoint: Endpoint, edge_latency: LatencyModel) -> ColdStart:
        with self._doing("showing a cold start: no warm instance, and a burst beyond the edge"):
            endpoint.let_go(limit_s=START_LIMIT_S)
            there, before, booked_before_cny = len(endpoint.instances()), endpoint.usage(), watch.look().spent_cny
            schedule = burst(self._settings, edge_latency=edge_latency, pictures=len(self._pictures))
            measured = self._replay("cold-start", schedule, watch, show=False)
            booked_cny = watch.settled(limit_s=_ANSWERS_LIMIT_S).spent_cny - booked_before_cny
            return cold_start(
                measured.outcomes,
                measured.batches,
                instances_started=len(endpoint.instances()) - there,
                metered_cny=endpoint.usage().since(before).active.get(PRICE_SHEET, 0.0),
                booked_cny=booked_cny,
            )

    def _with_alternatives(self, run: Run, used: Usage, simulating: Running) -> Run:
        with self._doing("simulating other policies with the same arrivals"):
            return with_simulated(
                run, simulating, self._settings, kept_s=_kept_s(used, self._settings), item_bytes=self._picture_bytes()
            )

    def _picture_bytes(self) -> float:
        return float(np.mean([len(picture.data) for picture in self._pictures]))

    def _as_run(self, measured: Measured, used: Usage, cold: ColdStart, places: Places) -> Run:
        settings, sheets = self._settings, {name: load_sheet(name) for name in (PRICE_SHEET, CU_SHEET)}
        all_function = all_function_cost(
            len(measured.outcomes),
            latency=latency_model(places.function_profile),
            price=sheets[PRICE_SHEET].tier_price(memory_gb=MEMORY_GB),
            slo_s=settings.slo_s,
            item_bytes=self._picture_bytes(),
            bytes_per_s=settings.uplink_bytes_per_s,
        )
        idle_s = max(0.0, self._instances.all_function * _kept_s(used, settings) - all_function.busy_s)
        idle_per_s = sheets[PRICE_SHEET].idle_per_s(memory_gb=MEMORY_GB)
        money = Money(
            cost_cny=used.active.get(PRICE_SHEET, 0.0),
            # The provisioned instances were started before the measured part, and are metered there.
            cost_booked_cny=sum(batch.cost_cny for batch in measured.batches) - measured.samples[-1].provisioning_cny,
            cost_all_function_cny=all_function.cost,
            provisioned_all_function=self._instances.all_function,
            provisioned_idle_all_function_cny=idle_s * idle_per_s,
            provisioned_idle_cny=used.provisioned_idle.get(PRICE_SHEET, 0.0),
            cu_usd=used.active.get(CU_SHEET, 0.0),
            provisioned_idle_usd=used.provisioned_idle.get(CU_SHEET, 0.0),
        )
        return Run(
            outcomes=measured.outcomes,
            slo_s=settings.slo_s,
            steps_s=settings.steps_s,
            plans=[PlanCause(plan.at_s, plan.cause, plan.detail) for plan in measured.plans],
            money=money,
            price_sheets={name: _provenance(sheet) for name, sheet in sheets.items()},
            cold_start=cold,
            wall_s=measured.wall_s,
            emulated=emulated_sentences(settings),
            seed=settings.seed,
            provisioned=settings.provisioned,
            client_warning=measured.warning,
        )

    def _write(self, run: Run, measured: Measured) -> list[str]:
        settings = self._settings
        summary = summarise(run)
        found = failures(summary)
        _write_text(settings.out / "summary.json", json.dumps(summary, indent=2) + "\n")
        picture = settings.out / "timeline.png"
        timeline.draw(
            timeline.Timeline(
                outcomes=measured.outcomes,
                samples=measured.samples,
                plans=run.plans,
                slo_s=settings.slo_s,
                duration_s=settings.duration_s,
                emulated=settings.emulate is not None,
            ),
            picture,
        )
        page = report.page(summary, failures=found, plans=measured.plans, timeline_png=picture.read_bytes())
        _write_text(settings.out / "report.html", page)
        self._tell_result(summary)
        return found

    def _tell_result(self, summary: Mapping[str, Any]) -> None:
        table = Table.grid(padding=(0, 2))
        cold = report.cold_start_sentence(summary["cold_start"])
        emulated = "\n".join(summary["emulated"])
        for row in (*report.figure_rows(summary), *report.money_rows(summary), ("cold start", cold)):
            table.add_row(*row)
        table.add_row("emulated", emulated)
        self._console.print(table, highlight=False)
        tell_alternatives(self._console, summary)

    @contextmanager
    def _doing(self, what: str) -> Iterator[Any]:
        """Shows what is being done and its progress; yields a function that sets the progress."""
        if self._settings.quiet:
            yield lambda _text: None
            return
        began_at_s = time.monotonic()
        with self._console.status(what) as status:
            yield lambda text: status.update(f"{what}: {text}")
        self._console.print(f"[dim]{time.monotonic() - began_at_s:6.1f} s[/dim]  {what}", highlight=False)


def emulated_sentences(settings: Settings) -> list[str]:
    """Returns sentences on the emulated parts."""
    endpoint = (
        "Function Compute is a local endpoint on this machine that runs each function instance as a process and meters"
        f" as the provider bills; its uplink is capped at {settings.uplink_mbit_per_s:g} Mbit/s, shared by all"
        " connections, and only function traffic uses it."
    )
    if settings.emulate is None:
        return [endpoint]
    edge, function = load_profile(settings.emulate), load_profile(settings.function_emulate or "")
    return [
        f"The edge server predicts for real on this machine's CPU, and each batch of b pictures is then held back until"
        f" {edge.alpha_s:g} + {edge.beta_s:g} b seconds are over: the published fit of profile {edge.name}"
        f" ({edge.date}), which is optimistic for batches below 8.",
        f"Functions predict for real too, and are held back to {function.alpha_s:g} + {function.beta_s:g} b seconds:"
        f" the published fit of profile {function.name} ({function.date}).",
        endpoint,
    ]


def _kept_s(used: Usage, settings: Settings) -> float:
    """Returns for how many seconds the provisioned instances were kept warm during the measured part."""
    return (used.provisioned_idle_s + used.billed_s) / settings.provisioned


def _progress(client: Running) -> dict[str, Any]:
    found = [event for event in client.events() if event["event"] == "progress"]
    return found[-1] if found else {}


def _provenance(sheet: PriceSheet) -> dict[str, str]:
    return {"currency": sheet.currency, "source": sheet.source, "date": sheet.date, "note": sheet.note}


def _write_text(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
