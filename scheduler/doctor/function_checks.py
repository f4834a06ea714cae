"""What the facts of the function account mean. Pure."""

from __future__ import annotations

from scheduler.doctor.facts import FunctionFacts, Permission, Refused, TierFacts, UplinkFacts
from scheduler.doctor.model_checks import served_files, speed
from scheduler.doctor.rows import FUNCTIONS, Row, Rows, finding, ok, skipped
from scheduler.doctor.wanted import Wanted, WantedModel, WantedTier
from scheduler.domain.batches import FailureKind
from scheduler.domain.failures import mend

_KEY_WORDS = ("AccessKey", "Signature", "SecurityToken", "Credential", "InvalidSecret")
_MAY_ONLY_INVOKE = ("AccessDenied", "Forbidden", "NoPermission", "NotAuthorized")
_NOT_THERE = ("NotFound", "NotExist")


def function_rows(found: FunctionFacts, wanted: Wanted) -> Rows:
    """Yields the rows of the functions."""
    refusals = [each for tier in found.tiers for each in (tier.not_described, tier.not_called) if each is not None]
    away = next((each for each in refusals if each.status == 0 and each.kind is FailureKind.UNREACHABLE), None)
    if away is not None:
        yield finding(
            FUNCTIONS,
            "reachable",
            f"{away.message}; check that {found.host} is right, in `endpoint`, `region` and `protocol` of [function],"
            " and this host's way to it",
        )
        return
    yield ok(FUNCTIONS, "reachable", f"{found.host} answers")
    ahead_s = next((tier.ahead_s for tier in found.tiers if tier.ahead_s is not None), None)
    key = next((each for each in refusals if any(word in each.code for word in _KEY_WORDS)), None)
    if key is not None:
        yield finding(FUNCTIONS, "credentials", _refused(key, found.key, ahead_s))
        return
    yield ok(FUNCTIONS, "credentials", f"{found.host} takes the access key in {found.key}")
    for permission in found.permissions:
        yield _permission(permission, found.key)
    for tier in found.tiers:
        model = wanted.models[tier.model]
        yield from _tier(tier, model, next(each for each in model.tiers if each.name == tier.tier), found.key, ahead_s)
    if found.uplink is not None:
        yield from _uplink(found.uplink, wanted)


def _refused(refused: Refused, key: str, ahead_s: float | None) -> str:
    what = mend(refused.kind, refused.status, refused.code, said=refused.said, ahead_s=ahead_s)
    what = what.replace("the access key that [function] refers to", f"the access key in {key}")
    code = f"{refused.status} {refused.code}".strip()
    return f"the provider refuses the call ({code}); {what or 'see what it says: ' + refused.message}"


def _permission(permission: Permission, key: str) -> Row:
    if permission.refused:
        return finding(
            FUNCTIONS,
            "permissions",
            f"the access key in {key} lacks the permission {permission.action} ({permission.refused}), which"
            f" {permission.needed_for} needs; give it that permission in the provider's console (RAM)",
        )
    return ok(FUNCTIONS, "permissions", f"{permission.action} is granted, for {permission.needed_for}")


def _tier(tier: TierFacts, model: WantedModel, wanted: WantedTier, key: str, ahead_s: float | None) -> Rows:
    where = f"tier {tier.tier}"
    refused = tier.not_described
    if refused is not None and any(word in refused.code for word in _NOT_THERE):
        yield _not_there(where, tier)
        return
    if refused is not None and any(word in refused.code for word in _MAY_ONLY_INVOKE):
        yield skipped(where, "function", f"the key may not read {tier.address} (fc:GetFunction), only invoke it")
    elif refused is not None:
        yield finding(where, "function", _refused(refused, key, ahead_s))
    if tier.described is not None:
        yield _state(where, tier)
        yield from _memory(where, tier, wanted)
    if tier.not_called is not None:
        yield _not_called(where, tier, tier.not_called, key, ahead_s)
        return
    calls = tier.calls
    if calls is None:
        yield skipped(where, "calls", "no invocation was made")
        return
    if calls.problem:
        yield finding(where, "calls", f"{tier.address}: {calls.problem}; look at the function's log")
    if calls.seconds:
        yield served_files(where, model, tier.identity, tier.files, there="build the image anew with")
    measure = (
        f"edgeburst profile function --function {tier.function} --qualifier {tier.qualifier} --model {model.name}"
        f" --out {tier.tier}.json"
    )
    yield speed(where, model.name, calls, predicted_s=wanted.one_item_s, profile=wanted.profile, measure=measure)


