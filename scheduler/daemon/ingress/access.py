"""Which caller a request comes from and what it may do, for every protocol: tokens, scopes, tenants, rates.

A caller is known by its token or by the daemon's own Unix socket, and by nothing else: a peer's address may be that of
a proxy. Tokens are known by their hashes only. No message repeats anything that a client sent as a secret.
"""

from __future__ import annotations

import hmac
import math
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256

from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.contradictions import ADMIN_TOKEN
from scheduler.daemon.config.secrets import secret_of
from scheduler.daemon.ingress.errors import CHALLENGE_HEADER, RETRY_HEADER, Rejected
from scheduler.daemon.ingress.peers import Peers

MAX_TOKEN_CHARACTERS = 512

_BEARER = re.compile(r"bearer[ \t]+([^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?)[ \t]*", re.IGNORECASE)
_HOW = "send it as the header `Authorization: Bearer TOKEN`"


class Scope(str, Enum):
    """What a caller may do; the values are public words."""

    INFER = "infer"
    READ = "read"
    SPEND = "spend"
    ADMIN = "admin"


ALL = frozenset(Scope)
WITHOUT_TOKEN = frozenset({Scope.INFER, Scope.READ})
"""What callers without a token may do where they may do anything."""


@dataclass(frozen=True, slots=True)
class Caller:
    """From which side a request comes."""

    peer: str = ""
    """Where it is, as `peers` says; empty: a Unix socket. It shares things out and authorises nothing."""
    token: str = ""
    """Name of its token; empty: it has none."""
    scopes: frozenset[Scope] = frozenset()
    tenant: str = ""
    """For which its requests are; empty: it may name one."""

    @property
    def key(self) -> str:
        """By which resources are shared out: one for each token, and one for each address without a token."""
        return f"token {self.token}" if self.token else f"peer {self.peer}" if self.peer else "socket"

    @property
    def sees(self) -> str | None:
        """The token whose requests it may have explained, empty for those without one; None: those of all."""
        return None if Scope.ADMIN in self.scopes else self.token

    def check(self, wanted: frozenset[Scope]) -> None:
        """Checks that it has one of these scopes; `admin` stands for all, and an empty set for what needs none.

        Raises:
            Rejected: it has not.
        """
        if not wanted or Scope.ADMIN in self.scopes or wanted & self.scopes:
            return
        names = " or ".join(scope.value for scope in Scope if scope in wanted)
        if self.token:
            raise Rejected(
                403,
                f"token {self.token} lacks the scope {names}; add it to its `scopes`, or send another token",
                {CHALLENGE_HEADER: f'Bearer error="insufficient_scope", scope="{names}"'},
            )
        socket = ", or ask over the daemon's own socket (`admin_socket`)" if wanted == {Scope.ADMIN} else ""
        raise Rejected(
            401, f"this call needs a token with the scope {names}; {_HOW}{socket}", {CHALLENGE_HEADER: "Bearer"}
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the daemon knows it."""

    name: str
    sha256: bytes = field(repr=False)
    scopes: frozenset[Scope] = frozenset({Scope.INFER})
    tenant: str = ""
    rate_rps: float | None = None
    """Most requests a second, with as many at once as come in a second; None: any number."""
    concurrency: int | None = None
    """Most requests that are not answered; None: any number."""


def tokens_of(config: Config, environ: Mapping[str, str]) -> tuple[Token, ...]:
    """Returns the tokens of a configuration, and that of `admin_token_env` where it is set."""
    tokens = [
        Token(
            name=each.name,
            sha256=bytes.fromhex(each.sha256),
            scopes=frozenset(map(Scope, each.scopes)),
            tenant=each.tenant,
            rate_rps=each.rate_rps,
            concurrency=each.concurrency,
        )
        for each in config.tokens
    ]
    admin = secret_of(config.daemon.admin_token_env, environ)
    if admin:
        tokens.append(Token(ADMIN_TOKEN, sha256(admin.encode("utf-8", "surrogateescape")).digest(), ALL))
    return tuple(tokens)


def known_hosts(config: Config) -> frozenset[str]:
    """Returns the names by which clients may call the daemon, in small letters; "*": any."""
    if config.daemon.hosts:
        return frozenset(name.lower().removesuffix(".") for name in config.daemon.hosts)
    name = socket.gethostname()
    own = {config.daemon.host, name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
    return frozenset(name.lower().removesuffix(".") for name in own if name)


def bearer_of(given: Sequence[str]) -> str | None:
    """Returns the token in the values of the header `Authorization`; None where none of this kind is sent.

    >>> bearer_of(["Bearer abc"]), bearer_of(["bearer  abc "]), bearer_of(["Basic eA=="]), bearer_of([])
    ('abc', 'abc', None, None)

    Raises:
        Rejected: it is sent twice, without a token, or too long.
    """
    if not given or (len(given) == 1 and given[0].strip().partition(" ")[0].lower() not in ("bearer", "")):
        return None
    match = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
    if match is None or len(match[1]) > MAX_TOKEN_CHARACTERS:
        raise Rejected(
            401,
            f"the header Authorization must be sent once, with one token of at most {MAX_TOKEN_CHARACTERS} characters;"
            f" {_HOW}",
            {CHALLENGE_HEADER: 'Bearer error="invalid_request"'},
        )
    return match[1]


class Use:
    """How much of a token's rate and concurrency is used."""

    __slots__ = ("at_s", "left", "running")

    def __init__(self, at_s: float, left: float) -> None:
        self.at_s = at_s
        self.left = left
        self.running = 0


class Access:
    """The callers that are known now, and what they may do; one for all protocols."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Knows no token and lets no caller do anything; `configure` says more.

        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self.peers = Peers()
        """Names callers without a token."""
        self.generation = 0
        """Is another one after each `configure`, so that what was found before may be wrong."""
        self._tokens: Mapping[str, Token] = {}
        self._tenants: frozenset[str] = frozenset()
        self._without_token: frozenset[Scope] = frozenset()
        self._uses: dict[str, Use] = {}

    def configure(self, tokens: Iterable[Token], *, is_open: bool) -> None:
        """Uses other tokens from now on.

        Args:
            tokens: all of them; their names are unlike.
            is_open: whether callers without a token may ask and read.
        """
        self.generation += 1
        self._tokens = {token.name: token for token in tokens}
        self._tenants = frozenset(token.tenant for token in self._tokens.values() if token.tenant)
        self._without_token = WITHOUT_TOKEN if is_open else frozenset()
        self._uses = {name: use for name, use in self._uses.items() if name in self._tokens}

    def caller(self, given: Sequence[str], *, peer: str) -> Caller:
        """Returns the caller of a request that came over a network.

        Args:
            given: the values of its header `Authorization`.
            peer: where it is, as `peers` says.

        Raises:
            Rejected: it sends a token that is not known.
        """
        sent = bearer_of(given) if given and self._tokens else None
        if sent is None:
            return Caller(peer, scopes=self._without_token)
        hashed, found = sha256(sent.encode("utf-8", "surrogateescape")).digest(), None
        for token in self._tokens.values():
            # All of them are compared, each in constant time: how long it takes says nothing about any.
            if hmac.compare_digest(hashed, token.sha256):
                found = token
        if found is None:
            raise Rejected(
                401,
                "the bearer token is wrong; send one whose hash is in a [[token]] of the daemon",
                {CHALLENGE_HEADER: 'Bearer error="invalid_token"'},
            )
        return Caller(peer, found.name, found.scopes, found.tenant)

    @staticmethod
    def operator() -> Caller:
        """Returns the caller over the daemon's own Unix socket, whose file mode is the check."""
        return Caller(scopes=ALL)

    @contextmanager
    def turn(self, caller: Caller) -> Iterator[None]:
        """Counts a request of a caller while it lasts.

        Raises:
            Rejected: its token's rate or concurrency is used up.
        """
        use = self.begin(caller)
        try:
            yield
        finally:
            if use is not None:
                use.running -= 1

    def begin(self, caller: Caller) -> Use | None:
        """Counts a request of a caller; returns what is `running` one less when it ends, None where nothing counts it.

        Raises:
            Rejected: its token's rate or concurrency is used up.
        """
        token = self._tokens.get(caller.token)
        if token is None or (token.rate_rps is None and token.concurrency is None):
            return None
        use = self._uses.setdefault(token.name, Use(self._clock(), math.inf))
        if token.concurrency is not None and use.running >= token.concurrency:
            raise Rejected(
                429,
                f"token {token.name} has {token.concurrency} unanswered requests, which is its `concurrency`;"
                " send this one again later",
                {RETRY_HEADER: "1"},
            )
        self._draw(token, use)
        use.running += 1
        return use

    def _draw(self, token: Token, use: Use) -> None:
        """Takes one request out of what a token's rate has let gather."""
        if token.rate_rps is None:
            return
        now_s, rate_rps = self._clock(), token.rate_rps
        use.left = min(max(1.0, rate_rps), use.left + (now_s - use.at_s) * rate_rps)
        use.at_s = now_s
        if use.left < 1:
            wait_s = max(1, math.ceil((1 - use.left) / rate_rps))
            raise Rejected(
                429,
                f"token {token.name} has sent more than {rate_rps:g} requests a second, which is its `rate_rps`;"
                " send this one again later",
                {RETRY_HEADER: str(wait_s)},
            )
        use.left -= 1

    def of_caller(self, caller: Caller, call: InferenceCall) -> InferenceCall:
        """Returns a call as its caller's: the tenant of a token counts, whatever the request says.

        Raises:
            Rejected: it names a tenant that belongs to another token.
        """
        if caller.tenant:
            return replace(call, owner=caller.token, tenant=caller.tenant)
        if call.tenant in self._tenants and Scope.ADMIN not in caller.scopes:
            raise Rejected(403, f"tenant {call.tenant} has a token of its own; send that one, or name no tenant")
        return replace(call, owner=caller.token) if caller.token else call
