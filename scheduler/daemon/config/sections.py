"""The tables of the configuration file with every key, its type and its range; config.py converts them to settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from scheduler.daemon.config.deploy_sections import DeploySection
from scheduler.daemon.config.edge_sections import Edges, EdgeSection
from scheduler.daemon.config.model_sections import ClassSection, Late, ModelSection, TensorSection, TierSection
from scheduler.daemon.config.section import EnvironmentName, Label, Section
from scheduler.daemon.config.spend_section import SpendSection
from scheduler.domain.plans import EngineSettings

ScopeWord = Literal["infer", "read", "spend", "admin"]


def _changepoint_word(value: object) -> object:
    """Returns the word for true and false, which the key took before it took words; any other value as it is."""
    words = {"True": "native", "true": "native", "False": "off", "false": "off"}
    return words.get(str(value), value) if isinstance(value, bool | str) else value


ChangepointWord = Annotated[Literal["native", "package", "off"], BeforeValidator(_changepoint_word)]

HostName = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+)$", max_length=255)]
Origin = Annotated[str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s@,]+)$", max_length=256)]


def _network(value: str) -> str:
    """Returns an address or network as it is; ValueError if it is none."""
    ip_network(value)
    return value


Proxy = Annotated[str, Field(max_length=64), AfterValidator(_network)]

_ENGINE_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(EngineSettings)}


class DaemonSection(Section):
    """`[daemon]`: the HTTP listener and its limits."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 accepts other hosts."
    )
    port: int = Field(default=8600, ge=0, le=65535, description="TCP port; 0 takes a free port and prints it.")
    body_limit_bytes: int = Field(default=32 * 2**20, ge=1024, le=2**30, description="Largest request body, decoded.")
    max_timeout_s: float = Field(default=3600.0, gt=0, le=86400, description="Longest deadline a client may ask for.")
    drain_limit_s: float = Field(default=30.0, gt=0, le=600, description="Longest that a stop waits for requests.")
    answer_reserve_s: float = Field(
        default=0.01, ge=0, le=1, description="Part of every deadline for reading, deciding and writing the answer."
    )
    read_listen: str = Field(
        default="",
        pattern=r"^((\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):[0-9]{1,5})?$",
        max_length=255,
        description="HOST:PORT of a listener for read-outs and the dashboard, which `port` then answers no more.",
    )
    admin_token_env: EnvironmentName = Field(
        default="",
        description="Environment variable with a bearer token for everything, PUT included; empty: there is none.",
    )
    records: int = Field(
        default=10_000, ge=10, le=1_000_000, description="Number of ended batches that are kept for /v1/batches."
    )
    state: str = Field(
        default="",
        max_length=4096,
        description="Folder for what outlives the process: leased money, estimates, limits; empty: nothing does.",
    )
    late: Late = Field(
        default="refuse",
        description="What happens to requests that no backend can answer in time; classes may differ.",
    )
    admin_socket: str = Field(
        default="",
        max_length=4096,
        description="Unix socket over which this host's operators may do everything; empty: `admin.sock` in systemd's"
        ' RuntimeDirectory or in `state`; "off": none.',
    )
    certificate_file: str = Field(
        default="",
        max_length=4096,
        description="PEM file with the certificate of the listeners, HTTP and gRPC; empty: they speak no TLS.",
    )
    key_file: str = Field(
        default="", max_length=4096, description="PEM file with its key; empty: it is in `certificate_file`."
    )
    client_ca_file: str = Field(
        default="",
        max_length=4096,
        description="PEM file with the authorities of which clients must show a certificate; empty: they need none.",
    )
    open: bool = Field(
        default=False,
        description="Whether callers without a token may ask and read, from wherever they reach the listeners.",
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        max_length=64,
        description="Names in the header Host that are this daemon's, beside localhost and the address that is asked;"
        ' "*": any; empty: `host` and the name of this host.',
    )
    client_pixels: int = Field(
        default=16_000_000,
        ge=1,
        le=2**40,
        description="Pixels of one client's pictures that are decoded at a time while other clients ask too.",
    )
    trusted_proxies: tuple[Proxy, ...] = Field(
        default=(),
        max_length=64,
        description="Addresses or networks of proxies whose X-Forwarded-For says which client a request comes from.",
    )
    cors_origins: tuple[Origin, ...] = Field(
        default=(),
        max_length=64,
        description='Origins of pages whose scripts may ask and read answers, as "https://HOST:PORT"; "*": any page.',
    )

    @property
    def read_address(self) -> tuple[str, int] | None:
        """Host and port of `read_listen`; None without."""
        host, _, port = self.read_listen.rpartition(":")
        return (host.strip("[]"), int(port)) if port else None


