"""From a configuration to the running parts: the backends, and the runner with its engine and planner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from scheduler.client_access import ClientAccess
from scheduler.control import Control
from scheduler.daemon.backends.batch_send import Clock, InferenceBackend
from scheduler.daemon.backends.edge import EdgeBackend
from scheduler.daemon.backends.edge_servers import EdgeServers
from scheduler.daemon.backends.function import FunctionBackend, FunctionName
from scheduler.daemon.backends.uplink_meter import UplinkMeter
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.credentials import edge_access, read_access_key
from scheduler.daemon.explain.file import ExplanationFile
from scheduler.daemon.explain.requests import Explanations
from scheduler.daemon.history.feed import Feed
from scheduler.daemon.history.figures import Sources
from scheduler.daemon.ingress.model_metadata import model_cards
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.limits import ModelLimits
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.daemon.model_trials import LEAST_LIMIT_S, LIMIT_FACTOR, ModelTrials, Trial
from scheduler.daemon.own_latency import OwnLatency
from scheduler.daemon.recording.files import RecordingFolder
from scheduler.daemon.recording.recorder import Recorder
from scheduler.daemon.records import BatchRing
from scheduler.daemon.runner import PlanMaker, Runner
from scheduler.daemon.served_models import ServedModels
from scheduler.daemon.shadow.shadow import Shadow
from scheduler.daemon.spans import NoTracer, Tracer
from scheduler.daemon.state.borrowed import Borrower
from scheduler.daemon.state.keeper import WITHOUT, StateKeeper
from scheduler.daemon.status import DaemonStatus, PlanHistory
from scheduler.daemon.threads import DaemonThreads
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.memory import Part
from scheduler.domain.messages import ComputePlan
from scheduler.domain.plans import EngineSettings, Plan
from scheduler.domain.requests import FUNCTIONS, Backend, Place
from scheduler.engine import Engine
from scheduler.fc_client import Account
from scheduler.planner.site.plan import best_plan
from scheduler.sdk_connections import open_sockets


@dataclass(frozen=True, slots=True)
class EdgeAddress:
    """How an edge server is called."""

    url: str
    connect_timeout_s: float
    tensors: str
    models: tuple[tuple[str, frozenset[str]], ...]
    """The models to ask it for, each with its inputs that are pictures."""
    access: ClientAccess
    """What it is shown."""


@dataclass(frozen=True, slots=True)
class Places:
    """The addresses of the backends and how they are called; a reload that leaves them equal needs no new backend."""

    edges: Mapping[str, EdgeAddress]
    """By name."""
    account: Account | None
    functions: tuple[FunctionName, ...]
    max_in_flight: int
    """Maximum of function calls at one time."""

    def changed(self, before: "Places") -> tuple[Place, ...]:
        """Returns the places whose backends have to be made, for the first time or anew."""
        edges = tuple(Place.edge(name) for name, edge in self.edges.items() if before.edges.get(name) != edge)
        ours = (self.account, self.functions, self.max_in_flight)
        theirs = (before.account, before.functions, before.max_in_flight)
        return (*edges, FUNCTIONS) if self.account is not None and ours != theirs else edges

    def gone(self, before: "Places") -> tuple[Place, ...]:
        """Returns the places that there are no more."""
        return tuple(place for place in before.all() if place not in self.all())

    def all(self) -> tuple[Place, ...]:
        """Returns the edge servers, and FUNCTIONS if there are any."""
        edges = tuple(map(Place.edge, self.edges))
        return edges if self.account is None else (*edges, FUNCTIONS)


def places(config: Config, environ: Mapping[str, str]) -> Places:
    """Returns the places of a configuration's backends.

    Raises:
        ConfigError: a secret that the configuration refers to is missing.
    """
    account = None
    if config.function is not None:
        section = config.function
        key = read_access_key(config, environ)
        account = Account(section.region, key, section.endpoint, section.protocol)
    tiers = (tier for model in config.models for tier in model.tiers)
    functions = tuple(sorted({FunctionName(tier.function, tier.qualifier) for tier in tiers}))
    cards = model_cards(config).values()
    pictures = tuple((card.name, frozenset(spec.name for spec in card.inputs if spec.picture)) for card in cards)
    edges = {
        edge.name: EdgeAddress(
            edge.url,
            edge.connect_timeout_s,
            edge.tensors,
            tuple((model, inputs) for model, inputs in pictures if edge.serves(model)),
            edge_access(config, edge, environ),
        )
        for edge in config.edges
    }
    return Places(edges, account, functions, config.engine.max_function_in_flight)


def make_backend(
    place: Place,
    where: Places,
    clock: Clock,
    servers: EdgeServers | None = None,
    meter: UplinkMeter | None = None,
) -> InferenceBackend | None:
    """Returns a backend, None where it is not configured; opens no connection.

    Args:
        place: an edge server, or FUNCTIONS.
        where: all places.
        clock: monotonic seconds.
        servers: what is known of edge servers; None: nothing.
        meter: measures the uplink to the functions; None: nothing does.
    """
    account = where.account
    if place.backend is Backend.EDGE and (edge := where.edges.get(place.name)) is not None:
        return EdgeBackend(
            url=edge.url,
            connect_timeout_s=edge.connect_timeout_s,
            clock=clock,
            tensors=edge.tensors,
            models=dict(edge.models),
            servers=servers,
            access=edge.access,
            name=place.name,
        )
    if place == FUNCTIONS and account is not None:
        return FunctionBackend(
            account=account,
            functions=where.functions,
            max_in_flight=where.max_in_flight,
            clock=clock,
            meter=meter,
        )
    return None


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of a daemon, connected."""

    runner: Runner
    explanations: Explanations
    note_recalled: Callable[[], None]
    """Notes what the engine has taken up of an earlier process, after its first call."""
    parts: DaemonParts
    """What the handlers of requests use of them."""
    served: ServedModels
    """What places report of the models."""
    servers: EdgeServers
    """What is known of edge servers."""
    meter: UplinkMeter
    """Measures the uplink to the functions."""
    trials: ModelTrials
    """Tries the edge's models."""
    recorder: Recorder
    """Records arrivals."""


