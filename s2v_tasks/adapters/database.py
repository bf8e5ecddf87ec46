"""The calls in the ledger's database: one transaction for each thing that must not come apart.

A writer on SQLite begins IMMEDIATE, one on PostgreSQL locks the pace row first, so ``now`` is always read
while nobody else can reserve.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks import books
from s2v_tasks import pace as pacing
from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.lease import Lease
from s2v_tasks.adapters.leases import LeaseDatabase
from s2v_tasks.adapters.together import Together, whole
from s2v_tasks.detect import Answer
from s2v_tasks.ledger import (
    CHARGED,
    MOVES,
    Busy,
    NotReserved,
    Reserved,
    Scope,
    Spent,
    Standing,
    State,
    settled_state,
    verdict_of,
)
from s2v_tasks.models import Billing, Outcome, Verdict

_REMEMBERED = ("reason", "check_pass", "humanoid", "code", "message", "request_id", "http_status")
_EXPORTED_AT_ONCE = 10_000
_SUMS = ("calls_run", "charges_run", "charges", "lost")
_Come = Reserved | NotReserved | Busy | Spent


@dataclass(frozen=True, slots=True)
class _Ask:
    """A picture that someone wants to ask about."""

    image_key: str
    host: str
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class _Answered:
    """An answer to an attempt."""

    image_key: str
    attempt_id: int
    answer: Answer

    @property
    def state(self) -> State:
        return settled_state(self.answer)


class LedgerDatabase(LeaseDatabase):
    """The ledger's statements; use it as an async context manager."""

    def __init__(self, url: str, clock: Clock, *, existing: bool = False) -> None:
        super().__init__(url, clock, existing=existing)
        self._reserving = Together(self._reserve_all)
        self._postponing = Together(self._postpone_all)
        self._settling = Together(self._settle_all)

    # -- what is known -----------------------------------------------------------------------------------

    async def standings(self, lease: Lease, image_keys: Sequence[str]) -> dict[str, Standing]:
        """What the ledger knows about each of some pictures (up to a few thousand)."""
        async with self._reading() as db:
            return await self._standings(db, lease, image_keys)

    async def _standings(
        self, db: AsyncConnection, lease: Lease, image_keys: Sequence[str]
    ) -> dict[str, Standing]:
        a, v = t.attempts.c, t.verdicts.c
        ours = a.run_id == lease.run_id
        charge = sa.case((a.state.in_(CHARGED), a.price_micro_usd), else_=0)
        sums = await db.execute(
            sa.select(
                a.image_key,
                sa.func.sum(sa.case((ours, 1), else_=0)).label("calls_run"),
                sa.func.sum(sa.case((ours, charge), else_=0)).label("charges_run"),
                sa.func.sum(charge).label("charges"),
                sa.func.sum(sa.case((a.state == State.UNKNOWN, 1), else_=0)).label("lost"),
            )
            .where(self._image(t.attempts, lease.scope), a.image_key.in_(image_keys))
            .group_by(a.image_key)
        )
        counts = {row["image_key"]: row for row in sums.mappings()}
        known = await db.execute(
            sa.select(t.verdicts).where(self._image(t.verdicts, lease.scope), v.image_key.in_(image_keys))
        )
        verdicts = {row["image_key"]: row for row in known.mappings()}
        return {key: _standing(key, counts.get(key), verdicts.get(key)) for key in image_keys}

    async def charges(self, lease: Lease) -> dict[State, int]:
        """What the run was charged, in micro-USD, by state of the attempts."""
        a = t.attempts.c
        async with self._reading() as db:
            rows = await db.execute(
                sa.select(a.state, sa.func.sum(a.price_micro_usd))
                .where(a.run_id == lease.run_id)
                .group_by(a.state)
            )
            return {**dict.fromkeys(State, 0), **{State(state): int(sum_) for state, sum_ in rows}}

    async def attempts(self) -> AsyncIterator[pl.DataFrame]:
        """Every attempt, oldest first, in frames of `s2v_tasks.books.SCHEMA`."""
        columns = [t.attempts.c[name] for name in books.SCHEMA]
        async with self._reading() as db:
            rows = await db.stream(sa.select(*columns).order_by(t.attempts.c.id))
            async for chunk in rows.partitions(_EXPORTED_AT_ONCE):
                yield pl.DataFrame([tuple(row) for row in chunk], schema=books.SCHEMA, orient="row")

    # -- the money: reserve, postpone, settle --------------------------------------------------------------

    async def reserve(self, lease: Lease, image_key: str, host: str, rate_per_s: float) -> "_Come":
        """Reserve picture, money and instant in one transaction, before anything leaves.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        done: list[Reserved] = []
        try:
            return await self._reserve(lease, _Ask(image_key, host, rate_per_s), done)
        except asyncio.CancelledError:
            for reserved in done:
                await self.release(lease, reserved)
            raise

    @whole
    async def _reserve(self, lease: Lease, ask: "_Ask", done: list[Reserved]) -> "_Come":
        come = await self._reserving(lease, ask)
        if isinstance(come, Reserved):
            done.append(come)
        return come

    async def _reserve_all(self, lease: Lease, asks: list["_Ask"]) -> "Sequence[_Come]":
        first: dict[str, _Ask] = {}
        for ask in asks:
            first.setdefault(ask.image_key, ask)
        try:
            async with self._writing() as db:
                pace = await self._lock_pace(db, lease.scope)
                now_us = await self._now_us(db)
                await self._check_lease(db, lease)
                come = await self._not_to_ask(db, lease, list(first), now_us)
                wanted = [ask for key, ask in first.items() if key not in come]
                paid = await self._charge(db, lease, len(wanted))
                if paid < len(wanted):
                    spent = Spent(final=not paid and await self._is_spent(db, lease, now_us))
                    come.update((ask.image_key, spent) for ask in wanted[paid:])
                if paid:
                    ids = await self._insert_attempts(db, lease, wanted[:paid])
                    for ask, attempt_id in zip(wanted, ids, strict=False):
                        at_us, pace = pacing.reserve(pace, now_us, ask.rate_per_s)
                        come[ask.image_key] = self._reserved(attempt_id, at_us, pace)
                    await self._store_pace(db, lease.scope, pace)
        except IntegrityError:  # another account on the same service was faster: the unique key held
            return [Busy()] * len(asks)
        return [come.pop(ask.image_key, Busy()) for ask in asks]  # of the same picture twice, one waits

    async def _not_to_ask(
        self, db: AsyncConnection, lease: Lease, image_keys: Sequence[str], now_us: int
    ) -> "dict[str, _Come]":
        """Which pictures need no call, or have one under way."""
        a = t.attempts.c
        these = sa.and_(self._image(t.attempts, lease.scope), a.image_key.in_(image_keys))
        underway = sa.and_(these, a.state == State.RESERVED)
        busy = set(await db.scalars(sa.select(a.image_key).where(underway)))
        if busy:
            await self._free_dead(db, now_us, underway, lease)
            busy = set(await db.scalars(sa.select(a.image_key).where(underway)))
        standings = await self._standings(db, lease, [key for key in image_keys if key not in busy])
        no_call = {
            key: NotReserved(standing)
            for key, standing in standings.items()
            if standing.verdict is not None or standing.is_exhausted(lease.on_unknown)
        }
        return {**dict.fromkeys(busy, Busy()), **no_call}

    async def _charge(self, db: AsyncConnection, lease: Lease, images: int) -> int:
        """Take money for up to so many pictures; for how many there was some."""
        b = t.budgets.c
        ours = sa.select(b.cap - b.used).where(b.name == lease.budget).with_for_update()
        paid = max(0, min(images, await db.scalar(ours) or 0))
        if paid:
            await db.execute(sa.update(t.budgets).where(b.name == lease.budget).values(used=b.used + paid))
        return paid

    async def _is_spent(self, db: AsyncConnection, lease: Lease, now_us: int) -> bool:
        """Whether nothing is under way that may turn out free."""
        a = t.attempts.c
        pending = sa.and_(a.budget == lease.budget, a.state == State.RESERVED)
        await self._free_dead(db, now_us, pending, lease)  # those will never turn out free
        return not await db.scalar(sa.select(sa.exists().where(pending)))

    async def _insert_attempts(
        self, db: AsyncConnection, lease: Lease, asks: Sequence["_Ask"]
    ) -> Sequence[int]:
        insert = sa.insert(t.attempts).returning(t.attempts.c.id, sort_by_parameter_order=True)
        shared = {
            "service": lease.scope.service,
            "account": lease.scope.account,
            "model": lease.scope.profile.model,
            "run_id": lease.run_id,
            "budget": lease.budget,
            "state": State.RESERVED,
            "price_micro_usd": lease.scope.profile.price_micro_usd,
            "reserved_at": self._at(),
        }
        rows = [{**shared, "image_key": ask.image_key, "host": ask.host} for ask in asks]
        return (await db.scalars(insert, rows)).all()

    @whole
    async def postpone(
        self, lease: Lease, reserved: Reserved, rate_per_s: float, lead_s: float = 0.0
    ) -> Reserved:
        """A new instant, at least ``lead_s`` away, for a reservation whose instant was missed.

        The lead is for the time that it takes to write this one down, or on a slow disk it would be missed
        again.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        return await self._postponing(lease, (reserved, rate_per_s, lead_s))

    async def _postpone_all(
        self, lease: Lease, missed: list[tuple[Reserved, float, float]]
    ) -> Sequence[Reserved]:
        moved = []
        async with self._writing() as db:
            pace = await self._lock_pace(db, lease.scope)
            now_us = await self._now_us(db)
            await self._check_lease(db, lease)
            for reserved, _, _ in sorted(missed, key=lambda one: one[0].instant_us, reverse=True):
                pace = pacing.give_back(pace, reserved.instant_us, reserved.after_us)
            for reserved, rate_per_s, lead_s in missed:
                at_us, pace = pacing.reserve(pace, now_us, rate_per_s, round(lead_s * pacing.SECOND_US))
                moved.append(self._reserved(reserved.attempt_id, at_us, pace))
            await self._store_pace(db, lease.scope, pace)
        return moved

    @whole
    async def release(self, lease: Lease, reserved: Reserved) -> None:
        """Forget a reservation whose call never left, and give its money back."""
        a, b = t.attempts.c, t.budgets.c
        ours = sa.and_(a.id == reserved.attempt_id, a.state == State.RESERVED)
        async with self._writing() as db:
            if (await db.execute(sa.delete(t.attempts).where(ours))).rowcount:
                await db.execute(sa.update(t.budgets).where(b.name == lease.budget).values(used=b.used - 1))

    @whole
    async def settle(self, lease: Lease, image_key: str, attempt_id: int, answer: Answer) -> None:
        """Keep an answer: the attempt's state, the money and, where it is one to remember, the verdict.

        Allowed even to a run that lost its lease: an answer that was received is never thrown away.
        """
        await self._settling(lease, _Answered(image_key, attempt_id, answer))

    async def _settle_all(self, lease: Lease, answered: list["_Answered"]) -> Sequence[None]:
        async with self._writing() as db:
            await self._settle_in(db, lease, answered)
        return [None] * len(answered)

    async def _settle_in(self, db: AsyncConnection, lease: Lease, answered: Sequence["_Answered"]) -> None:
        a, b = t.attempts.c, t.budgets.c
        ids = [one.attempt_id for one in answered]
        rows = sa.select(a.id, a.state).where(a.id.in_(ids)).order_by(a.id).with_for_update()
        before = {number: State(state) for number, state in await db.execute(rows)}
        moves = [one for one in answered if (before.get(one.attempt_id), one.state) in MOVES]
        try:
            async with db.begin_nested():
                await self._move(db, [(one, one.state) for one in moves])
        except IntegrityError:  # billed for another run meanwhile: that charge counts as a lost one
            if len(answered) == 1:
                await self._move(db, [(answered[0], State.UNKNOWN)])
                return
            for one in answered:
                await self._settle_in(db, lease, [one])
            return
        if free := sum(one.state is State.NOT_BILLED for one in moves):
            await db.execute(sa.update(t.budgets).where(b.name == lease.budget).values(used=b.used - free))
        if remembered := [self._memory(lease, one) for one in answered if one.answer.remembered]:
            await db.execute(self._insert(t.verdicts).on_conflict_do_nothing(), remembered)

    async def _move(self, db: AsyncConnection, moves: Sequence[tuple["_Answered", State]]) -> None:
        changes = [
            {
                "attempt": one.attempt_id,
                "state": state,
                "settled_at": self._at(),
                "request_id": one.answer.request_id,
                "http_status": one.answer.http_status,
                "code": one.answer.code,
            }
            for one, state in moves
        ]
        if changes:
            await db.execute(sa.update(t.attempts).where(t.attempts.c.id == sa.bindparam("attempt")), changes)

    def _memory(self, lease: Lease, answered: "_Answered") -> dict[str, object]:
        """The row of `tables.verdicts` for an answer to remember."""
        verdict = asdict(verdict_of(answered.image_key, answered.answer))
        return {
            "image_key": answered.image_key,
            "model": lease.scope.profile.model,
            "service": lease.scope.service,
            "attempt_id": answered.attempt_id,
            "run_id": lease.run_id,
            "billing": answered.answer.billing,
            "judged_at": self._at(),
            "outcome": verdict["outcome"],
            **{name: verdict[name] for name in _REMEMBERED},
        }

    @whole
    async def slow_down(self, lease: Lease, sent_us: int, answer: Answer) -> float:
        """Pause everyone on the account after a 429 for a call that left at ``sent_us``.

        Returns until when, on the local clock.
        """
        retry_after_us = round((answer.retry_after_s or 0.0) * pacing.SECOND_US)
        async with self._writing() as db:
            row = await self._lock_pace(db, lease.scope)
            now_us = await self._now_us(db)
            pace = pacing.throttled(row, sent_us, now_us, retry_after_us, burst=answer.is_burst)
            await self._store_pace(db, lease.scope, pace)
        return self._local_s(pace.paused_until_us)

    # -- inside a transaction ------------------------------------------------------------------------------

    def _reserved(self, attempt_id: int, instant_us: int, pace: pacing.Pace) -> Reserved:
        return Reserved(attempt_id, self._local_s(instant_us), instant_us, pace.next_us)

    def _local_s(self, instant_us: int) -> float:
        """An instant on the local clock."""
        return instant_us / pacing.SECOND_US + self._offset_s

    def _image(self, table: sa.Table, scope: Scope) -> sa.ColumnElement[bool]:
        return sa.and_(table.c.model == scope.profile.model, table.c.service == scope.service)


def _standing(key: str, counts: sa.RowMapping | None, known: sa.RowMapping | None) -> Standing:
    standing = Standing(key)
    if counts is not None:
        calls_run, charges_run, charges, lost = (int(counts[name]) for name in _SUMS)
        standing = Standing(key, None, None, calls_run, charges_run, charges, lost)
    if known is not None:
        verdict = Verdict(
            key,
            Outcome(known["outcome"]),
            billing=Billing(known["billing"]),
            judged_at=datetime.fromtimestamp(known["judged_at"] / 1e6, UTC),
            **{name: known[name] for name in _REMEMBERED},
        )
        standing = replace(standing, verdict=verdict, verdict_run=known["run_id"])
    return standing
