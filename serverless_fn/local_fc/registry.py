"""Functions with their versions, aliases, triggers and settings: the state of the control plane, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from serverless_fn.local_fc.errors import FcError, exists, invalid_argument, not_found
from serverless_fn.local_fc.function_spec import FunctionSpec, read_spec
from serverless_fn.local_fc.meter import Residence

LATEST = "LATEST"
LATEST_ID = "0"


@dataclass(frozen=True, slots=True)
class Version:
    """Configuration that does not change.

    Attributes:
        version_id: "1", "2", ...; "0" is LATEST.
        spec: the configuration.
        revision: distinguishes two configurations of LATEST.
        created: time of its publication.
        description: text of the user.
    """

    version_id: str
    spec: FunctionSpec
    revision: int
    created: datetime
    description: str = ""


@dataclass(frozen=True, slots=True)
class Alias:
    """Name of a version, or of a main version and others that get a share of the calls."""

    name: str
    version_id: str
    weights: Mapping[str, float]
    description: str
    created: datetime
    modified: datetime


@dataclass(frozen=True, slots=True)
class Provision:
    """Provisioned instances of a qualifier.

    Attributes:
        target: their number.
        residence: kind of billing while they serve no request.
        on_demand: whether further requests may start instances.
        content: body of PutProvisionConfig or PutScalingConfig, for the answer of Get.
        scaling: whether it was set by PutScalingConfig.
    """

    target: int
    residence: Residence
    on_demand: bool
    content: Mapping[str, Any]
    scaling: bool


@dataclass(slots=True)
class FunctionRecord:
    """Function with its versions, aliases, triggers and settings."""

    latest: Version
    function_id: str
    created: datetime
    modified: datetime
    busy_until: datetime
    missing_image: str | None = None
    update_problem: str | None = None
    updated: bool = False
    published: int = 0
    reserved: int | None = None
    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    triggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    provisions: dict[str, Provision] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Configuration for a call, and the name by which it was called."""

    version: Version
    qualifier: str