def assemble(
    config: Config,
    settings: EngineSettings,
    where: Places,
    *,
    clock: Clock,
    state: StateKeeper | None = None,
    borrower: Borrower | None = None,
    shadow: Shadow | None = None,
) -> Assembly:
    """Returns the runner and everything around it; opens no connection.

    Args:
        config: the configuration.
        settings: its settings of the engine.
        where: its backends.
        clock: monotonic seconds, with the same origin as the event loop's `time`.
        state: what outlives the process; None: nothing does.
        borrower: leases money from another daemon; None: it is leased from `state`, if there is one.
        shadow: hears the engine; None: nothing does.
    """
    servers, meter, counters = EdgeServers(), UplinkMeter(sockets=open_sockets, clock=clock), InferenceCounters()
    control, ring, plans = _control(settings, state, servers), DecisionRing(settings.explain_ring), PlanHistory()
    engine = (Engine if shadow is None else shadow.live_engine)(settings, control, ring)
    explanations, note = _explanations(config, engine, ring, clock), partial(_note, state, control, engine)
    batches, served, own_latency = BatchRing(config.daemon.records, counters), _served(config, state), OwnLatency()
    recorder = _recorder(config, settings, clock)
    trials = ModelTrials(edge_trials(config), heard=served.answered, clock=clock)
    runner = Runner(
        engine=engine,
        settings=settings,
        backends={at: made for at in where.all() if (made := make_backend(at, where, clock, servers, meter))},
        make_plan=_plan_maker(),
        clock=clock,
        explanations=explanations,
        batches=batches,
        plans=plans,
        answer_reserve_s=config.daemon.answer_reserve_s,
        ledger=state if borrower is None else borrower,
        tracer=_tracer(config, clock),
        trials=trials,
    )
    served.identities.post = meter.post = runner.post
    limits = _connect(state, borrower, recorder, runner=runner, engine=engine, known=lambda: control.saved(clock()))
    status = DaemonStatus(
        runner=runner.statistics,
        engine=lambda: engine.statistics(clock()),
        limits=limits.by_model,
        plans=plans,
        explanations=explanations.status,
        own_latency=own_latency.summary,
        models=served.rows,
        **_told_besides(runner, state, borrower, recorder, shadow),
    )
    parts = DaemonParts(
        runner=runner,
        limits=limits,
        own_latency=own_latency,
        counters=counters,
        plan=plans.latest,
        status=status.report,
        batches=batches.rows,
        explain=explanations,
        why_unmeasured=served.why_unmeasured,
        lend=None if state is None else state.lend,
        batch_metrics=batches.metrics,
        feed=Feed(_sources(status, runner, batches), clock=clock),
        identities=served.identities,
    )
    return Assembly(runner, explanations, note, parts, served, servers, meter, trials, recorder)


def _told_besides(
    runner: Runner, state: StateKeeper | None, borrower: Borrower | None, recorder: Recorder, shadow: Shadow | None
) -> dict[str, Callable[[], Any]]:
    """Returns what tells the status of parts that a daemon may lack, of the edge servers and of recordings."""
    return {
        "edges": lambda: _edge_rows(runner),
        "recording": recorder.status,
        "state": _without_state if state is None else state.status,
        "lender": (lambda: None) if borrower is None else borrower.status,
        "shadow": (lambda: None) if shadow is None else shadow.report,
    }


