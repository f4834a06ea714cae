"""Waits until the provider has completed an accepted change: for a limited time, with growing pauses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from scheduler.deploying.desired import Tier
from scheduler.deploying.errors import DeployError
from scheduler.deploying.platform import Platform

_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0

T = TypeVar("T")


def wait_for(platform: Platform, look: Callable[[], T | None], too_long: Callable[[], str]) -> T:
    """Calls `look` until it returns a value, and returns that.

    Args:
        platform: the account, with its patience.
        look: returns None as long as there is no result.
        too_long: returns the beginning of the error if it takes too long.

    Raises:
        DeployError: there was no result within the patience's limit.
    """
    patience = platform.patience
    end_s, pause_s = patience.clock() + patience.limit_s, _FIRST_PAUSE_S
    while (seen := look()) is None:
        if patience.clock() >= end_s:
            raise DeployError(f"{too_long()} after {patience.limit_s:g} s; apply again, or wait longer with --wait-s")
        patience.sleep(pause_s)
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)
    return seen


def wait_until_active(platform: Platform, name: str, *, even_failed: bool = False) -> Mapping[str, Any]:
    """Returns the configuration of LATEST when no creation or update is in progress.

    Args:
        platform: the account of the function.
        name: name of the function.
        even_failed: whether a failed function is returned too.

    Raises:
        DeployError: the function failed, was deleted, or the change takes too long.
    """

    def settled() -> Mapping[str, Any] | None:
        latest = platform.function(name)
        if latest is None:
            raise DeployError(f"function {name} was deleted; stop the other program that deletes it")
        busy = latest.get("state") == "Pending" or latest.get("lastUpdateStatus") == "InProgress"
        return None if busy else latest

    latest = wait_for(platform, settled, lambda: f"function {name} is not active")
    for state, reason in (("state", "stateReason"), ("lastUpdateStatus", "lastUpdateStatusReason")):
        if latest.get(state) == "Failed" and not even_failed:
            said = str(latest.get(reason) or "the provider gives no reason").rstrip(".")
            raise DeployError(f"function {name} failed: {said}; correct [deploy] and apply again")
    return latest


def wait_until_provisioned(platform: Platform, tier: Tier, *, tell: Callable[[str], None]) -> None:
    """Waits until all provisioned instances of a tier exist.

    Raises:
        DeployError: it takes too long; the message has the provider's reason.
    """
    problem = ""

    def complete() -> bool | None:
        nonlocal problem
        kept = platform.provisioned_for(tier.function, tier.alias)
        problem = kept.problem
        if kept.current >= tier.provisioned:
            return True
        tell(f"waiting for instances of {tier.address}: {kept.current} of {tier.provisioned}")
        return None

    def too_long() -> str:
        return f"instances of {tier.address} are missing ({problem or 'the provider gives no reason'})"

    wait_for(platform, complete, too_long)