class Registry:
    """Functions of the account.

    Args:
        images: names of the images that can be run.
        update_s: seconds that a function stays Pending or InProgress.
    """

    def __init__(self, images: Mapping[str, object], *, update_s: float) -> None:
        self._images = images
        self._update = timedelta(seconds=update_s)
        self._functions: dict[str, FunctionRecord] = {}
        self._revisions = 0

    def functions(self) -> dict[str, FunctionRecord]:
        """Returns the functions by name, in order of creation."""
        return dict(self._functions)

    def get(self, name: str) -> FunctionRecord:
        """Returns one function.

        Raises:
            FcError: 404 FunctionNotFound.
        """
        if name not in self._functions:
            raise not_found("Function", name)
        return self._functions[name]

    def create(self, content: Mapping[str, Any], now: datetime) -> FunctionRecord:
        """Adds a function; if its image is unknown, its state is Failed.

        Raises:
            FcError: 400 InvalidArgument, 409 FunctionAlreadyExists.
        """
        spec = read_spec(content)
        if spec.name in self._functions:
            raise exists("Function", spec.name)
        latest = self._latest(spec, now)
        record = FunctionRecord(
            latest=latest,
            function_id=f"fn-{latest.revision:08x}",
            created=now,
            modified=now,
            busy_until=now + self._update,
            missing_image=None if spec.image in self._images else spec.image,
        )
        self._functions[spec.name] = record
        return record

    def update(self, name: str, changes: Mapping[str, Any], now: datetime) -> FunctionRecord:
        """Merges changes into the configuration; absent fields stay unchanged.

        Raises:
            FcError: 404, 400 InvalidArgument, 409 ConcurrentUpdateError while another update is in progress.
        """
        record = self.get(name)
        if now < record.busy_until:
            raise FcError(409, "ConcurrentUpdateError", f"function {name!r} is still being created or updated")
        given = {key: value for key, value in changes.items() if value is not None and key != "functionName"}
        spec = read_spec({**record.latest.spec.content, **given})
        record.modified, record.busy_until, record.updated = now, now + self._update, True
        if spec.image not in self._images:
            record.update_problem = f"image {spec.image!r} is not in this endpoint's config"
            return record
        record.latest, record.missing_image, record.update_problem = self._latest(spec, now), None, None
        return record

    def delete(self, name: str) -> None:
        """Removes a function with its versions, aliases, triggers and settings.

        Raises:
            FcError: 404 FunctionNotFound.
        """
        self.get(name)
        del self._functions[name]

    def publish(self, name: str, description: str, now: datetime) -> Version:
        """Publishes LATEST as a version with the next number."""
        record = self.get(name)
        record.published += 1
        number = str(record.published)
        latest = record.latest
        record.versions[number] = Version(number, latest.spec, latest.revision, now, description)
        return record.versions[number]

    def delete_version(self, name: str, version_id: str) -> None:
        """Removes a published version; its number is not used again.

        Raises:
            FcError: 404 VersionNotFound; 409 VersionInUse while an alias points to it (public sources do not name this
                error, so nothing depends on its code).
        """
        record = self.get(name)
        if version_id not in record.versions:
            raise not_found("Version", version_id, name)
        for alias in record.aliases.values():
            if version_id in (alias.version_id, *alias.weights):
                raise FcError(409, "VersionInUse", f"alias {alias.name!r} points to version {version_id} of {name!r}")
        del record.versions[version_id]
        record.provisions.pop(version_id, None)

    def delete_alias(self, name: str, alias: str) -> None:
        """Removes an alias.

        Raises:
            FcError: 404 AliasNotFound; 409 ProvisionConfigExist while instances are provisioned for it.
        """
        self.alias(name, alias)
        record = self.get(name)
        kept = record.provisions.get(alias)
        if kept is not None and kept.target:
            raise FcError(409, "ProvisionConfigExist", f"instances are provisioned for alias {alias!r} of {name!r}")
        del record.aliases[alias]
        record.provisions.pop(alias, None)

    def put_alias(self, name: str, alias: Alias, *, create: bool) -> Alias:
        """Adds or replaces an alias.

        Raises:
            FcError: 404 VersionNotFound, AliasNotFound; 409 AliasAlreadyExists; 400 for wrong weights.
        """
        record = self.get(name)
        if create and alias.name in record.aliases:
            raise exists("Alias", alias.name)
        for version_id in (alias.version_id, *alias.weights):
            if version_id not in record.versions:
                raise not_found("Version", version_id, name)
        if min(alias.weights.values(), default=0) < 0 or sum(alias.weights.values()) > 1:
            raise invalid_argument("additionalVersionWeight must hold shares of at least 0 that add up to at most 1")
        record.aliases[alias.name] = alias
        return alias

    def alias(self, name: str, alias: str) -> Alias:
        """Returns an alias.

        Raises:
            FcError: 404 AliasNotFound.
        """
        found = self.get(name).aliases.get(alias)
        if found is None:
            raise not_found("Alias", alias, name)
        return found

    def resolve(self, name: str, qualifier: str, draw: float) -> Resolved:
        """Returns the version for a call with a qualifier.

        Args:
            name: the function.
            qualifier: the number of a version, an alias, or "LATEST"; an empty text means LATEST.
            draw: a uniform draw in [0, 1), which selects one of the versions of an alias.

        Raises:
            FcError: 404 FunctionNotFound, VersionNotFound, AliasNotFound.
        """
        record = self.get(name)
        if qualifier in ("", LATEST):
            return Resolved(record.latest, LATEST)
        if not qualifier.isdecimal():
            return Resolved(record.versions[_drawn(self.alias(name, qualifier), draw)], qualifier)
        if qualifier not in record.versions:
            raise not_found("Version", qualifier, name)
        return Resolved(record.versions[qualifier], qualifier)

    def _latest(self, spec: FunctionSpec, now: datetime) -> Version:
        self._revisions += 1
        return Version(LATEST_ID, spec, self._revisions, now)


def _drawn(alias: Alias, draw: float) -> str:
    for version_id, weight in alias.weights.items():
        if draw < weight:
            return version_id
        draw -= weight
    return alias.version_id
