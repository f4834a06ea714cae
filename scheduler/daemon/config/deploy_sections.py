"""The tables of the configuration file that only `edgeburst fc` reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from scheduler.daemon.config.section import Label, Section


class TrafficSection(Section):
    """`[deploy.traffic.MODEL]`: the traffic that provisioned instances are proposed for."""

    rps: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] = Field(
        min_length=1, max_length=24, description="Rates that follow one another, requests/s, and then begin again."
    )
    hold_s: float = Field(default=3600.0, gt=0, le=1e7, description="Mean seconds for which the traffic has each rate.")
    request_bytes: int = Field(default=24_000, ge=0, le=2**30, description="Mean bytes of a request.")


class DeploySection(Section):
    """`[deploy]`: what `edgeburst fc` needs to make functions; the daemon does not use it."""

    image: str = Field(min_length=1, description="Container image in the registry; a new build needs a new tag.")
    gpu_image: str = Field(default="", description="Image for tiers with a GPU; empty: the same image.")
    gpu_type: str = Field(default="fc.gpu.tesla.1", description="GPU type of tiers without their own.")
    name: Label = Field(
        default="edgeburst",
        description="Marks everything that this deployment makes, and begins the names of new functions.",
    )
    command: tuple[str, ...] = Field(
        default=(), max_length=64, description="Program and arguments in the container; empty: those of the image."
    )
    port: int = Field(default=9000, ge=1, le=65535, description="Port on which the container listens.")
    timeout_s: int = Field(default=60, ge=1, le=86400, description="Longest run time of one invocation.")
    reserved_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Maximum of instances of each function, which limits the cost; absent: no limit.",
    )
    provisioned: dict[str, Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default={}, description="Instances that are kept warm, by tier; they are billed while idle."
    )
    start_s: float = Field(
        default=3.0, gt=0, le=600, description="Seconds of a start that the proposal of provisioned instances assumes."
    )
    kept_s: float = Field(
        default=240.0,
        gt=0,
        le=86400,
        description="Idle seconds after which the platform removes an instance, assumed for the same.",
    )
    traffic: dict[Label, TrafficSection] = Field(
        default={}, description="Expected traffic by model; absent: no number of provisioned instances is proposed."
    )
    environment: dict[str, str] = Field(
        default={}, description="Environment variables of the container; they override MODEL, MAX_BATCH and DEVICE."
    )
