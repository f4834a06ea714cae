"""The requests of every protocol, from a checked call to its counted end, and whether the daemon can serve them."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from scheduler.daemon.calls import Answer, InferenceCall, Refused
from scheduler.daemon.clocks import ClockWatch
from scheduler.daemon.config.config import Config
from scheduler.daemon.host_metrics import HostMetrics
from scheduler.daemon.ingress.access import Access, known_hosts, tokens_of
from scheduler.daemon.ingress.body_limits import BodyLimits
from scheduler.daemon.ingress.errors import client_error
from scheduler.daemon.ingress.large_json import LargeJson
from scheduler.daemon.ingress.model_metadata import ModelCard, model_cards
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.ingress.pictures import PictureShares
from scheduler.daemon.ingress.shares import Place, Shares
from scheduler.daemon.ingress.unmeasured import Unmeasured
from scheduler.daemon.model_config import planned_config
from scheduler.daemon.model_repository import repository_index
from scheduler.daemon.telemetry import CANCELLED, FAULT, Telemetry
from scheduler.domain.errors import ConfigError, EdgeburstError, RefusalKind
from scheduler.domain.requests import Backend
from scheduler.wire import WireError

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)


class InferenceService:
    """One for all protocols. The daemon sets `ready` when everything else has started."""

    def __init__(self, parts: DaemonParts, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        """Stores its parts.

        Args:
            parts: the parts of the daemon that requests reach.
            config: limits, models and tokens.
            environ: the environment that holds its secrets.
        """
        self.ready = False
        self.read_port: int | None = None
        """Port of the listener for read-outs; None: they have none of their own."""
        self.grpc_address = ""
        """HOST:PORT of the gRPC listener; empty: there is none."""
        self.bodies = BodyLimits()
        self.large_json = LargeJson()
        self.shares = Shares()
        self.pictures = PictureShares(parts.runner.now)
        self.clocks = ClockWatch()
        host = HostMetrics(_version(), ready=lambda: self.ready and not self.draining, clocks=self.clocks)
        self.telemetry = Telemetry(
            parts.status, self.backends, parts.counters, parts.feed.counting, parts.batch_metrics, host
        )
        self.config = config
        self.cards: Mapping[str, ModelCard] = {}
        self.access = Access(parts.runner.now)
        self.hosts: frozenset[str] = frozenset()
        """Names by which clients may call it, beside those of loopback; "*": any."""
        self._environ = environ
        self._parts = parts
        parts.feed.ready = lambda: self.ready
        self._runner = parts.runner
        self.now = parts.runner.now
        """Returns the runner's monotonic seconds."""
        self.unmeasured = Unmeasured(clock=parts.runner.now, why=parts.why_unmeasured)
        self.reload(config)

    def reload(self, config: Config) -> None:
        """Uses another configuration for new requests; requests that have begun end under the old one."""
        self.config = config
        self.cards = model_cards(config)
        self.unmeasured.reload(config)
        is_open = config.daemon.open or not config.tokens
        self.access.configure(tokens_of(config, self._environ), is_open=is_open)
        self.hosts = known_hosts(config)
        classes = {name: card.classes.values() for name, card in self.cards.items()}
        self.telemetry.configure(classes, [tenant.name for tenant in config.tenants])
        with suppress(ConfigError):  # of a part that is checked where it is used
            self._parts.feed.reload(config.engine_settings(), version=_version(), config=str(config.path))
        self.access.peers.trust(config.daemon.trusted_proxies)
        self.pictures.client_pixels = config.daemon.client_pixels
        self.shares.max_requests = config.engine.queue_max_requests
        self.shares.max_bytes = config.engine.queue_max_bytes
        self.bodies.body_limit_bytes = config.daemon.body_limit_bytes
        # Bodies that are arriving are not in the queue yet: they may take as much memory again, and one always fits.
        self.bodies.total_limit_bytes = max(config.engine.queue_max_bytes, config.daemon.body_limit_bytes)

    @property
    def draining(self) -> bool:
        """Whether the daemon stops and accepts no more calls."""
        return self._runner.draining

    def backends(self) -> tuple[str, ...]:
        """Returns the names of the backends that are configured."""
        sections = ((Backend.EDGE, self.config.edges), (Backend.FUNCTION, self.config.function))
        return tuple(backend.value for backend, section in sections if section)

    def not_ready(self, model: str = "") -> str:
        """Returns why requests should not be sent now, in one sentence; empty if they may be.

        Args:
            model: that the requests are for; empty: any.
        """
        if self._runner.draining:
            return "the daemon is stopping and accepts no more requests; send them again later"
        if not self.ready:
            return "the daemon is starting; ask again in a moment"
        if self.backends() and not self._backends_up():
            return f"no backend answers now ({' and '.join(self.backends())}); ask again in a moment"
        if model and not self._model_up(model):
            return f"no backend answers with model {model!r} now; ask again in a moment"
        return ""

    def _model_up(self, model: str) -> bool:
        """Returns whether the engine sends a model's requests to at least one backend that serves it."""
        engine = self._parts.status().get("engine")
        rows = engine.get("models_up", ()) if isinstance(engine, dict) else ()
        sides = [row[side] for row in rows if row["model"] == model for side in ("edge_up", "function_up")]
        return not any(up is False for up in sides) or any(sides)

    def _backends_up(self) -> bool:
        """Returns whether the engine uses at least one configured backend."""
        engine = self._parts.status().get("engine")
        return not isinstance(engine, dict) or any(engine.get(f"{name}_up", True) for name in self.backends())

    def model_config(self, card: ModelCard) -> dict[str, Any]:
        """Returns a model's configuration as Triton shows it."""
        limits, largest = self._parts.limits.of(card.name), self.config.engine.queue_max_requests
        return planned_config(card, self._parts.plan(), limits, max_queue_size=largest)

    def statistics(self, models: Iterable[str]) -> dict[str, Any]:
        """Returns the statistics of models as Triton shows them."""
        ahead_s = datetime.now(timezone.utc).timestamp() - self.now()
        return self._parts.counters.report(models, wall_ahead_s=ahead_s)

    def repository_index(self, *, ready_only: bool) -> list[dict[str, str]]:
        """Returns the index of the models, or of those that can be asked now, as Triton shows it."""
        return repository_index({name: self.not_ready(name) for name in self.cards}, ready_only=ready_only)

    async def answer(self, call: InferenceCall) -> Answer:
        """Submits a call and returns its answer, which `delivered` or `lost` then counts.

        Raises:
            Refused: there is no answer; it is counted.
            asyncio.CancelledError: the client does not need the answer any more; it is counted.
        """
        self.telemetry.arrived(call)
        place = self.shares.place(call.client, call.body_bytes)
        try:
            return await self._submitted(call, place)
        except Refused as error:
            refusal = error.refusal
            self.telemetry.refused(
                call, refusal.kind.value, self.now(), reason=refusal.reason, request_id=error.request_id
            )
            raise
        except asyncio.CancelledError:
            self.lost(call)
            raise
        except Exception:
            self.telemetry.refused(call, FAULT, self.now())
            raise
        finally:
            place.end()

    async def _submitted(self, call: InferenceCall, place: Place) -> Answer:
        """Submits a call once its client has room for it, and while no other client needs that room.

        Raises:
            Refused: there is no answer.
            asyncio.CancelledError: the client does not need the answer any more.
        """
        try:
            if not self.shares.is_full(call.body_bytes):
                self.shares.take(place)
            elif (refusal := await self.shares.make_room(place)) is not None:
                raise Refused(refusal)
            if self.unmeasured.any and self.unmeasured.holds(call):
                await self.unmeasured.wait(call)
            self.pictures.seen(call.client)
            return await (self._with_pictures(call) if call.picture_work else self._runner.submit(call))
        except asyncio.CancelledError:
            if place.caught():
                raise Refused(self.shares.refusal(place.key)) from None
            raise

    async def _with_pictures(self, call: InferenceCall) -> Answer:
        """Submits a call when its client's turn has come to have so much decoded."""
        left_s = call.received_at_s + self.slo_s(call) - self.now()
        refusal = await self.pictures.begin(call.client, call.picture_work, limit_s=left_s)
        if refusal is not None:
            raise Refused(refusal)
        try:
            return await self._runner.submit(call)
        finally:
            self.pictures.end(call.client, call.picture_work)

    @contextmanager
    def delivery(self, call: InferenceCall) -> Iterator[None]:
        """Counts the end of an answered call that cannot be told its answer: one that cannot be rendered, or written.

        `delivered` counts the others, after it.
        """
        try:
            yield
        except BaseException as error:
            self.undelivered(call, error)
            raise

    def undelivered(self, call: InferenceCall, error: BaseException) -> None:
        """Counts the end of such a call, for that reason."""
        if isinstance(error, (ConnectionError, asyncio.CancelledError)):
            self.lost(call)  # the client closed the connection before its answer was written
        elif isinstance(error, (EdgeburstError, WireError)):
            kind = RefusalKind.BAD_REQUEST if client_error(error).status < 500 else RefusalKind.BACKEND
            self.telemetry.refused(call, kind.value, self.now())
        else:
            self.telemetry.refused(call, FAULT, self.now())

    def delivered(self, call: InferenceCall, answer: Answer, *, latency_s: float) -> None:
        """Counts an answer that has just been written, `latency_s` after the last byte of its request."""
        back_s = max(0.0, self.now() - answer.read_at_s)
        own_latency_s = self._parts.own_latency.add(answer.in_s, answer.out_s, back_s)
        slo_s = self.slo_s(call)
        self.telemetry.answered(call, answer, latency_s=latency_s, slo_s=slo_s, own_latency_s=own_latency_s)

    def lost(self, call: InferenceCall) -> None:
        """Counts a call that its client has given up."""
        self.telemetry.refused(call, CANCELLED, self.now())

    def slo_s(self, call: InferenceCall) -> float:
        """Returns the latency that a call allows; infinity where a reload has removed its class."""
        if call.timeout_s is not None:
            return call.timeout_s
        card = self.cards.get(call.model)
        known = card.classes.get(call.class_name) if card else None
        return known.slo_s if known else float("inf")


def server_metadata() -> dict[str, object]:
    """Returns the server's metadata in the form of the Open Inference Protocol."""
    return {"name": "edgeburst", "version": _version(), "extensions": list(_EXTENSIONS)}


def _version() -> str:
    try:
        return importlib.metadata.version("edgeburst")
    except importlib.metadata.PackageNotFoundError:
        return "source"
