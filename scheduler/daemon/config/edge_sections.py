"""The tables of the edge servers: `[edge]`, or `[[edge]]` for each of several."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from scheduler.daemon.config.section import EnvironmentName, Label, Section
from scheduler.domain.requests import EDGE_NAME

TensorsWord = Literal["auto", "binary", "json"]
MOST_PARALLEL = 64


def _whole(value: object) -> object:
    """Returns a number that a variable of the environment holds as text as a number, and a truth value as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return int(value) if isinstance(value, str) and value in ("0", "1") else value


Ahead = Annotated[Literal["auto", 0, 1], BeforeValidator(_whole)]


class EdgeSection(Section):
    """`[[edge]]`: an edge server, or `[edge]` where there is one; without this table there is no edge."""

    name: Label = Field(default=EDGE_NAME, description="Name of the server, for metrics, records and messages.")
    url: str = Field(
        default="http://127.0.0.1:8700",
        pattern=r"^https?://[^/\s@]+/?$",
        description="URL of the edge server, as http://HOST:PORT or https://...; any Open Inference Protocol server.",
    )
    parallel: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PARALLEL,
        description="Batches that it serves at once (replicas, instance groups, GPUs); absent: as measured in its"
        " profiles, as it says itself, or learned.",
    )
    ahead: Ahead = Field(
        default="auto",
        description="Batches sent to it before the one on its device is back, so that the device need not wait for"
        " them; auto: as it pays, by what the server reports.",
    )
    models: tuple[str, ...] = Field(
        default=(), max_length=64, description="Names of the models that it serves; empty: all that an edge serves."
    )
    profiles: dict[str, str] = Field(
        default={},
        description="By model: its measured latency on this server, for `edge_profile` in [[model]]; shipped profile"
        " or path.",
    )
    connect_timeout_s: float = Field(default=1.0, gt=0, le=60, description="Longest wait for a TCP connection to it.")
    token_env: EnvironmentName = Field(
        default="", description="Environment variable with the token that the edge server wants; empty: it wants none."
    )
    ca_file: str = Field(
        default="",
        max_length=4096,
        description="PEM file with the authorities of an https edge's certificate; empty: those of this host.",
    )
    client_certificate: str = Field(
        default="", max_length=4096, description="PEM file with the certificate to show to the edge; empty: none."
    )
    client_key: str = Field(
        default="", max_length=4096, description="PEM file with its key; empty: it is in `client_certificate`."
    )
    tensors: TensorsWord = Field(default="auto", description="Form of its tensors; auto: its answers show it.")

    def serves(self, model: str) -> bool:
        """Whether this server may be asked for a model, if the model has a latency there."""
        return not self.models or model in self.models


def _one_or_more(value: object) -> object:
    """Returns a single table as a list of one; any other value as it is."""
    return (value,) if isinstance(value, dict) else value


Edges = Annotated[tuple[EdgeSection, ...], BeforeValidator(_one_or_more)]
