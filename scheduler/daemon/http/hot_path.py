"""What is asked often: the checks of a request for inference before its body is read, and its work after that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from multidict import MultiMapping
from yarl import URL

from scheduler.daemon.http.admission import INFER, check_host
from scheduler.daemon.http.classify import Question
from scheduler.daemon.http.cors import marks
from scheduler.daemon.http.inference import Inference, Write
from scheduler.daemon.http.picture_body import check_content_type
from scheduler.daemon.http.request_head import Head, HeadFields, Target
from scheduler.daemon.ingress.access import Caller, Use
from scheduler.daemon.ingress.checks import known_card
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.peers import FORWARDED_HEADER
from scheduler.daemon.ingress.service import InferenceService
from scheduler.wire import WireError
from scheduler.wire.trace_context import PARENT_HEADER, STATE_HEADER, trace_of

_PARENT, _STATE, _FORWARDED = PARENT_HEADER.lower(), STATE_HEADER.lower(), FORWARDED_HEADER.lower()
_Known = tuple["str | None", "str | None", "str | None", int]


@dataclass(slots=True)
class Endpoint:
    """The two ends of a connection, and which caller its last request was found to be from."""

    peer: str
    """The client's address; empty: a Unix socket."""
    unix: bool = False
    asked_address: str = ""
    """That of this host."""
    port: int | None = None
    """The port of this host; None: a Unix socket."""
    known: _Known | None = None
    """From what the caller was found."""
    caller: Caller = Caller()


@dataclass(slots=True)
class Serving:
    """A request that is let in."""

    head: Head
    card: ModelCard
    caller: Caller
    asked: Question | None
    """What it asks of a picture; None: it is one of the Open Inference Protocol."""
    use: Use | None

    def take_back(self) -> None:
        """Counts it not at all: another reader lets it in or refuses it."""
        if self.use is not None:
            self.use.left += 1.0
        self.end()

    def end(self) -> None:
        """Counts it no longer as its token's."""
        if self.use is not None:
            self.use.running -= 1
            self.use = None


class HotPath:
    """Requests for inference over connections of our own."""

    def __init__(self, service: InferenceService, inference: Inference) -> None:
        """Stores what answers."""
        self.service = service
        self._inference = inference

    def admitted(self, head: Head, target: Target, end: Endpoint) -> Serving | None:
        """Returns a request that is let in; None where aiohttp shall have it, to serve it or to say why not."""
        service = self.service
        if service.read_port is not None and end.port == service.read_port:
            return None
        try:
            card = known_card(service.cards, target.model, target.version)
            caller = self._caller(head, end)
            asked = None
            if target.query is not None:
                check_content_type(head.by_name.get("content-type", ""))
                query = _query(target.query)
                asked = self._inference.question(card, query, HeadFields(head.by_name))
            return Serving(head, card, caller, asked, service.access.begin(caller))
        except (Rejected, WireError, ValueError):
            return None

    async def serve(self, serving: Serving, body: bytes | memoryview, write: Write) -> None:
        """Writes the answer to a request whose last byte has just arrived.

        Raises:
            Refused: it has none.
            Rejected, WireError: it cannot be served as it is.
            ConnectionError: its client has gone.
        """
        received_at_s = self.service.now()
        by_name, card, client = serving.head.by_name, serving.card, serving.caller.key
        if serving.asked is None:
            call, render = await self._inference.infer(
                card, HeadFields(by_name), body, client=client, received_at_s=received_at_s
            )
        else:
            kind = by_name.get("content-type", "")
            call, render = self._inference.classify(
                card, serving.asked, kind, bytes(body), client=client, received_at_s=received_at_s
            )
        parent = by_name.get(_PARENT)
        states = [by_name[_STATE]] if _STATE in by_name else []
        await self._inference.answer(
            call,
            render,
            write,
            caller=serving.caller,
            trace=None if parent is None else trace_of([parent], states),
            accept_encoding=by_name.get("accept-encoding", ""),
        )

    def marks(self) -> list[tuple[str, str]]:
        """Returns the headers that tell caches of answers to requests without an origin."""
        origins = self.service.config.daemon.cors_origins
        return list(marks("", origins)) if origins else []

    def _caller(self, head: Head, end: Endpoint) -> Caller:
        """Returns the caller of a request; most say the same as the one before them on their connection.

        Raises:
            Rejected: it may not ask this.
        """
        by_name, service = head.by_name, self.service
        access = service.access
        host, secret, forwarded = by_name["host"], by_name.get("authorization"), by_name.get(_FORWARDED)
        known = (host, secret, forwarded, access.generation)
        if known == end.known:
            return end.caller
        if end.unix:
            caller = access.operator()
        else:
            check_host(host, service.hosts, asked_address=end.asked_address)
            peer = access.peers.key(end.peer, () if forwarded is None else (forwarded,))
            caller = access.caller([] if secret is None else [secret], peer=peer)
        caller.check(INFER)
        end.known, end.caller = known, caller
        return caller


@lru_cache(maxsize=256)
def _query(text: str) -> MultiMapping[str]:
    """Returns the values of a query, as aiohttp reads them."""
    return URL.build(path="/", query_string=text, encoded=True).query
