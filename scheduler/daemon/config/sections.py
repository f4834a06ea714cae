"""The tables of the configuration file, key by key. Only what may be written; config.py says what it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scheduler.domain.plans import EngineSettings, ServiceClass

Late = Literal["refuse", "serve"]
ClassLabel = Literal["edge-only", "deferrable"]
OverCapWord = Literal["serve-late", "refuse-low-priority", "edge-only"]

# Capitals only: an access key pasted here by mistake has small letters, and is refused instead of printed.
EnvironmentName = Annotated[str, Field(pattern=r"^([A-Z_][A-Z0-9_]*)?$", max_length=128)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]

_ENGINE_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(EngineSettings)}
_CLASS_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(ServiceClass)}


class Section(BaseModel):
    """A table: frozen, no unknown keys, no silent conversion of types, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DaemonSection(Section):
    """`[daemon]`: the listener and what it lets in."""

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 takes calls from outside."
    )
    port: int = Field(default=8600, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    body_limit_bytes: int = Field(default=32 * 2**20, ge=1024, le=2**30, description="Largest request body, unpacked.")
    max_timeout_s: float = Field(
        default=3600.0, gt=0, le=86400, description="Longest deadline that a client may ask for."
    )
    drain_limit_s: float = Field(
        default=30.0, gt=0, le=600, description="Longest that a stop waits for queued requests."
    )
    answer_reserve_s: float = Field(
        default=0.01, ge=0, le=1, description="Kept of every deadline for reading, deciding and writing the answer."
    )
    admin_token_env: EnvironmentName = Field(
        default="",
        description="Environment variable with the bearer token for PUT .../limits; empty: from this host only.",
    )
    records: int = Field(
        default=10_000, ge=10, le=1_000_000, description="How many past batches are kept for /v1/batches."
    )
    late: Late = Field(
        default="refuse", description="Fate of a request that no place can answer in time, for classes that do not say."
    )


class EngineSection(Section):
    """`[engine]`: queue, assumptions before the first measurement, hysteresis; the fields of EngineSettings."""

    queue_max_requests: int = Field(
        default=_ENGINE_DEFAULTS["queue_max_requests"],
        ge=1,
        le=1_000_000,
        description="Requests that may wait; then 429.",
    )
    queue_max_bytes: int = Field(
        default=_ENGINE_DEFAULTS["queue_max_bytes"],
        ge=1024,
        le=2**40,
        description="Bytes of bodies that may wait; then 429.",
    )
    max_function_in_flight: int = Field(
        default=_ENGINE_DEFAULTS["max_function_in_flight"],
        ge=1,
        le=1024,
        description="Function calls at one time, all tiers.",
    )
    uplink_bytes_per_s: float | None = Field(
        default=_ENGINE_DEFAULTS["uplink_bytes_per_s"],
        gt=0,
        description="Bandwidth to the functions assumed until one is measured; absent: ample.",
    )
    uplink_rtt_s: float = Field(
        default=_ENGINE_DEFAULTS["uplink_rtt_s"], ge=0, le=60, description="Round trip assumed until one is measured."
    )
    edge_overhead_s: float = Field(
        default=_ENGINE_DEFAULTS["edge_overhead_s"],
        ge=0,
        le=60,
        description="Transfer and decoding around the edge's service time, until measured.",
    )
    plan_expiry_s: float = Field(
        default=_ENGINE_DEFAULTS["plan_expiry_s"], gt=0, description="Age at which a plan is remade."
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
        description="Failed batches in a row after which a backend is left alone until a probe succeeds.",
    )
    reopen_after_s: float = Field(
        default=_ENGINE_DEFAULTS["reopen_after_s"],
        gt=0,
        description="First pause before a failed backend is probed; it doubles up to 30 s.",
    )
    changepoints: bool = Field(
        default=_ENGINE_DEFAULTS["changepoints"],
        description="Whether a change of rate, bandwidth or service time replans.",
    )


class SpendSection(Section):
    """`[spend]`: most money for functions, in the price sheet's currency, counted since the daemon started."""

    per_hour: float | None = Field(
        default=_ENGINE_DEFAULTS["spend_per_hour"], ge=0, description="Most money in any hour; absent: no cap."
    )
    per_day: float | None = Field(
        default=_ENGINE_DEFAULTS["spend_per_day"], ge=0, description="Most money in any 24 hours; absent: no cap."
    )
    over_cap: OverCapWord = Field(
        default=_ENGINE_DEFAULTS["over_cap"], description="Fate of requests for a function when a cap is reached."
    )


class ExplainSection(Section):
    """`[explain]`: what is kept of decisions, so that each can be explained afterwards."""

    ring: int = Field(
        default=_ENGINE_DEFAULTS["explain_ring"],
        ge=1,
        le=1_000_000,
        description="Requests whose decisions are kept in memory, some 2 KB each; older ones go.",
    )
    file: str = Field(
        default="",
        max_length=4096,
        description="File that gets one line of JSON for each request that has ended; empty: none is written.",
    )
    max_bytes: int = Field(
        default=16 * 2**20, ge=4096, le=2**40, description="Size at which the file is put aside and a new one begun."
    )
    files: int = Field(
        default=4, ge=2, le=1000, description="Files kept: this one and older ones, named FILE.1, FILE.2 and so on."
    )


class EdgeSection(Section):
    """`[edge]`: the edge server; without this table there is none."""

    url: str = Field(
        default="http://127.0.0.1:8700",
        pattern=r"^https?://[^/\s@]+/?$",
        description="Where it listens, as http://HOST:PORT; any Open Inference Protocol v2 server will do.",
    )
    connect_timeout_s: float = Field(default=1.0, gt=0, le=60, description="Longest wait for its TCP connection.")


class FunctionSection(Section):
    """`[function]`: the Function Compute account; without this table no function is used."""

    endpoint: str = Field(
        default="",
        pattern=r"^[^/\s@]*$",
        description="HOST or HOST:PORT without http://, as the console shows it; empty: the public one of the region.",
    )
    region: Label = Field(default="cn-hangzhou", description="Region of the functions.")
    protocol: Literal["https", "http"] = Field(default="https", description="http only for an endpoint on this host.")
    access_key_id_env: EnvironmentName = Field(
        default="ALIBABA_CLOUD_ACCESS_KEY_ID", min_length=1, description="Environment variable with the access key id."
    )
    access_key_secret_env: EnvironmentName = Field(
        default="ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        min_length=1,
        description="Environment variable with the access key secret.",
    )
    security_token_env: EnvironmentName = Field(
        default="", description="Environment variable with the STS token; empty: a permanent key, which has none."
    )
    access_key_file: str = Field(
        default="",
        description="TOML file with access_key_id, access_key_secret and perhaps security_token, instead of variables.",
    )
    price_sheet: str = Field(
        default="cny-gbs-2023", min_length=1, description="Shipped price sheet by name, or the path of one."
    )


class DeploySection(Section):
    """`[deploy]`: what `edgeburst fc` makes functions from; the daemon itself does without."""

    image: str = Field(min_length=1, description="Container image in the registry; a new build needs a new tag.")
    gpu_image: str = Field(default="", description="Image of tiers with a GPU; empty: the same.")
    gpu_type: str = Field(default="fc.gpu.tesla.1", description="GPU of tiers that do not say theirs.")
    name: Label = Field(default="edgeburst", description="Marks what was made here, and begins new functions' names.")
    command: tuple[str, ...] = Field(
        default=(), max_length=64, description="Program and arguments in the container; empty: the image's own."
    )
    port: int = Field(default=9000, ge=1, le=65535, description="Port on which the container listens.")
    timeout_s: int = Field(default=60, ge=1, le=86400, description="Longest that one invocation may run.")
    reserved_concurrency: int | None = Field(
        default=None, ge=1, le=10_000, description="Most instances of each function, a ceiling on cost; absent: none."
    )
    provisioned: dict[str, Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default={}, description="Instances that are kept warm, by tier; they are billed while they wait."
    )
    environment: dict[str, str] = Field(
        default={}, description="Variables of the container, laid over MODEL, MAX_BATCH and DEVICE."
    )


class ClassSection(Section):
    """`[[model.class]]`: requests that share an objective."""

    name: Label = Field(default=_CLASS_DEFAULTS["name"], description="What a client names in its parameter `class`.")
    slo_s: float = Field(
        default=_CLASS_DEFAULTS["slo_s"],
        gt=0,
        le=3600,
        description="Deadline of requests that bring none, from the last byte.",
    )
    percentile: float = Field(
        default=_CLASS_DEFAULTS["percentile"], gt=0, lt=1, description="Fraction of the requests that shall meet it."
    )
    late: Late | None = Field(
        default=None, description="Fate of a request that is late anyway; absent: as [daemon] says."
    )
    labels: tuple[ClassLabel, ...] = Field(
        default=(),
        description='"edge-only": its data never leaves for a function; "deferrable": it waits for an idle edge.',
    )


class TierSection(Section):
    """`[[model.tier]]`: one function configuration that serves the model."""

    name: Label = Field(description="By which plans and records name it.")
    function: str = Field(min_length=1, max_length=128, description="Name of the deployed function.")
    qualifier: str = Field(default="LATEST", min_length=1, max_length=128, description="Version or alias to invoke.")
    profile: str = Field(min_length=1, description="Measured latency: a shipped profile by name, or the path of one.")
    memory_gb: float = Field(gt=0, le=1024, description="Memory of an instance, which is billed.")
    vcpu: float = Field(default=0.0, ge=0, le=256, description="vCPUs of an instance, for price sheets in CU.")
    gpu_gb: float = Field(default=0.0, ge=0, le=1024, description="GPU memory of an instance, for price sheets in CU.")
    gpu_type: str = Field(default="", description="The provider's name of the GPU, for price sheets in CU.")
    disk_gb: float = Field(default=0.5, ge=0, le=1024, description="Disk of an instance, for price sheets in CU.")
    max_in_flight: int = Field(default=32, ge=1, le=1024, description="Calls of this tier at one time.")


class TensorSection(Section):
    """One entry of `inputs` or `outputs` of a model that the catalogue does not know."""

    name: str = Field(min_length=1, max_length=128, description="The tensor's name.")
    datatype: str = Field(pattern=r"^(BOOL|U?INT(8|16|32|64)|FP(16|32|64)|BYTES)$", description="OIP v2 datatype.")
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), max_length=8, description="Shape of one item, without the batch; [] is one value."
    )
    picture: bool = Field(
        default=False, description="Whether each BYTES element is an encoded picture: base64 in JSON."
    )


