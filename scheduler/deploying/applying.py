"""Makes what shall be out of what there is, tier by tier. Every step can be repeated: after an apply that was cut
short, the next one goes on where it stopped.

Calls go to aliases, aliases point to versions, and a version never changes. So a tier is moved only when its new
version has answered a probe, and is moved back if it then does not answer through the alias.
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
"""Takes what is being done, in a few words for a person."""

_COLD_START_S = 180.0
"""Beyond the function's own limit, for a probe: an instance is ready within 120 s, and then initialises."""


@dataclass(frozen=True, slots=True)
class Apply:
    """One apply.

    Parameters:
        platform: what is changed.
        deployment: what shall be.
        tell: is told of every step.
    """

    platform: Platform
    deployment: Deployment
    tell: Tell

    def run(self) -> None:
        """Makes every function and tier as it shall be; stops at the first that cannot be.

        Raises:
            DeployError: the provider refuses, something does not become active in time, or a version fails its probe.
                What was done before stays; the alias of a version that failed is where it was.
        """
        for name in self.deployment.functions:
            function = self._function(name)
            for tier in self.deployment.tiers_of(name):
                self._tier(tier, function)

    def prune(self) -> None:
        """Deletes what this deployment made and nobody asks for any more.

        Raises:
            DeployError: the provider refuses, or something hangs on it that was not made here.
        """
        for name in self.deployment.functions:
            function = observe(self.platform, name)
            for change in surplus(self.deployment, function) if function else ():
                self._delete(change, kept=function is not None and change.name in function.provisioned)
        for name in leftovers(self.platform, self.deployment):
            remove(self.platform, self.deployment, name, tell=self.tell)

    def _function(self, name: str) -> Function:
        """The function with its limit, created if need be."""
        function = observe(self.platform, name)
        if function is None:
            self.tell(f"creating function {name}")
            first = self.deployment.tiers_of(name)[0]
            self.platform.create_function(name, self._described(first))
            wait_until_active(self.platform, name)
            function = observe(self.platform, name)
        if function is None:
            raise DeployError(f"function {name} is gone again; does somebody else delete it?")
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
        """Points the alias to a version that is good."""
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
        """A version with the tier's configuration: one that an apply before had published, or a new one."""
        wanted = self.deployment.version_description(tier.configuration)
        for version in self.platform.versions(tier.function):
            if version.description == wanted and not self._differs(tier, version.version_id):
                return version.version_id
        self._bring_latest(tier)
        self.tell(f"publishing a version of {tier.function} for tier {tier.name}")
        return self.platform.publish(tier.function, wanted)

    def _bring_latest(self, tier: Tier) -> None:
        """LATEST with the tier's configuration: nobody calls it, so nobody notices."""
        latest = wait_until_active(self.platform, tier.function, even_failed=True)
        failed = "Failed" in (latest.get("state"), latest.get("lastUpdateStatus"))
        if failed or differences(latest, tier.configuration):
            self.tell(f"updating function {tier.function} for tier {tier.name}")
            self.platform.update_function(tier.function, self._described(tier))
        wait_until_active(self.platform, tier.function)
        if changes := self._differs(tier, "LATEST"):
            raise DeployError(
                f"function {tier.function} did not take {changes[0].field} = {changes[0].new}, it has {changes[0].old};"
                " does somebody else change it? apply again"
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
        check_answer(self.platform.invoke(tier.function, qualifier, frame, limit_s=limit_s), batch_id=batch_id)

    def _point(self, tier: Tier, version_id: str, weights: Mapping[str, float], *, exists: bool) -> None:
        mark = self.deployment.mark
        self.platform.point_alias(
            tier.function, tier.alias, version_id, weights=weights, description=mark, exists=exists
        )

    def _rolled_back(self, tier: Tier, alias: Alias | None) -> str:
        """Undoes the move; returns what became of the alias, in words."""
        try:
            if alias is None:
                self.tell(f"removing alias {tier.address} again")
                self.platform.delete_alias(tier.function, tier.alias)
                return "the alias is removed again"
            self.tell(f"pointing {tier.address} back to version {alias.version_id}")
            self._point(tier, alias.version_id, alias.weights, exists=True)
        except DeployError as error:
            return f"the alias could not be moved back, so do it by hand: {error}"
        return f"the alias is back at version {alias.version_id}"

    def _discard(self, tier: Tier, version_id: str) -> None:
        """Deletes a version that failed, lest the next apply take it for good; one that is in use stays."""
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
            # The failed probe is what matters.
            self.tell(f"version {version_id} of {tier.function} stays: {error}")

    def _delete(self, change: Change, *, kept: bool) -> None:
        """Deletes an alias, with its provisioned instances, or a version."""
        if kept:
            release(self.platform, change.function, change.name, tell=self.tell)
        self.tell(f"deleting {change.kind.value} {change.what}")
        if change.kind is Kind.ALIAS:
            self.platform.delete_alias(change.function, change.name)
        else:
            self.platform.delete_version(change.function, change.name)