def _not_there(where: str, tier: TierFacts) -> Row:
    if tier.function_is_there:
        return finding(
            where,
            "function",
            f"function {tier.function} has no version or alias {tier.qualifier}; make it with `edgeburst fc apply`, or"
            f" correct `qualifier` of tier {tier.tier}",
        )
    return finding(
        where,
        "function",
        f"there is no function {tier.function}; make it with `edgeburst fc apply`, or correct `function` of tier"
        f" {tier.tier}",
    )


def _state(where: str, tier: TierFacts) -> Row:
    described = tier.described or {}
    state, reason = str(described.get("state") or ""), str(described.get("stateReason") or "")
    because = f" ({reason.rstrip('.')})" if reason else ""
    if state in ("", "Active"):
        return ok(where, "function", f"{tier.address} is there{' and active' if state else ''}")
    if state == "Inactive":
        return finding(
            where,
            "function",
            f"function {tier.function} is inactive{because}: the first call has to make it active again; invoke it"
            " once, or run `edgeburst fc apply`",
        )
    if state == "Pending":
        return finding(where, "function", f"function {tier.function} is pending{because}; wait until it is active")
    return finding(
        where,
        "function",
        f"function {tier.function} is {state.lower()}{because}; correct [deploy] and run `edgeburst fc apply`",
    )


def _memory(where: str, tier: TierFacts, wanted: WantedTier) -> Rows:
    memory_mb = (tier.described or {}).get("memorySize")
    if isinstance(memory_mb, int) and abs(memory_mb / 1024 - wanted.memory_gb) > 0.01 * wanted.memory_gb:
        yield finding(
            where,
            "memory",
            f"function {tier.function} has {memory_mb / 1024:g} GB, but tier {tier.tier} is priced with"
            f" {wanted.memory_gb:g}; correct `memory_gb` of the tier, or run `edgeburst fc apply`",
        )


def _not_called(where: str, tier: TierFacts, refused: Refused, key: str, ahead_s: float | None) -> Row:
    if any(word in refused.code for word in _MAY_ONLY_INVOKE):
        return finding(
            where,
            "permissions",
            f"the access key in {key} may not invoke {tier.address} ({refused.status} {refused.code}); give it the"
            " permission fc:InvokeFunction in the provider's console (RAM)",
        )
    if any(word in refused.code for word in _NOT_THERE):
        return _not_there(where, tier)
    return finding(where, "calls", _refused(refused, key, ahead_s) if refused.status else refused.message)


def _uplink(uplink: UplinkFacts, wanted: Wanted) -> Rows:
    if not uplink.answered:
        yield finding(
            FUNCTIONS,
            "uplink",
            "32 KB did not reach the provider within 10 s, so that no function can answer in time; check this host's"
            " line, or serve by the edge alone",
        )
        return
    rtt_s = uplink.rtt_s or 0.0
    if uplink.bytes_per_s is None:
        yield ok(FUNCTIONS, "uplink", f"round trip {rtt_s * 1000:.3g} ms; it is too fast to be measured with 32 KB")
        return
    told = f"the uplink carries {uplink.bytes_per_s / 1000:.3g} KB/s with a round trip of {rtt_s * 1000:.3g} ms"
    slow = False
    for name, size in uplink.request_bytes.items():
        model = wanted.models[name]
        tightest_s, tiers = model.tightest_by_function_s, [tier.one_item_s for tier in model.tiers]
        if tightest_s is None or not tiers:
            continue
        sent_s = size / uplink.bytes_per_s
        # Where the service alone takes too long, the line is not at fault: the configuration's warnings say so.
        if min(tiers) < tightest_s < sent_s + rtt_s + min(tiers):
            slow = True
            yield finding(
                FUNCTIONS,
                "uplink",
                f"{told}, on which one request of {name} with {size / 1000:.3g} KB takes {sent_s:.2g} s, with its"
                f" service longer than its SLO of {tightest_s:g} s; get a faster line, send smaller requests, or raise"
                " `slo_s`",
            )
    if not slow:
        yield ok(FUNCTIONS, "uplink", told)
