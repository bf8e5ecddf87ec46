"""The attempts: one transaction for each change of money, image and send time that must not come apart.

A writer on SQLite begins IMMEDIATE, one on PostgreSQL locks the rate limit's row first, so ``now`` is always
read while no other process can reserve.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.lease import Lease
from s2v_tasks.adapters.database.lease_store import LeaseStore
from s2v_tasks.adapters.database.ledger_reader import VERDICT_COLUMNS, in_scope, select_image_statuses
from s2v_tasks.adapters.database.rate_limit_store import RateLimitStore
from s2v_tasks.domain import rate_limit
from s2v_tasks.domain.detect import DetectResponse
from s2v_tasks.domain.ledger import (
    TRANSITIONS,
    Busy,
    NotReserved,
    OutOfBudget,
    Reserved,
    State,
    settled_state,
    verdict_of,
)

ReserveResult = Reserved | NotReserved | Busy | OutOfBudget


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """An image that is to be sent, at least ``lead_s`` from now."""

    image_key: str
    host: str
    rate_per_s: float
    lead_s: float


@dataclass(frozen=True, slots=True)
class PostponeRequest:
    """A reservation whose send time was missed; the new one is at least ``lead_s`` from now."""

    reserved: Reserved
    rate_per_s: float
    lead_s: float


@dataclass(frozen=True, slots=True)
class Settlement:
    """An attempt's response."""

    image_key: str
    attempt_id: int
    response: DetectResponse

    @property
    def state(self) -> State:
        """The state that the response moves the attempt to."""
        return settled_state(self.response)


