"""All instances: selects one for a request, starts and ends instances."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from serverless_fn.local_fc.container import free_port
from serverless_fn.local_fc.errors import FcError, exhausted
from serverless_fn.local_fc.faults import Faults
from serverless_fn.local_fc.instance import Instance, StartFailed, Status, Surroundings
from serverless_fn.local_fc.ledger import Ledger
from serverless_fn.local_fc.limits import TokenBucket
from serverless_fn.local_fc.meter import Residence
from serverless_fn.local_fc.registry import LATEST_ID, FunctionRecord, Provision, Registry, Resolved, Version

_LOG = logging.getLogger("edgeburst.local_fc.fleet")
_HISTORY = 1000
_RETRY_S = 1.0


@dataclass(slots=True)
class _Problem:
    """Reason why the last start of a provisioned instance failed, and the time of the next attempt."""

    message: str
    retry: asyncio.TimerHandle


class Fleet:
    """Instances of all functions. All methods must be called on the event loop.

    Args:
        surroundings: objects that all instances share.
        registry: the functions and their provisioned instances.
        faults: faults that act on starts and capacity.
        ledger: stores the usage of instances that have ended.
    """

    def __init__(self, surroundings: Surroundings, registry: Registry, faults: Faults, ledger: Ledger) -> None:
        account = surroundings.account
        self._surroundings = surroundings
        self._registry = registry
        self._faults = faults
        self._ledger = ledger
        self._growth = TokenBucket(capacity=account.burst_instances, per_s=account.growth_per_min / 60)
        # Starting provisioned instances queue for the cores of this machine; on the platform each has its own.
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)
        self._instances: dict[str, Instance] = {}
        self._problems: dict[tuple[str, str], _Problem] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.history: deque[Instance] = deque(maxlen=_HISTORY)

    def live(self, function: str | None = None) -> list[Instance]:
        """Returns the instances that have not ended, of one function or of all."""
        return [each for each in self._instances.values() if function in (None, each.function)]

    def provisioned(self, function: str, qualifier: str) -> int:
        """Returns the number of provisioned instances that are ready."""
        kept = [each for each in self.live(function) if each.provisioned and each.qualifier == qualifier]
        return sum(each.status is Status.READY and not each.draining for each in kept)

    def keeps(self, function: str) -> bool:
        """Returns whether instances are provisioned, or were provisioned and have not ended."""
        targets = [each.target for each in self._registry.get(function).provisions.values()]
        return any(targets) or any(each.provisioned for each in self.live(function))

    def problem(self, function: str, qualifier: str) -> str:
        """Returns why provisioned instances are missing; "" if no start failed."""
        problem = self._problems.get((function, qualifier))
        if problem is not None:
            return problem.message
        provision = self._registry.get(function).provisions.get(qualifier)
        missing = provision.target - self.provisioned(function, qualifier) if provision else 0
        max_instances = self._surroundings.account.max_instances
        full = missing > 0 and len(self._instances) >= max_instances
        return f"the account's limit of {max_instances} instances is reached" if full else ""

    async def acquire(self, resolved: Resolved) -> Instance:
        """Returns an instance with a slot reserved for the caller; starts one if necessary.

        Raises:
            FcError: 429 ResourceExhausted: a limit is reached.
            StartFailed: the instance could not be started.
        """
        function = resolved.version.spec.name
        if self._registry.get(function).reserved == 0:
            raise exhausted(f"function {function!r} has a reserved concurrency of 0, which blocks all calls")
        instance = self._with_free_slot(resolved) or self._start_for(resolved)
        instance.in_flight += 1
        if instance.reclaim is not None:
            instance.reclaim.cancel()
        try:
            await asyncio.shield(instance.ready)
            await self._wake(instance)
        except BaseException:
            self.release(instance)
            raise
        return instance

    def release(self, instance: Instance) -> None:
        """Releases the slot."""
        instance.in_flight -= 1
        if instance.in_flight or instance.status is not Status.READY:
            return
        if instance.draining or not instance.container.alive:
            self.retire(instance)
        elif not instance.provisioned:
            self._reclaim_later(instance)
        else:
            instance.hibernated = self._residence(instance) is Residence.HIBERNATED

    def retire(self, instance: Instance, *, at_once: bool = False) -> None:
        """Sends no further requests to an instance and ends it when it serves none, or at once."""
        instance.draining = True
        # An instance that is still starting ends when its start does.
        idle = instance.in_flight == 0 and instance.status is Status.READY
        if instance.status in (Status.STARTING, Status.READY) and (idle or at_once):
            instance.status = Status.STOPPING
            self._spawn(self._end(instance, gracefully=not at_once), f"{instance.id} end")

    def sync(self, function: str) -> None:
        """Adapts the instances of a function to the state of the registry."""
        record = self._registry.functions().get(function)
        provisions = {} if record is None or self._stopping else dict(record.provisions)
        for instance in self.live(function):
            if (
                record is None
                or _outdated(instance, record)
                or (instance.provisioned and instance.qualifier not in provisions)
            ):
                self.retire(instance)
        for qualifier, provision in provisions.items():
            self._keep(function, qualifier, provision)

    async def stop(self) -> None:
        """Ends all instances; returns when their processes have ended."""
        self._stopping = True
        for problem in self._problems.values():
            problem.retry.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A pre-stop hook may take 90 s; the stop of the endpoint does not wait for it.
        limit_s = 2 * self._surroundings.account.stop_limit_s + 1
        ends = [self._end(each, gracefully=True) for each in self.live()]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*ends), limit_s)
        await asyncio.gather(*(self._end(each, gracefully=False) for each in self.live()))

    def _with_free_slot(self, resolved: Resolved) -> Instance | None:
        """Returns the instances with a free slot: ready before starting, provisioned before on-demand, last used first.

        Since the one used last is preferred, the others become idle and are stopped.
        """
        version = resolved.version
        free = [
            each
            for each in self.live(version.spec.name)
            if each.has_free_slot
            and each.qualifier == resolved.qualifier
            and (each.version.version_id, each.version.revision) == (version.version_id, version.revision)
        ]
        order = ((each.status is Status.READY, each.provisioned, each.last_used_ns) for each in free)
        return max(zip(order, free, strict=True), key=lambda pair: pair[0], default=(None, None))[1]

    def _start_for(self, resolved: Resolved) -> Instance:
        function = resolved.version.spec.name
        record = self._registry.get(function)
        provision = record.provisions.get(resolved.qualifier)
        if not resolved.version.spec.on_demand or (provision is not None and not provision.on_demand):
            raise exhausted(f"all provisioned instances of {function!r} are busy and on-demand instances are disabled")
        self._refuse_over_limits(function, record.reserved)
        if self._faults.capacity_is_out(function):
            raise exhausted(f"no capacity for a new instance of {function!r}")
        if not self._growth.try_take(time.monotonic()):
            raise exhausted("instances are added too fast; the burst is used up")
        return self._add(resolved.version, resolved.qualifier, provisioned=False)

    def _refuse_over_limits(self, function: str, reserved: int | None) -> None:
        if reserved is not None and len(self.live(function)) >= reserved:
            raise exhausted(f"function {function!r} has reached its reserved concurrency of {reserved}")
        promised = sum(
            max(0, record.reserved - len(self.live(name)))
            for name, record in self._registry.functions().items()
            if record.reserved is not None and name != function
        )
        max_instances = self._surroundings.account.max_instances
        if len(self._instances) + promised >= max_instances:
            raise exhausted(
                f"the account's limit of {max_instances} instances is reached ({promised} are reserved elsewhere)"
            )

    def _keep(self, function: str, qualifier: str, provision: Provision) -> None:
        """Starts or retires provisioned instances until their number is the target."""
        try:
            version = self._registry.resolve(function, qualifier, 1.0).version
        except FcError:
            return
        kept = []
        for instance in self.live(function):
            if instance.provisioned and instance.qualifier == qualifier and not instance.draining:
                # An alias may point to another version by now.
                if instance.version is version:
                    kept.append(instance)
                else:
                    self.retire(instance)
        for instance in kept:
            if instance.status is Status.READY:
                instance.meter.reside(provision.residence, time.monotonic_ns())
        for instance in sorted(kept, key=lambda each: each.in_flight)[: max(0, len(kept) - provision.target)]:
            self.retire(instance)
        problem = self._problems.get((function, qualifier))
        room = self._surroundings.account.max_instances - len(self._instances)
        if problem is None and not self._registry.get(function).missing_image:
            for _ in range(min(room, provision.target - len(kept))):
                self._add(version, qualifier, provisioned=True)

    def _add(self, version: Version, qualifier: str, *, provisioned: bool) -> Instance:
        instance = Instance(
            self._surroundings,
            instance_id=self._surroundings.ids.instance(),
            version=version,
            qualifier=qualifier,
            provisioned=provisioned,
            port=self._port(),
        )
        self._instances[instance.id] = instance
        self._spawn(self._live(instance), f"{instance.id} life")
        return instance

    def _port(self) -> int:
        taken = {each.port for each in self._instances.values()}
        while (port := free_port()) in taken:
            pass
        return port

    async def _live(self, instance: Instance) -> None:
        """Runs an instance from its start until its process ends, for any reason."""
        try:
            await self._bring_up(instance)
        except StartFailed as error:
            self._start_failed(instance, error)
            return
        _LOG.info("%s of %s is ready on port %d", instance.id, instance.function, instance.port)
        instance.ready.set_result(None)
        if instance.in_flight == 0 and instance.draining:
            self.retire(instance)
        elif instance.in_flight == 0 and not instance.provisioned:
            self._reclaim_later(instance)
        health = asyncio.get_running_loop().create_task(instance.watch_health(), name=f"{instance.id} health")
        try:
            await instance.container.exited()
        finally:
            health.cancel()
        if instance.status is Status.READY:
            self._note(instance, f"it ended by itself; last output: {instance.container.last_words}")
            self.retire(instance, at_once=True)

    async def _bring_up(self, instance: Instance) -> None:
        delay_s = self._faults.cold_start_delay_s(instance.function)
        await asyncio.sleep(delay_s)
        if not instance.provisioned:
            await instance.start(Residence.ON_DEMAND)
            return
        async with self._starts:
            await instance.start(self._residence(instance))
        instance.hibernated = self._residence(instance) is Residence.HIBERNATED

    def _start_failed(self, instance: Instance, error: StartFailed) -> None:
        instance.ready.set_exception(error)
        # The waiting callers get the error; a provisioned instance may have none.
        instance.ready.exception()
        self._note(instance, str(error))
        self.retire(instance, at_once=True)

    def _note(self, instance: Instance, problem: str) -> None:
        """Stores the error; a provisioned instance is replaced after a pause, to avoid failures in a tight loop."""
        _LOG.warning("%s of %s: %s", instance.id, instance.function, problem)
        key = (instance.function, instance.qualifier)
        if not instance.provisioned or self._stopping:
            return
        if key in self._problems:
            self._problems[key].retry.cancel()
        retry = asyncio.get_running_loop().call_later(_RETRY_S, self._try_again, *key)
        self._problems[key] = _Problem(problem, retry)

    def _try_again(self, function: str, qualifier: str) -> None:
        del self._problems[function, qualifier]
        self.sync(function)

    async def _end(self, instance: Instance, *, gracefully: bool) -> None:
        if instance.reclaim is not None:
            instance.reclaim.cancel()
        instance.status = Status.STOPPING
        await instance.stop(gracefully=gracefully)
        if self._instances.pop(instance.id, None) is None:
            return
        self._ledger.close(instance.function, instance.version.spec.resources, instance.used())
        self.history.append(instance)
        if not self._stopping:
            self.sync(instance.function)

    async def _wake(self, instance: Instance) -> None:
        if instance.hibernated:
            await asyncio.sleep(self._surroundings.account.wake_s)
            instance.hibernated = False

    def _residence(self, instance: Instance) -> Residence:
        record = self._registry.functions().get(instance.function)
        provision = record.provisions.get(instance.qualifier) if record else None
        return provision.residence if provision else Residence.ON_DEMAND

    def _reclaim_later(self, instance: Instance) -> None:
        idle_s = instance.version.spec.idle_s
        after_s = self._surroundings.account.idle_s if idle_s is None else idle_s
        instance.reclaim = asyncio.get_running_loop().call_later(after_s, self.retire, instance)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _outdated(instance: Instance, record: FunctionRecord) -> bool:
    """Returns whether new instances would run another version."""
    version_id = instance.version.version_id
    current = record.latest if version_id == LATEST_ID else record.versions.get(version_id)
    return current is None or instance.version.revision != current.revision
