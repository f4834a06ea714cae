"""Asks the provider for the functions, and invokes them: with the daemon's key, as the daemon does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from scheduler import wire
from scheduler.bounded_answers import answer_head
from scheduler.daemon.backends.uplink_probe import probe_uplink
from scheduler.daemon.clocks import wall_s
from scheduler.deploying.errors import DeployError
from scheduler.deploying.platform import Patience, Platform
from scheduler.doctor.edge_facts import ahead_of, drawn, hashes, timed_calls
from scheduler.doctor.facts import Calls, FunctionFacts, Permission, Refused, TierFacts, UplinkFacts
from scheduler.doctor.wanted import Wanted, WantedModel, WantedTier
from scheduler.fc_client import Account, CallFailed, FunctionCaller
from scheduler.measuring.function_call import BatchCaller, FunctionAddress, NotCalled
from scheduler.terminal import Progress
from scheduler.wire import InferRequest

_LATEST = "LATEST"
_DEPLOYING = "`edgeburst fc`"


def function_facts(
    account: Account, wanted: Wanted, *, key: str, deploys: bool, calls: int, work: Progress
) -> FunctionFacts:
    """Returns the facts of the function account.

    Args:
        account: endpoint and access key.
        wanted: the configuration's expectations.
        key: in words: where the access key is.
        deploys: whether the configuration also makes functions, so that the key needs more permissions.
        calls: invocations of each tier, which are billed; 0: none.
        work: shows what is done, and counts the calls.
    """
    caller = FunctionCaller(account, connections=1)
    caller.open()
    tiers = []
    for model in wanted.models.values():
        for tier in model.tiers:
            work.say(f"asking for function {tier.function}:{tier.qualifier}")
            tiers.append(_tier(caller, account, model, tier, calls=calls, work=work))
    refusals = [each for tier in tiers for each in (tier.not_described, tier.not_called) if each is not None]
    away = any(each.status == 0 for each in refusals)
    uplink = None
    if tiers and not away:
        work.say("measuring the uplink")
        uplink = _uplink(account, wanted)
    may_ask = deploys and bool(tiers) and not refusals
    permissions = tuple(_permissions(account, tiers, work)) if may_ask else ()
    return FunctionFacts(account.host, key, tuple(tiers), uplink, permissions)


def _tier(
    caller: FunctionCaller, account: Account, model: WantedModel, tier: WantedTier, *, calls: int, work: Progress
) -> TierFacts:
    described, not_described, is_there = None, None, False
    try:
        described = caller.check(function=tier.function, qualifier=tier.qualifier)
    except CallFailed as failed:
        not_described = _refused(failed)
    ahead_s = ahead_of(answer_head()[1], wall_s())
    if not_described is not None and not_described.status == 404 and tier.qualifier != _LATEST:
        is_there = _answers(lambda: caller.check(function=tier.function, qualifier=_LATEST))
    names = (model.name, tier.name, tier.function, tier.qualifier)
    if not_described is not None and not_described.status in (0, 404):
        return TierFacts(*names, None, not_described, is_there, ahead_s)
    if not calls:
        return TierFacts(*names, described, not_described, is_there, ahead_s)
    work.say(f"invoking {tier.function}:{tier.qualifier}, {calls} times")
    address = FunctionAddress(tier.function, tier.qualifier, account)
    payloads = drawn(model.inputs, model.name)
    call = BatchCaller(address, model=model.name, payloads=payloads, asks={"describe": True})
    refused: list[CallFailed] = []
    made = timed_calls(_noting(call, refused), calls, work.advance)
    return TierFacts(
        *names,
        described,
        not_described,
        is_there,
        ahead_s,
        calls=Calls(made.seconds) if refused else made,
        not_called=_refused(refused[0]) if refused else None,
        identity=str(call.answered.get("identity") or ""),
        files=hashes(call.answered.get("files")),
    )


def _noting(call: BatchCaller, refused: list[CallFailed]) -> Callable[[int], float]:
    """Returns a call that notes what the provider refuses."""

    def noting(items: int) -> float:
        try:
            return call(items)
        except NotCalled as error:
            refused.append(error.failed)
            raise

    return noting


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except CallFailed:
        return False
    return True


def _refused(failed: CallFailed) -> Refused:
    return Refused(failed.failure.kind, failed.status, failed.code, failed.said, failed.failure.message)


def _uplink(account: Account, wanted: Wanted) -> UplinkFacts:
    sizes = {name: _request_bytes(model) for name, model in wanted.models.items() if model.tiers}
    tls = account.protocol == "https"
    measured = asyncio.run(probe_uplink(host=account.host, tls=tls, clock=time.monotonic))
    if measured is None:
        return UplinkFacts(False, None, None, sizes)
    rate = measured.sent_bytes / measured.transfer_s if measured.transfer_s else None
    return UplinkFacts(True, measured.rtt_s, rate, sizes)


def _request_bytes(model: WantedModel) -> int:
    """Returns the size of a call with one item."""
    request = InferRequest("", drawn(model.inputs, model.name)[0])
    return len(wire.pack_frame({"model": model.name, "batch_id": "0" * 16}, wire.encode_request(request)))


def _permissions(account: Account, tiers: Sequence[TierFacts], work: Progress) -> Iterator[Permission]:
    """Yields the permissions to read; those to write are not tried, because trying them writes."""
    work.say("asking for the permissions of `edgeburst fc`")
    platform = Platform(account, Patience(limit_s=10.0, clock=time.monotonic, sleep=lambda _: None))
    name = tiers[0].function
    if any(tier.calls is not None for tier in tiers):
        yield Permission("fc:InvokeFunction", "the daemon")
    questions: tuple[tuple[str, Callable[[], object]], ...] = (
        ("fc:GetFunction", lambda: platform.function(name)),
        ("fc:ListFunctions", platform.functions),
        ("fc:ListFunctionVersions", lambda: platform.versions(name)),
        ("fc:ListAliases", lambda: platform.aliases(name)),
        ("fc:ListProvisionConfigs", lambda: platform.provisioned(name)),
        ("fc:GetConcurrencyConfig", lambda: platform.reserved(name)),
        ("fc:ListTriggers", lambda: platform.triggers(name)),
    )
    for action, question in questions:
        try:
            question()
        except DeployError as error:
            yield Permission(action, _DEPLOYING, str(error).partition(";")[0])
        else:
            yield Permission(action, _DEPLOYING)
