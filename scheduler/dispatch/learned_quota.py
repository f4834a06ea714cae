"""How many function batches the provider runs at once, of each tier and of the account, as its refusals have shown.

Without a refusal nothing is kept and nothing limited. Everything is counted among the batches in flight that were sent
before the refused one: the uplink carries them in order, so what was sent after it had not arrived.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.dispatch.granted_concurrency import GrantedConcurrency
from scheduler.dispatch.uplink import NO_POOL, Pool, Slots, UplinkOccupancy
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.memory import Remembered, entries, rows
from scheduler.domain.messages import QuotaLearned
from scheduler.domain.plans import EngineSettings
from scheduler.domain.quotas import Quota

VERSION = 1
ACCOUNT = NO_POOL
"""Stands for all tiers together."""
TOLD_FACTOR = 1.25
"""A quota is told anew when it has changed by more than this. Judgement: a line in the log and a plan for each step of
a provider's doubling or halving, none for the search around a steady wall."""


class Sent(NamedTuple):
    """A function batch that was sent after a refusal was known, with the batches in flight then, itself included."""

    at_s: float
    in_pool: int
    in_all: int


class Blame(NamedTuple):
    """What the last refusal of a tier was put down to."""

    at_s: float
    key: Pool


@dataclass(slots=True)
class LearnedQuota:
    """What is known of the provider's limits on concurrency."""

    uplink: UplinkOccupancy
    listeners: tuple[Callable[[QuotaLearned], None], ...] = ()
    """Told when a quota is learned, has changed much or is gone."""
    known: dict[Pool, GrantedConcurrency] = field(default_factory=dict)
    """Empty until a refusal."""
    _most: dict[Pool, int] = field(default_factory=dict)
    """What is configured."""
    _functions: dict[Pool, str] = field(default_factory=dict)
    _sent: dict[int, Sent] = field(default_factory=dict)
    _ran: dict[Pool, int] = field(default_factory=dict)
    """Most batches of a tier that were seen to run at once, since a refusal."""
    _blamed: dict[Pool, Blame] = field(default_factory=dict)
    _told: dict[Pool, int] = field(default_factory=dict)

    def configure(self, settings: EngineSettings) -> None:
        """Takes over the configured limits; what is known of a function that is gone is forgotten."""
        tiers = {(model.name, tier.name): tier for model in settings.models for tier in model.tiers}
        functions = {pool: f"{tier.function_name}:{tier.qualifier}" for pool, tier in tiers.items()}
        for pool in [p for p in self._functions if functions.get(p) != self._functions[p]]:
            self._forget(pool)
        self._functions = functions
        self._most = {pool: tier.max_in_flight for pool, tier in tiers.items()}
        self._most[ACCOUNT] = settings.max_function_in_flight

    def slots(self, slots: Slots, *, now_s: float) -> Slots:
        """Returns configured slots within what is granted."""
        account, pool = self.known.get(ACCOUNT), self.known.get(slots.pool)
        in_all = None if account is None else account.limit(now_s)
        in_pool = None if pool is None else pool.limit(now_s)
        if in_all is None and in_pool is None:
            return slots
        return Slots(
            slots.max_in_flight if in_all is None else min(slots.max_in_flight, in_all),
            slots.pool,
            slots.max_in_pool if in_pool is None else min(slots.max_in_pool, in_pool),
        )

    def quotas(self) -> tuple[Quota, ...]:
        """Returns what is known, the account first."""
        found = [(key, known.granted) for key, known in sorted(self.known.items())]
        return tuple(Quota(*key, granted) for key, granted in found if granted is not None)

    def sent(self, batch_id: int, pool: Pool, *, now_s: float) -> None:
        """Notes a batch that has just been sent. Needed only where something is known."""
        self._sent[batch_id] = Sent(now_s, self.uplink.in_pool[pool], len(self.uplink.finishes_s))

    def answered(self, batch: Batch, *, now_s: float) -> None:
        """Learns from a batch that ran. Needed only where something is known."""
        sent = self._sent.pop(batch.batch_id, None)
        if sent is None:
            return
        pool = batch.model, batch.tier
        self._ran[pool] = max(self._ran.get(pool, 0), sent.in_pool)
        for key, running in ((pool, sent.in_pool), (ACCOUNT, sent.in_all)):
            known = self.known.get(key)
            if known is not None:
                known.answered(running, sent_at_s=sent.at_s, now_s=now_s)
                self._settle(key, known)

    def failed(self, batch: Batch, kind: FailureKind, *, now_s: float) -> bool:
        """Learns from a batch that failed and is still counted as in flight.

        Returns:
            Whether it has met a quota: others run, and when they are back it could be sent again.
        """
        self._sent.pop(batch.batch_id, None)
        pool = batch.model, batch.tier
        if kind is not FailureKind.THROTTLED or pool not in self._functions:
            return False
        in_pool, in_all = self._ahead(batch.batch_id, pool)
        key = self._blame(batch, in_pool, in_all, now_s=now_s)
        running = in_all if key == ACCOUNT else in_pool
        # Refused alone, it only takes back what refusals before it have taught.
        keys = [k for k in (key, ACCOUNT) if k in self.known] if running <= 1 else [key]
        for each in keys:
            known = self.known.setdefault(each, GrantedConcurrency())
            known.refused(running, sent_at_s=batch.sent_at_s, now_s=now_s)
            self._settle(each, known)
        return running > 1

    def _ahead(self, batch_id: int, pool: Pool) -> tuple[int, int]:
        """Returns the batches in flight that were sent before one, and itself: of its pool, and all."""
        in_pool = in_all = 1
        for other in self.uplink.finishes_s:
            if other == batch_id:
                break
            in_all += 1
            in_pool += self.uplink.pool_of[other] == pool
        return in_pool, in_all

    def _blame(self, batch: Batch, in_pool: int, in_all: int, *, now_s: float) -> Pool:
        """Returns what a refusal is put down to: its tier, or the account where as many of the tier ran before.

        If that is wrong the tier's next refusal is put down to the tier, unless as many have run again meanwhile.
        """
        pool, account = (batch.model, batch.tier), self.known.get(ACCOUNT)
        if in_all == in_pool:
            return pool
        blamed, ran = self._blamed.get(pool), self._ran.get(pool)
        if blamed is not None and batch.sent_at_s <= blamed.at_s:
            return blamed.key
        as_before = account is not None and account.wall is not None and in_all >= account.wall
        proven = in_pool == 1 or as_before if ran is None else in_pool <= ran
        key = ACCOUNT if proven else pool
        if proven:
            self._ran[pool] = in_pool - 1
        self._blamed[pool] = Blame(now_s, key)
        return key

    def _settle(self, key: Pool, known: GrantedConcurrency) -> None:
        """Tells what has changed; forgets what does not limit any more."""
        granted = known.granted
        if granted is None or known.level >= self._most.get(key, math.inf):
            self._forget(key)
            return
        told = self._told.get(key)
        if told is None or not told / TOLD_FACTOR <= granted <= told * TOLD_FACTOR:
            self._told[key] = granted
            self._tell(QuotaLearned(*key, granted))

    def _forget(self, key: Pool) -> None:
        for kept in (self.known, self._ran, self._blamed):
            kept.pop(key, None)
        if not self.known:
            self._sent.clear()
        if self._told.pop(key, None) is not None:
            self._tell(QuotaLearned(*key, None))

    def _tell(self, learned: QuotaLearned) -> None:
        for listener in self.listeners:
            listener(learned)

    def remembered(self) -> Remembered:
        """Returns the quotas as a part of what is remembered; those of functions that are still configured are kept."""

        def snapshot(now_s: float) -> object:
            return [
                {"model": model, "tier": tier, "of": self._of((model, tier)), "known": known.snapshot(now_s)}
                for (model, tier), known in sorted(self.known.items())
            ]

        def restore(content: object, age_s: float, now_s: float) -> None:
            found: dict[Pool, GrantedConcurrency] = {}
            for row in rows(content):
                given = entries(row)
                key = str(given["model"]), str(given["tier"])
                known = GrantedConcurrency.restored(given["known"], age_s=age_s, now_s=now_s)
                if given["of"] == self._of(key) and known.level < self._most.get(key, 0):
                    found[key] = known
            self.known.update(found)
            for key, known in found.items():
                self._settle(key, known)

        return Remembered("quotas", VERSION, "", snapshot, restore)

    def _of(self, key: Pool) -> str:
        """Returns what a quota is of: a function, or all of them."""
        return ",".join(sorted(set(self._functions.values()))) if key == ACCOUNT else self._functions.get(key, "")