class GrpcSection(Section):
    """`[grpc]`: the Open Inference Protocol over gRPC (extra grpc); without this table there is HTTP only."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 accepts other hosts."
    )
    port: int = Field(default=8601, ge=0, le=65535, description="TCP port; 0 takes a free port and prints it.")


class EngineSection(Section):
    """`[engine]`: queue limits, assumptions before measurements, hysteresis; the fields of EngineSettings."""

    queue_max_requests: int = Field(
        default=_ENGINE_DEFAULTS["queue_max_requests"],
        ge=1,
        le=1_000_000,
        description="Maximum of waiting requests; more get 429.",
    )
    queue_max_bytes: int = Field(
        default=_ENGINE_DEFAULTS["queue_max_bytes"],
        ge=1024,
        le=2**40,
        description="Maximum of bytes of waiting bodies; more get 429.",
    )
    max_function_in_flight: int = Field(
        default=_ENGINE_DEFAULTS["max_function_in_flight"],
        ge=1,
        le=1024,
        description="Maximum of function calls at one time, all tiers together.",
    )
    uplink_bytes_per_s: float | None = Field(
        default=_ENGINE_DEFAULTS["uplink_bytes_per_s"],
        gt=0,
        description="Bandwidth to the functions, assumed until it is measured; absent: unlimited.",
    )
    uplink_rtt_s: float = Field(
        default=_ENGINE_DEFAULTS["uplink_rtt_s"], ge=0, le=60, description="Round trip, assumed until it is measured."
    )
    edge_overhead_s: float = Field(
        default=_ENGINE_DEFAULTS["edge_overhead_s"],
        ge=0,
        le=60,
        description="Transfer and decoding added to the edge's service time, until they are measured.",
    )
    plan_expiry_s: float = Field(
        default=_ENGINE_DEFAULTS["plan_expiry_s"], gt=0, description="Age at which a plan ends if requests came since."
    )
    replan_min_interval_s: float = Field(
        default=_ENGINE_DEFAULTS["replan_min_interval_s"], ge=0, description="Shortest time between two plans."
    )
    probe_interval_s: float = Field(
        default=_ENGINE_DEFAULTS["probe_interval_s"], gt=0, description="Idle time after which the uplink is probed."
    )
    failures_to_open: int = Field(
        default=_ENGINE_DEFAULTS["failures_to_open"],
        ge=1,
        description="Failed batches in a row after which a backend is not used until a probe succeeds.",
    )
    reopen_after_s: float = Field(
        default=_ENGINE_DEFAULTS["reopen_after_s"],
        gt=0,
        description="First pause before a failed backend is probed; doubles up to 30 s.",
    )
    changepoints: ChangepointWord = Field(
        default="native",
        description="Which detector finds the changes of rate, bandwidth or service time that lead to a new plan; "
        '"package": by bayesian-changepoint-detection (extra bcd). true is "native", false is "off".',
    )


class TenantSection(Section):
    """`[[tenant]]`: a sender of requests; under overload the edge's time and the money are shared by `share`."""

    name: Label = Field(description="Value of a request's parameter `tenant`, or of its header X-Edgeburst-Tenant.")
    share: float = Field(default=1.0, gt=0, le=1e6, description="Weight beside the other tenants.")
    per_hour: float | None = Field(
        default=None, ge=0, description="Maximum cost of its functions in any hour; absent: no cap of its own."
    )
    per_day: float | None = Field(default=None, ge=0, description="Maximum cost in any 24 hours; absent: no cap.")


class TokenSection(Section):
    """`[[token]]`: a client's token, as `edgeburst token new NAME` makes it; with one, callers without are refused."""

    name: Label = Field(description="Name of the client, for logs and messages.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        repr=False,
        description="SHA-256 of the token in hexadecimal, as `edgeburst token new` prints it; not the token.",
    )
    scopes: tuple[ScopeWord, ...] = Field(
        default=("infer",),
        min_length=1,
        max_length=4,
        description="What it may do: infer (requests), read (status, metrics, batches), spend (borrow money for another"
        " daemon), admin (everything).",
    )
    tenant: str = Field(
        default="", max_length=64, description="Tenant of its requests, whatever they name; empty: they may name one."
    )
    rate_rps: float | None = Field(
        default=None, gt=0, le=1e6, description="Maximum of requests a second; more get 429; absent: any number."
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Maximum of unanswered requests; more get 429; absent: any number.",
    )


class ExplainSection(Section):
    """`[explain]`: which decisions are kept, so that they can be explained afterwards."""

    ring: int = Field(
        default=_ENGINE_DEFAULTS["explain_ring"],
        ge=1,
        le=1_000_000,
        description="Number of requests whose decisions are kept in memory, about 2 KB each.",
    )
    file: str = Field(
        default="",
        max_length=4096,
        description="File that gets one line of JSON for each ended request; empty: no file.",
    )
    max_bytes: int = Field(default=16 * 2**20, ge=4096, le=2**40, description="Size at which the file is rotated.")
    files: int = Field(
        default=4,
        ge=2,
        le=1000,
        description="Number of files kept: this one and older ones, named FILE.1, FILE.2 and so on.",
    )


