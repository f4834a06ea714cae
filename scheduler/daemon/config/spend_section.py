"""The table `[spend]`: caps on money, and the daemon that it is borrowed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from pydantic import Field

from scheduler.daemon.config.section import EnvironmentName, Section
from scheduler.domain.plans import EngineSettings

OverCapWord = Literal["serve-late", "refuse-low-priority", "edge-only"]

_DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(EngineSettings)}


class SpendSection(Section):
    """`[spend]`: caps on the cost of functions, in the currency of the prices; `state` in [daemon] keeps them."""

    per_hour: float | None = Field(
        default=_DEFAULTS["spend_per_hour"], ge=0, description="Maximum cost in any hour; absent: no cap."
    )
    per_day: float | None = Field(
        default=_DEFAULTS["spend_per_day"], ge=0, description="Maximum cost in any 24 hours; absent: no cap."
    )
    over_cap: OverCapWord = Field(
        default=_DEFAULTS["over_cap"],
        description="What happens to requests for a function when a cap is reached.",
    )
    lender: str = Field(
        default="",
        alias="from",
        pattern=r"^(https?://[^/\s@]+/?)?$",
        description="URL of another daemon, as http://HOST:PORT, under whose caps this one's money is leased; empty:"
        " own caps only.",
    )
    from_name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._:-]*)?$",
        max_length=64,
        description="Name of this daemon in the status of the one that it borrows from; empty: its host and port.",
    )
    from_token_env: EnvironmentName = Field(
        default="", description="Environment variable with a token of that daemon that has the scope spend."
    )
    from_ca_file: str = Field(
        default="",
        max_length=4096,
        description="PEM file with the authorities of its certificate, if it speaks https; empty: those of this host.",
    )
    from_client_certificate: str = Field(
        default="", max_length=4096, description="PEM file with the certificate to show to it; empty: none."
    )
    from_client_key: str = Field(
        default="", max_length=4096, description="PEM file with its key; empty: it is in `from_client_certificate`."
    )
