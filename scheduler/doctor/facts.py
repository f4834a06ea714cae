"""What is found out about the hosts, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.domain.batches import FailureKind


@dataclass(frozen=True, slots=True)
class Calls:
    """Real calls with one item each."""

    seconds: tuple[float, ...] = ()
    """What a profile predicts: of an edge the whole call, of a function its service."""
    problem: str = ""
    """Why there are no more; empty: nothing."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """The installed unit of the daemon."""

    path: str
    open_files: int | None
    """Its LimitNOFILE; None: systemd's own."""
    state_folders: tuple[str, ...]
    """Where it may write beside its logs: StateDirectory and ReadWritePaths."""
    program: str
    """Of ExecStart."""
    program_is_there: bool
    config: str
    """Of --config in ExecStart; empty: none is named."""
    confined: bool
    """Whether everything else is read-only to it (ProtectSystem=strict)."""


@dataclass(frozen=True, slots=True)
class StateFacts:
    """The state folder."""

    folder: str
    problem: str
    """Why this user cannot write there; empty: it can."""
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The client host."""

    version: str
    python: str
    open_files: int
    """Limit of this process."""
    proxy: str
    """The variable of a proxy that calls of functions follow; empty: none."""
    state: StateFacts | None
    unit: UnitFacts | None
    daemon: str
    """What a running daemon says of itself; empty: none answers."""


@dataclass(frozen=True, slots=True)
class EdgeModelFacts:
    """A model on an edge server."""

    model: str
    problem: str
    """Why the server does not describe it; empty: it does."""
    missing: bool = False
    """Whether it says that it has no such model."""
    served: tuple[str, ...] = ()
    """The models that it has, where it says so."""
    ready: bool | None = None
    max_batch: int | None = None
    identity: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    calls: Calls | None = None
    binary_refused: bool = False
    """Whether it answers in JSON, and not in the configured form, which is binary."""


@dataclass(frozen=True, slots=True)
class EdgeFacts:
    """An edge server."""

    name: str
    where: str
    url: str
    table: str
    """Its table in the configuration."""
    problem: str
    """Why it cannot be asked; empty: it can."""
    status: int = 0
    """Of its readiness; 0: no answer."""
    server: str = ""
    version: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    rtt_s: float | None = None
    ahead_s: float | None = None
    """By how much this host's clock is ahead of its answer's Date."""
    models: tuple[EdgeModelFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that the provider refused or did not answer."""

    kind: FailureKind
    status: int
    code: str
    said: str
    message: str


@dataclass(frozen=True, slots=True)
class TierFacts:
    """A function that serves a tier."""

    model: str
    tier: str
    function: str
    qualifier: str
    described: Mapping[str, object] | None = None
    """The function at its qualifier in the provider's fields."""
    not_described: Refused | None = None
    function_is_there: bool = False
    """Where the qualifier is not: whether the function itself is."""
    ahead_s: float | None = None
    calls: Calls | None = None
    not_called: Refused | None = None
    identity: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Function and qualifier."""
        return f"{self.function}:{self.qualifier}"


@dataclass(frozen=True, slots=True)
class UplinkFacts:
    """The uplink to the functions."""

    answered: bool
    rtt_s: float | None
    bytes_per_s: float | None
    """None: too fast to measure, or not measured."""
    request_bytes: Mapping[str, int]
    """By model: size of a call with one item."""


@dataclass(frozen=True, slots=True)
class Permission:
    """A permission of the access key."""

    action: str
    needed_for: str
    refused: str = ""
    """The provider's answer; empty: it is granted."""


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """The function account."""

    host: str
    key: str
    """In words: where the access key is."""
    tiers: tuple[TierFacts, ...]
    uplink: UplinkFacts | None
    permissions: tuple[Permission, ...]