class ModelSection(Section):
    """`[[model]]`: one neural network that is served, and where."""

    name: Label = Field(description="By which clients, edge and catalogue know it.")
    max_items: int = Field(default=64, ge=1, le=1024, description="Most items in one request and in one batch.")
    edge_profile: str = Field(
        default="",
        description="Measured latency on the edge: shipped profile or path; empty: the edge does not serve it.",
    )
    function_plan: str = Field(
        default="",
        description="File of `edgeburst plan --json` whose buffers, batches and waits are followed; empty: live plans.",
    )
    priority_levels: int = Field(
        default=3, ge=1, le=100, description="Priorities 1 (highest) to this may be asked for."
    )
    default_priority: int = Field(
        default=2, ge=1, le=100, description="Level of requests that ask for priority 0 or none."
    )
    inputs: tuple[TensorSection, ...] = Field(
        default=(), max_length=32, description="Input tensors, for a model that the catalogue does not know."
    )
    outputs: tuple[TensorSection, ...] = Field(
        default=(), max_length=32, description="Output tensors, for a model that the catalogue does not know."
    )
    labels: tuple[str, ...] = Field(
        default=(),
        max_length=100_000,
        description="Names of the classes, for a model that the catalogue does not know.",
    )
    classes: tuple[ClassSection, ...] = Field(
        default=(), alias="class", max_length=32, description="Service classes; absent: one named default."
    )
    tiers: tuple[TierSection, ...] = Field(
        default=(), alias="tier", max_length=32, description="Function tiers; absent: no function serves it."
    )


