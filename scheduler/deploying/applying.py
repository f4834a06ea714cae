"""Changes the observed functions into the desired ones, tier by tier. Every step can be repeated: after an interrupted
apply, the next one continues where it stopped.

Calls go to aliases, aliases point to versions, and a version never changes. A tier's alias is therefore moved only when
the new version has answered a probe, and moved back if the version then does not answer through the alias.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scheduler.deploying.comparison import FieldChange, differences
from scheduler.deploying.desired import Deployment, Tier
from scheduler.deploying.difference import Change, Kind, is_current, reserved_change, surplus
from scheduler.deploying.errors import DeployError
from scheduler.deploying.observed import Alias, Function
from scheduler.deploying.observing import leftovers, observe
from scheduler.deploying.platform import Platform
from scheduler.deploying.probe import check_answer, probe_frame
from scheduler.deploying.removing import release, remove
from scheduler.deploying.waiting import wait_until_active, wait_until_provisioned

Tell = Callable[[str], None]
"""Takes a description of each step, in a few words."""

_COLD_START_S = 180.0
"""Time for a probe beyond the function's own limit: an instance is ready within 120 s, and then initialises."""


@dataclass(frozen=True, slots=True)
class Apply:
    """One apply of a deployment.

    Attributes:
        platform: the account to change.
        deployment: the desired functions and tiers.
        tell: called with every step.
    """

    platform: Platform
    deployment: Deployment
    tell: Tell

    def run(self) -> None:
        """Makes every function and tier as desired; stops at the first error.

        Raises:
            DeployError: the provider refuses a call, something does not become active in time, or a version fails its
                probe. Completed steps stay; the alias of a version that failed is where it was before.
        """
        for name in self.deployment.functions:
            function = self._function(name)
            for tier in self.deployment.tiers_of(name):
                self._tier(tier, function)

    def prune(self) -> None:
        """Deletes what this deployment made and no longer asks for.

        Raises:
            DeployError: the provider refuses a call, or a function has parts that were not made here.
        """
        for name in self.deployment.functions:
            function = observe(self.platform, name)
            for change in surplus(self.deployment, function) if function else ():
                self._delete(change, kept=function is not None and change.name in function.provisioned)
        for name in leftovers(self.platform, self.deployment):
            remove(self.platform, self.deployment, name, tell=self.tell)

    def _function(self, name: str) -> Function:
        """Returns a function with its limit; creates it if it does not exist."""
        function = observe(self.platform, name)
        if function is None:
            self.tell(f"creating function {name}")
            first = self.deployment.tiers_of(name)[0]
            self.platform.create_function(name, self._described(first))
            wait_until_active(self.platform, name)
            function = observe(self.platform, name)
        if function is None:
            raise DeployError(
                f"function {name} was deleted after it was created; stop the other program that deletes it"
            )
        if reserved_change(self.deployment, function) and self.deployment.reserved_concurrency is not None:
            self.tell(f"limiting {name} to {self.deployment.reserved_concurrency} instances")
            self.platform.reserve(name, self.deployment.reserved_concurrency)
        return function

    def _tier(self, tier: Tier, function: Function) -> None:
        alias = function.aliases.get(tier.alias)
        if not is_current(self.deployment, tier, alias):
            self._move(tier, alias)
        if (alias.provisioned.target if alias else 0) != tier.provisioned:
            self.tell(f"provisioning instances of {tier.address}: {tier.provisioned}")
            self.platform.provision(tier.function, tier.alias, tier.provisioned)
        if tier.provisioned:
            wait_until_provisioned(self.platform, tier, tell=self.tell)

    def _move(self, tier: Tier, alias: Alias | None) -> None:
        """Points a tier's alias to a version that answers probes."""
        version_id = self._version(tier)
        try:
            self._probe(tier, version_id)
        except DeployError as error:
            self._discard(tier, version_id)
            stays = f"; {tier.address} stays at version {alias.version_id}" if alias else ""
            raise DeployError(f"version {version_id} of {tier.function} failed its probe: {error}{stays}") from None
        self.tell(f"pointing {tier.address} to version {version_id}")
        self._point(tier, version_id, {}, exists=alias is not None)
        try:
            self._probe(tier, tier.alias)
        except DeployError as error:
            fate = self._rolled_back(tier, alias)
            self._discard(tier, version_id)
            raise DeployError(f"version {version_id} failed its probe as {tier.address}: {error}; {fate}") from None

    def _version(self, tier: Tier) -> str:
        """Returns a version with the tier's configuration: one that an earlier apply has published, or a new one."""
        wanted = self.deployment.version_description(tier.configuration)
        for version in self.platform.versions(tier.function):
            if version.description == wanted and not self._differs(tier, version.version_id):
                return version.version_id
        self._bring_latest(tier)
        self.tell(f"publishing a version of {tier.function} for tier {tier.name}")
        return self.platform.publish(tier.function, wanted)

    def _bring_latest(self, tier: Tier) -> None:
        """Gives LATEST the tier's configuration; no call goes to LATEST, so none is affected."""
        latest = wait_until_active(self.platform, tier.function, even_failed=True)
        failed = "Failed" in (latest.get("state"), latest.get("lastUpdateStatus"))
        if failed or differences(latest, tier.configuration):
            self.tell(f"updating function {tier.function} for tier {tier.name}")
            self.platform.update_function(tier.function, self._described(tier))
        wait_until_active(self.platform, tier.function)
        if changes := self._differs(tier, "LATEST"):
            raise DeployError(
                f"function {tier.function} did not take {changes[0].field} = {changes[0].new}, it has {changes[0].old};"
                " stop other programs that change it, and apply again"
            )

    def _differs(self, tier: Tier, qualifier: str) -> tuple[FieldChange, ...]:
        return differences(self.platform.function(tier.function, qualifier) or {}, tier.configuration)

    def _described(self, tier: Tier) -> dict[str, object]:
        return {**tier.configuration, "description": self.deployment.function_description}

    def _probe(self, tier: Tier, qualifier: str) -> None:
        self.tell(f"probing {tier.function}:{qualifier}")
        batch_id = f"probe-{secrets.token_hex(4)}"
        frame = probe_frame(tier.probe, model=tier.model, batch_id=batch_id)
        limit_s = float(tier.configuration["timeout"]) + _COLD_START_S
        invoked = self.platform.invoke(tier.function, qualifier, frame, limit_s=limit_s)
        check_answer(invoked, batch_id=batch_id, ragged=tier.ragged)

    def _point(self, tier: Tier, version_id: str, weights: Mapping[str, float], *, exists: bool) -> None:
        mark = self.deployment.mark
        self.platform.point_alias(
            tier.function, tier.alias, version_id, weights=weights, description=mark, exists=exists
        )

    def _rolled_back(self, tier: Tier, alias: Alias | None) -> str:
        """Undoes the move of an alias; returns a description of the alias's state."""
        try:
            if alias is None:
                self.tell(f"removing alias {tier.address} again")
                self.platform.delete_alias(tier.function, tier.alias)
                return "the alias was removed again"
            self.tell(f"pointing {tier.address} back to version {alias.version_id}")
            self._point(tier, alias.version_id, alias.weights, exists=True)
        except DeployError as error:
            return f"the alias could not be moved back; move it by hand: {error}"
        return f"the alias is back at version {alias.version_id}"

    def _discard(self, tier: Tier, version_id: str) -> None:
        """Deletes a version that failed, so that the next apply does not use it; a version that an alias uses stays."""
        try:
            aliases = self.platform.aliases(tier.function)
            held = {
                each
                for alias in aliases
                for each in (alias.get("versionId"), *alias.get("additionalVersionWeight", ()))
            }
            if version_id not in held:
                self.tell(f"deleting version {version_id} of {tier.function} again")
                self.platform.delete_version(tier.function, version_id)
        except DeployError as error:
            # The failed probe is the error to report.
            self.tell(f"version {version_id} of {tier.function} stays: {error}")

    def _delete(self, change: Change, *, kept: bool) -> None:
        """Deletes an alias with its provisioned instances, or a version."""
        if kept:
            release(self.platform, change.function, change.name, tell=self.tell)
        self.tell(f"deleting {change.kind.value} {change.what}")
        if change.kind is Kind.ALIAS:
            self.platform.delete_alias(change.function, change.name)
        else:
            self.platform.delete_version(change.function, change.name)
