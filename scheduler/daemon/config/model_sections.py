"""The tables of a model in the configuration file: `[[model]]` and those in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from scheduler.daemon.config.section import Label, Section
from scheduler.daemon.model_outputs import OPEN_BYTES
from scheduler.domain.plans import ServiceClass

Late = Literal["refuse", "serve"]
Budget = Literal["keep", "spend"]
ClassLabel = Literal["edge-only", "deferrable"]

_CLASS_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(ServiceClass)}


def _length(value: int) -> int:
    """Returns the length of an axis; ValueError for one that no axis has."""
    if value < 1 and value != -1:
        raise ValueError("an axis has a length of at least 1, or -1 for any")
    return value


class ClassSection(Section):
    """`[[model.class]]`: requests with the same SLO."""

    name: Label = Field(default=_CLASS_DEFAULTS["name"], description="Value of a request's parameter `class`.")
    slo_s: float = Field(
        default=_CLASS_DEFAULTS["slo_s"],
        gt=0,
        le=3600,
        description="Deadline, from a request's last byte, of requests without their own.",
    )
    percentile: float = Field(
        default=_CLASS_DEFAULTS["percentile"], gt=0, lt=1, description="Fraction of the requests that should meet it."
    )
    late: Late | None = Field(
        default=None, description="What happens to a request that will be late; absent: as [daemon] says."
    )
    budget: Budget = Field(
        default="keep",
        description='"keep": requests miss only by chance; "spend": what the percentile allows is spent where being in '
        "time costs most.",
    )
    labels: tuple[ClassLabel, ...] = Field(
        default=(),
        description='"edge-only": never sent to a function; "deferrable": waits for an idle edge.',
    )


class TierSection(Section):
    """`[[model.tier]]`: one function configuration that serves the model."""

    name: Label = Field(description="Name of the tier in plans and records.")
    function: str = Field(min_length=1, max_length=128, description="Name of the deployed function.")
    qualifier: str = Field(default="LATEST", min_length=1, max_length=128, description="Version or alias to invoke.")
    profile: str = Field(min_length=1, description="Measured latency: name of a shipped profile, or path of a profile.")
    memory_gb: float = Field(gt=0, le=1024, description="Billed memory of an instance.")
    vcpu: float = Field(default=0.0, ge=0, le=256, description="vCPUs of an instance, for price sheets in CU.")
    gpu_gb: float = Field(default=0.0, ge=0, le=1024, description="GPU memory of an instance, for price sheets in CU.")
    gpu_type: str = Field(default="", description="The provider's name of the GPU, for price sheets in CU.")
    disk_gb: float = Field(default=0.5, ge=0, le=1024, description="Disk of an instance, for price sheets in CU.")
    max_in_flight: int = Field(default=32, ge=1, le=1024, description="Maximum of calls of this tier at one time.")


class TensorSection(Section):
    """One entry of `inputs` or `outputs` of a model that is not in the catalogue."""

    name: str = Field(min_length=1, max_length=128, description="Name of the tensor.")
    datatype: str = Field(pattern=r"^(BOOL|U?INT(8|16|32|64)|FP(16|32|64)|BYTES)$", description="OIP v2 datatype.")
    shape: tuple[Annotated[int, AfterValidator(_length)], ...] = Field(
        default=(),
        max_length=8,
        description="Shape of one item (ragged: of one row), without the batch axis; -1: any length, []: one value.",
    )
    picture: bool = Field(
        default=False, description="Whether each BYTES element is an encoded picture, in JSON as base64."
    )
    ragged: bool = Field(
        default=False,
        description="Of an output: items have unlike numbers of rows, which the output NAME_rows counts.",
    )
    finite: bool = Field(
        default=True,
        description="Of an output of floats: whether NaN and infinity are faults of the backend that gives them.",
    )


class ModelSection(Section):
    """`[[model]]`: one served neural network, and its backends."""

    name: Label = Field(
        default="", description="Name of the model for clients, the edge server and the catalogue; absent: the card's."
    )
    card: str = Field(
        default="",
        max_length=4096,
        description="Folder with the model's card (model.toml), or the name of a shipped model; it says what inputs,"
        " outputs and labels say here.",
    )
    max_items: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Maximum of items in one request and in one batch; absent with `card`: its max_batch.",
    )
    identity: str = Field(
        default="",
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        description="Hash of card and files that edge and functions must report; empty: that of `card`, or else any.",
    )
    max_answer_bytes: int = Field(
        default=OPEN_BYTES,
        ge=1,
        le=2**30,
        description="Largest answer for each item where outputs have no fixed size: ragged, BYTES, or an axis of -1.",
    )
    edge_profile: str = Field(
        default="",
        description="Measured latency on the edge: shipped profile or path; empty: with `card` measured at the start, "
        "otherwise not served by the edge.",
    )
    function_plan: str = Field(
        default="",
        description="File of `edgeburst plan --json` whose buffers, batches and waits are followed; empty: live plans.",
    )
    priority_levels: int = Field(default=3, ge=1, le=100, description="Number of priorities; 1 is the highest.")
    default_priority: int = Field(default=2, ge=1, le=100, description="Level of requests with priority 0 or none.")
    inputs: tuple[TensorSection, ...] = Field(
        default=(), max_length=32, description="Input tensors, for a model that is not in the catalogue."
    )
    outputs: tuple[TensorSection, ...] = Field(
        default=(), max_length=32, description="Output tensors, for a model that is not in the catalogue."
    )
    labels: tuple[str, ...] = Field(
        default=(),
        max_length=100_000,
        description="Names of the classes, for a model that is not in the catalogue.",
    )
    classes: tuple[ClassSection, ...] = Field(
        default=(), alias="class", max_length=32, description="Service classes; absent: one class named default."
    )
    tiers: tuple[TierSection, ...] = Field(
        default=(), alias="tier", max_length=32, description="Function tiers; absent: not served by functions."
    )