class ConfigFile(Section):
    """The whole file."""

    daemon: DaemonSection = Field(default=DaemonSection(), description="The listener and what it lets in.")
    engine: EngineSection = Field(default=EngineSection(), description="Queue, first assumptions, hysteresis.")
    spend: SpendSection = Field(default=SpendSection(), description="Most money for functions.")
    explain: ExplainSection = Field(default=ExplainSection(), description="What is kept of decisions.")
    edge: EdgeSection | None = Field(default=None, description="The edge server; absent: there is none.")
    function: FunctionSection | None = Field(default=None, description="Function Compute; absent: no function is used.")
    deploy: DeploySection | None = Field(default=None, description="What `edgeburst fc` deploys; absent: nothing.")
    models: tuple[ModelSection, ...] = Field(
        alias="model", min_length=1, max_length=64, description="The neural networks that are served."
    )


SECTIONS: Mapping[tuple[str, ...], type[Section]] = {
    (): ConfigFile,
    ("daemon",): DaemonSection,
    ("engine",): EngineSection,
    ("spend",): SpendSection,
    ("explain",): ExplainSection,
    ("edge",): EdgeSection,
    ("function",): FunctionSection,
    ("deploy",): DeploySection,
    ("model",): ModelSection,
    ("model", "class"): ClassSection,
    ("model", "tier"): TierSection,
    ("model", "inputs"): TensorSection,
    ("model", "outputs"): TensorSection,
}
"""Every table by the keys that lead to it."""