def _sources(status: DaemonStatus, runner: Runner, batches: BatchRing) -> Sources:
    """Returns what the page's feed asks, once a second: the same as the status, before it is made JSON."""
    return Sources(
        engine=lambda: status.alarms.look(status.engine()),
        runner=runner.statistics,
        plans=status.plans.all,
        batches=batches.newest,
        models=status.models,
        edges=status.edges,
        own_latency=status.own_latency,
        state=status.state,
        shadow=status.shadow,
    )


def _edge_rows(runner: Runner) -> list[dict[str, object]]:
    return [{"name": name, **edge.status()} for name, edge in runner.edges().items()]


def _note(state: StateKeeper | None, control: Control, engine: Engine) -> None:
    if state is not None:
        state.recalled(control.recalled, engine.statistics())


def edge_trials(config: Config) -> dict[Place, dict[str, Trial]]:
    """Returns by edge server how each model that it serves is tried."""
    cards, settings = model_cards(config), config.engine_settings()
    return {
        Place.edge(edge.name): {
            model.name: Trial(
                cards[model.name].inputs,
                cards[model.name].answer,
                max(LEAST_LIMIT_S, LIMIT_FACTOR * latency.predict_s(1)),
            )
            for model in settings.models
            if (latency := model.edge_latency_on(edge.name)) is not None
        }
        for edge in settings.edges
    }


def _tracer(config: Config, clock: Clock) -> Tracer:
    section = config.otel
    if section is None:
        return NoTracer()
    # Imported here: a client host without [otel] needs none of its packages.
    from scheduler.daemon.otel import OtelTracer

    return OtelTracer(
        endpoint=section.endpoint,
        service_name=section.service_name,
        sample_ratio=section.sample_ratio,
        clock=clock,
        wall_clock_ns=lambda: round(datetime.now(timezone.utc).timestamp() * 1e9),
    )


def _control(settings: EngineSettings, state: StateKeeper | None, servers: EdgeServers) -> Control:
    control = Control(settings) if state is None else Control(settings, state.limits, state.memory)
    control.remember_also(servers.remembered())
    return control


def _served(config: Config, state: StateKeeper | None) -> ServedModels:
    served = ServedModels() if state is None else ServedModels(identities=state.identities())
    served.reload(config)
    return served


def _connect(
    state: StateKeeper | None,
    borrower: Borrower | None,
    recorder: Recorder,
    *,
    runner: Runner,
    engine: Engine,
    known: Callable[[], Sequence[Part]],
) -> ModelLimits:
    """Connects what keeps the state, leases money and records with the engine; returns the limits of operators."""
    if recorder.records:
        runner.listen(recorder.hear)

    def left() -> float | None:
        return engine.statistics().leased

    if borrower is not None:
        borrower.connect(post=runner.post, left=left)
    if state is None:
        return ModelLimits(runner.post)
    # What is leased from another daemon is none of the folder's money.
    state.connect(post=runner.post, left=left if borrower is None else lambda: None, known=known)
    return ModelLimits(runner.post, before=state.limits, save=state.save_limits)


def _without_state() -> dict[str, object]:
    return {"folder": None, "up": True, "failures": 0, "message": f"nothing outlives this process: {WITHOUT}"}


def _explanations(config: Config, engine: Engine, ring: DecisionRing, clock: Clock) -> Explanations:
    section, path = config.explain, config.explain_file()
    return Explanations(
        engine.explanation,
        ring=section.ring,
        currency=config.currency(),
        clock=clock,
        wall_clock=lambda: datetime.now(timezone.utc),
        file=None if path is None else ExplanationFile(path, max_bytes=section.max_bytes, files=section.files),
        beside_the_loop=DaemonThreads(limit=1, name="explain").run,
        newest=ring.newest,
    )


def _recorder(config: Config, settings: EngineSettings, clock: Clock) -> Recorder:
    section, path = config.record, config.record_folder()
    folder = None
    if path is not None:
        folder = RecordingFolder(
            path, max_bytes=section.max_bytes, keep_days=section.keep_days, keep_bytes=section.keep_bytes
        )
    return Recorder(folder, settings, clock=clock)


def _plan_maker() -> PlanMaker:
    threads = DaemonThreads(limit=1, name="planner")

    async def make_plan(command: ComputePlan) -> Plan:
        return await threads.run(
            lambda: best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)
        )

    return make_plan