class AttemptStore:
    """The attempts of runs, in an open database. Every method begins its own transaction.

    ``release`` and ``settle`` work without the lease too: a response that was received is never thrown away.
    """

    def __init__(self, database: Database, leases: LeaseStore, rate_limits: RateLimitStore) -> None:
        self._database = database
        self._leases = leases
        self._rate_limits = rate_limits

    async def reserve(self, lease: Lease, requests: Sequence[ReserveRequest]) -> Sequence[ReserveResult]:
        """Reserve image, money and send time of each request, as far as the budget goes.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        first: dict[str, ReserveRequest] = {}
        for request in requests:
            first.setdefault(request.image_key, request)
        try:
            async with self._database.transaction() as db:
                results = await self._reserve(db, lease, first)
        except IntegrityError:  # another account on the same service was faster: the unique key held
            return [Busy()] * len(requests)
        return [results.pop(request.image_key, Busy()) for request in requests]  # one image twice: one waits

    async def postpone(self, lease: Lease, requests: Sequence[PostponeRequest]) -> Sequence[Reserved]:
        """Give reservations new send times; their old ones are free again where the rate limit allows it.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        moved = []
        async with self._database.transaction() as db:
            state = await self._rate_limits.lock(db, lease.scope)
            now_us = await self._database.now_us(db)
            await self._leases.check(db, lease)
            for reserved in sorted((r.reserved for r in requests), key=lambda r: r.send_us, reverse=True):
                state = rate_limit.release_slot(state, reserved.send_us, reserved.next_us_after)
            for request in requests:
                lead_us = round(request.lead_s * rate_limit.SECOND_US)
                at_us, state = rate_limit.reserve(state, now_us, request.rate_per_s, lead_us)
                moved.append(self._reserved(request.reserved.attempt_id, at_us, state))
            await self._rate_limits.store(db, lease.scope, state)
        return moved

    async def release(self, lease: Lease, reserved: Reserved) -> None:
        """Delete a reservation whose call was never sent, and give its money back."""
        a = t.attempts.c
        this = sa.and_(a.id == reserved.attempt_id, a.state == State.RESERVED)
        async with self._database.transaction() as db:
            if (await db.execute(sa.delete(t.attempts).where(this))).rowcount:
                await self._refund(db, lease, 1)

    async def settle(self, lease: Lease, settlements: Sequence[Settlement]) -> Sequence[None]:
        """Store responses: the attempts' states, the money and, if their codes are listed, the verdicts."""
        async with self._database.transaction() as db:
            await self._settle(db, lease, settlements)
        return [None] * len(settlements)

    # -- inside a transaction: reserve ---------------------------------------------------------------------

    async def _reserve(
        self, db: AsyncConnection, lease: Lease, requests: dict[str, ReserveRequest]
    ) -> dict[str, ReserveResult]:
        """The result of each request, by its image's key."""
        state = await self._rate_limits.lock(db, lease.scope)
        now_us = await self._database.now_us(db)
        await self._leases.check(db, lease)
        results = await self._not_to_send(db, lease, list(requests), now_us)
        wanted = [request for key, request in requests.items() if key not in results]
        paid = await self._charge(db, lease, len(wanted))
        if paid < len(wanted):
            out = OutOfBudget(final=not paid and await self._is_exhausted(db, lease, now_us))
            results.update((request.image_key, out) for request in wanted[paid:])
        if paid:
            ids = await self._insert_attempts(db, lease, wanted[:paid])
            for request, attempt_id in zip(wanted, ids, strict=False):
                lead_us = round(request.lead_s * rate_limit.SECOND_US)
                at_us, state = rate_limit.reserve(state, now_us, request.rate_per_s, lead_us)
                results[request.image_key] = self._reserved(attempt_id, at_us, state)
            await self._rate_limits.store(db, lease.scope, state)
        return results

    async def _not_to_send(
        self, db: AsyncConnection, lease: Lease, image_keys: Sequence[str], now_us: int
    ) -> dict[str, ReserveResult]:
        """Which images need no call, or have one under way."""
        a = t.attempts.c
        these = sa.and_(in_scope(t.attempts, lease.scope), a.image_key.in_(image_keys))
        underway = sa.and_(these, a.state == State.RESERVED)
        busy = set(await db.scalars(sa.select(a.image_key).where(underway)))
        if busy:
            await self._leases.free_dead(db, now_us, underway, lease)
            busy = set(await db.scalars(sa.select(a.image_key).where(underway)))
        others = [key for key in image_keys if key not in busy]
        statuses = await select_image_statuses(db, lease.scope, others, lease.run_id)
        no_call = {
            key: NotReserved(status)
            for key, status in statuses.items()
            if status.verdict is not None or status.is_exhausted(lease.on_lost_response)
        }
        return {**dict.fromkeys(busy, Busy()), **no_call}

    async def _charge(self, db: AsyncConnection, lease: Lease, images: int) -> int:
        """Take money for up to so many images; for how many there was some."""
        b = t.budgets.c
        left = sa.select(b.cap - b.used).where(b.name == lease.budget).with_for_update()
        paid = max(0, min(images, await db.scalar(left) or 0))
        if paid:
            await db.execute(sa.update(t.budgets).where(b.name == lease.budget).values(used=b.used + paid))
        return paid

    async def _refund(self, db: AsyncConnection, lease: Lease, images: int) -> None:
        """Give the money for so many images back."""
        b = t.budgets.c
        await db.execute(sa.update(t.budgets).where(b.name == lease.budget).values(used=b.used - images))

    async def _is_exhausted(self, db: AsyncConnection, lease: Lease, now_us: int) -> bool:
        """Whether no call under way may turn out free."""
        a = t.attempts.c
        pending = sa.and_(a.budget == lease.budget, a.state == State.RESERVED)
        await self._leases.free_dead(db, now_us, pending, lease)  # those will never turn out free
        return not await db.scalar(sa.select(sa.exists().where(pending)))

    async def _insert_attempts(
        self, db: AsyncConnection, lease: Lease, requests: Sequence[ReserveRequest]
    ) -> Sequence[int]:
        insert = sa.insert(t.attempts).returning(t.attempts.c.id, sort_by_parameter_order=True)
        shared = {
            "service": lease.scope.service,
            "account": lease.scope.account,
            "model": lease.scope.detector.model,
            "run_id": lease.run_id,
            "budget": lease.budget,
            "state": State.RESERVED,
            "price_micro_usd": lease.scope.detector.price_micro_usd,
            "reserved_at": self._database.utc_us(),
        }
        rows = [{**shared, "image_key": request.image_key, "host": request.host} for request in requests]
        return (await db.scalars(insert, rows)).all()

    def _reserved(self, attempt_id: int, send_us: int, state: rate_limit.RateLimitState) -> Reserved:
        return Reserved(attempt_id, self._database.to_local_s(send_us), send_us, state.next_us)

    # -- inside a transaction: settle ----------------------------------------------------------------------

    async def _settle(self, db: AsyncConnection, lease: Lease, settlements: Sequence[Settlement]) -> None:
        a = t.attempts.c
        ids = [one.attempt_id for one in settlements]
        rows = sa.select(a.id, a.state).where(a.id.in_(ids)).order_by(a.id).with_for_update()
        before = {attempt_id: State(state) for attempt_id, state in await db.execute(rows)}
        moves = [one for one in settlements if (before.get(one.attempt_id), one.state) in TRANSITIONS]
        try:
            async with db.begin_nested():
                await self._move(db, [(one, one.state) for one in moves])
        except IntegrityError:  # billed for another run meanwhile: that charge counts as a lost one
            if len(settlements) == 1:
                await self._move(db, [(settlements[0], State.UNKNOWN)])
                return
            for one in settlements:
                await self._settle(db, lease, [one])
            return
        if free := sum(one.state is State.NOT_BILLED for one in moves):
            await self._refund(db, lease, free)
        if verdicts := [self._verdict(lease, one) for one in settlements if one.response.remembered]:
            await db.execute(self._database.insert(t.verdicts).on_conflict_do_nothing(), verdicts)

    async def _move(self, db: AsyncConnection, moves: Sequence[tuple[Settlement, State]]) -> None:
        changes = [
            {
                "attempt": one.attempt_id,
                "state": state,
                "settled_at": self._database.utc_us(),
                "request_id": one.response.request_id,
                "http_status": one.response.http_status,
                "code": one.response.code,
            }
            for one, state in moves
        ]
        if changes:
            await db.execute(sa.update(t.attempts).where(t.attempts.c.id == sa.bindparam("attempt")), changes)

    def _verdict(self, lease: Lease, settlement: Settlement) -> dict[str, object]:
        """The row of `tables.verdicts` for a response that is stored for later runs."""
        verdict = asdict(verdict_of(settlement.image_key, settlement.response))
        return {
            "image_key": settlement.image_key,
            "model": lease.scope.detector.model,
            "service": lease.scope.service,
            "attempt_id": settlement.attempt_id,
            "run_id": lease.run_id,
            "billing": settlement.response.billing,
            "checked_at": self._database.utc_us(),
            "outcome": verdict["outcome"],
            **{name: verdict[name] for name in VERDICT_COLUMNS},
        }