class RecordSection(Section):
    """`[record]`: the arrivals of requests, never their payloads, for `edgeburst simulate --recorded`."""

    folder: str = Field(
        default="",
        max_length=4096,
        description="Folder of the recordings, about 15 bytes a request; it is made if it is missing; empty: none.",
    )
    max_bytes: int = Field(default=16 * 2**20, ge=4096, le=2**40, description="Size at which another file begins.")
    keep_days: float = Field(
        default=14.0, ge=1, le=36500, description="Days after which a file is removed; each holds up to a day."
    )
    keep_bytes: int = Field(
        default=2**30, ge=8192, le=2**50, description="Size of all files together, above which the oldest are removed."
    )


class OtelSection(Section):
    """`[otel]`: a collector of OpenTelemetry that gets the spans of requests; without this table none are made."""

    endpoint: str = Field(
        pattern=r"^https?://[^/\s@]+(/\S*)?$",
        max_length=4096,
        description="URL of its OTLP/HTTP, as http://HOST:4318; without a path, /v1/traces is meant.",
    )
    service_name: str = Field(default="edgeburst", min_length=1, max_length=255, description="Name of the service.")
    sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Fraction of the requests that are recorded, where a client's `traceparent` does not decide.",
    )


class FunctionSection(Section):
    """`[function]`: the Function Compute account; without this table no function is used."""

    endpoint: str = Field(
        default="",
        pattern=r"^[^/\s@]*$",
        description="HOST or HOST:PORT without http://, as the console shows it; empty: the region's public endpoint.",
    )
    region: Label = Field(default="cn-hangzhou", description="Region of the functions.")
    protocol: Literal["https", "http"] = Field(
        default="https", description="Use http only for an endpoint on this host."
    )
    access_key_id_env: EnvironmentName = Field(
        default="ALIBABA_CLOUD_ACCESS_KEY_ID", min_length=1, description="Environment variable with the access key id."
    )
    access_key_secret_env: EnvironmentName = Field(
        default="ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        min_length=1,
        description="Environment variable with the access key secret.",
    )
    security_token_env: EnvironmentName = Field(
        default="", description="Environment variable with the STS token; empty: a permanent key."
    )
    access_key_file: str = Field(
        default="",
        description="TOML file with access_key_id, access_key_secret and perhaps security_token, for the variables.",
    )
    price_sheet: str = Field(
        default="cny-gbs-2023", min_length=1, description="Name of a shipped price sheet, or path of a sheet."
    )


class ConfigFile(Section):
    """The whole file."""

    daemon: DaemonSection = Field(default=DaemonSection(), description="The HTTP listener and its limits.")
    grpc: GrpcSection | None = Field(default=None, description="The gRPC listener; absent: HTTP only.")
    engine: EngineSection = Field(default=EngineSection(), description="Queue limits, assumptions, hysteresis.")
    spend: SpendSection = Field(default=SpendSection(), description="Caps on the cost of functions.")
    explain: ExplainSection = Field(default=ExplainSection(), description="Which decisions are kept.")
    record: RecordSection = Field(default=RecordSection(), description="What is kept of the requests that came.")
    otel: OtelSection | None = Field(default=None, description="The collector of spans; absent: none are made.")
    edges: Edges = Field(default=(), alias="edge", max_length=64, description="The edge servers; absent: no edge.")
    function: FunctionSection | None = Field(default=None, description="Function Compute; absent: no functions.")
    deploy: DeploySection | None = Field(default=None, description="What `edgeburst fc` deploys; absent: nothing.")
    tenants: tuple[TenantSection, ...] = Field(
        default=(),
        alias="tenant",
        max_length=64,
        description="Senders of requests; absent: requests are not told apart.",
    )
    tokens: tuple[TokenSection, ...] = Field(
        default=(), alias="token", max_length=256, description="Tokens of clients; absent: callers need none."
    )
    models: tuple[ModelSection, ...] = Field(
        alias="model", min_length=1, max_length=64, description="The served neural networks."
    )


SECTIONS: Mapping[tuple[str, ...], type[Section]] = {
    (): ConfigFile,
    ("daemon",): DaemonSection,
    ("grpc",): GrpcSection,
    ("engine",): EngineSection,
    ("spend",): SpendSection,
    ("tenant",): TenantSection,
    ("token",): TokenSection,
    ("explain",): ExplainSection,
    ("record",): RecordSection,
    ("otel",): OtelSection,
    ("edge",): EdgeSection,
    ("function",): FunctionSection,
    ("deploy",): DeploySection,
    ("model",): ModelSection,
    ("model", "class"): ClassSection,
    ("model", "tier"): TierSection,
    ("model", "inputs"): TensorSection,
    ("model", "outputs"): TensorSection,
}
"""Every table by its path."""
