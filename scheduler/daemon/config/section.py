"""What all tables of the configuration file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Capitals only: an access key that is pasted here by mistake has small letters, and is refused, not printed.
EnvironmentName = Annotated[str, Field(pattern=r"^([A-Z_][A-Z0-9_]*)?$", max_length=128)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class Section(BaseModel):
    """A table of the file: frozen, without unknown keys, conversions of types or infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
