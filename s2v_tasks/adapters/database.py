"""The ledger and the pace in a SQL database: one transaction for each thing that must not come apart.

SQLite for one machine, PostgreSQL when several share an account; the statements are the same. A writer on
SQLite begins IMMEDIATE, a writer on PostgreSQL locks the pace row first, so ``now`` is always read while
nobody else can reserve.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from s2v_tasks import pace as pacing
from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.clock import Clock
from s2v_tasks.adapters.lease import DEAD_AFTER_S, Holder
from s2v_tasks.detect import Answer
from s2v_tasks.errors import LeaseLost, LedgerUnavailable, UsageError
from s2v_tasks.ledger import CHARGED, MOVES, Standing, State, settled_state, verdict_of
from s2v_tasks.models import Billing, Outcome, Profile, Verdict
from s2v_tasks.settings import OnUnknown

_REMEMBERED = ("reason", "check_pass", "humanoid", "code", "message", "request_id", "http_status")
_SUMS = ("calls_run", "charges_run", "charges", "lost")
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose pictures and whose pace: verdicts are kept apart by service, the pace by account too."""

    service: str
    account: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class Lease:
    """A run that this process holds, and the budget it draws on."""

    run_id: str
    holder: Holder
    budget: str
    scope: Scope
    on_unknown: OnUnknown


@dataclass(frozen=True, slots=True)
class Reserved:
    """A call that may be made: picture, money and instant are reserved. ``at_s`` is on the local clock."""

    attempt_id: int
    at_s: float
    instant_us: int
    after_us: int


@dataclass(frozen=True, slots=True)
class NotReserved:
    """No call is to be made: the standing says why (known or exhausted)."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Busy:
    """Another live run has a call for this picture under way."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The budget is used up. Not ``final`` while calls are under way that may turn out free."""

    final: bool


def ledger_url(url: str) -> sa.URL:
    """``sqlite:///path`` or ``postgresql://...`` with the asynchronous driver filled in.

    Raises:
        UsageError: It is no such URL.
    """
    try:
        parsed = sa.make_url(url)
        driver = _DRIVERS[parsed.drivername.partition("+")[0]]
    except (ArgumentError, KeyError, ValueError):
        raise UsageError(
            "the ledger is no sqlite:///PATH or postgresql://USER@HOST/DATABASE URL; mend --ledger"
        ) from None
    if driver.startswith("sqlite") and not parsed.database:
        raise UsageError("the ledger needs a file: sqlite:///PATH; an in-memory ledger forgets what was paid")
    return parsed.set(drivername=driver)


class LedgerDatabase:
    """An open ledger; use it as an async context manager."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = ledger_url(url)
        self._clock = clock
        self._offset_s = 0.0
        self._round_trip_s = float("inf")
        self._engine = _engine(self._url)

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def __repr__(self) -> str:
        return f"LedgerDatabase({self._url.render_as_string(hide_password=True)})"

    async def __aenter__(self) -> Self:
        try:
            async with self._writing() as db:
                if not self._is_sqlite:  # two processes must not create the same tables at once
                    await db.execute(sa.text("SELECT pg_advisory_xact_lock(5265772118)"))
                await db.run_sync(t.metadata.create_all)
        except (SQLAlchemyError, LedgerUnavailable) as error:
            await self._engine.dispose()
            cause = getattr(error, "orig", None) or error
            raise UsageError(f"{cause}; check that --ledger names a database that may be written") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.dispose()

    # -- runs and leases ---------------------------------------------------------------------------------

    async def open_run(
        self, run_id: str, scope: Scope, budget: str, cap_images: int, on_unknown: OnUnknown
    ) -> Lease:
        """Take the lease of a run, new or left behind, and free what dead runs had reserved.

        Raises:
            UsageError: A living process holds this run.
        """
        lease = Lease(run_id, Holder.current(), budget, scope, on_unknown)
        async with self._writing() as db:
            await self._lock_pace(db, scope, create=True)
            now_us = await self._now_us(db)
            former = sa.select(t.runs).where(t.runs.c.run_id == run_id)
            row = (await db.execute(former)).mappings().one_or_none()
            if row is not None and row["status"] == "running" and not _is_dead(row, now_us):
                raise UsageError(
                    f"run {run_id} is being worked on by process {row['pid']} on {row['host']};"
                    " wait for it, or start another with --new-run"
                )
            held = {
                "owner": lease.holder.owner,
                "host": lease.holder.host,
                "pid": lease.holder.pid,
                "process_start": lease.holder.process_start,
                "beat_us": now_us,
                "status": "running",
            }
            if row is None:
                await db.execute(
                    sa.insert(t.runs).values(run_id=run_id, budget=budget, started_at=self._at(), **held)
                )
            else:
                await db.execute(sa.update(t.runs).where(t.runs.c.run_id == run_id).values(**held))
            await db.execute(
                self._insert(t.budgets)
                .values(name=budget, cap=cap_images, used=0)
                .on_conflict_do_update(index_elements=["name"], set_={"cap": cap_images})
            )
            # Whatever this run had under way belongs to its former life: nobody waits for those answers.
            reserved = t.attempts.c.state == State.RESERVED
            await self._lose(db, sa.and_(reserved, t.attempts.c.run_id == run_id))
            await self._free_dead(db, now_us, reserved)
        return lease

    async def beat(self, lease: Lease) -> None:
        """Keep the lease alive.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        async with self._writing() as db:
            now_us = await self._now_us(db)
            held = sa.and_(t.runs.c.run_id == lease.run_id, t.runs.c.owner == lease.holder.owner)
            if (await db.execute(sa.update(t.runs).where(held).values(beat_us=now_us))).rowcount == 0:
                raise _lease_lost(lease)

    async def close_run(self, lease: Lease, status: str) -> None:
        """Give the lease back with the run's final status."""
        held = sa.and_(t.runs.c.run_id == lease.run_id, t.runs.c.owner == lease.holder.owner)
        async with self._writing() as db:
            if (await db.execute(sa.update(t.runs).where(held).values(status=status))).rowcount:
                reserved = t.attempts.c.state == State.RESERVED
                await self._lose(db, sa.and_(reserved, t.attempts.c.run_id == lease.run_id))

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

    # -- the money: reserve, postpone, settle --------------------------------------------------------------

    async def reserve(
        self, lease: Lease, image_key: str, host: str, rate_per_s: float
    ) -> Reserved | NotReserved | Busy | Spent:
        """Reserve picture, money and instant in one transaction, before anything leaves.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        try:
            async with self._writing() as db:
                return await self._reserve(db, lease, image_key, host, rate_per_s)
        except IntegrityError:  # another account on the same service was faster: the unique key held
            return Busy()

    async def _reserve(
        self, db: AsyncConnection, lease: Lease, image_key: str, host: str, rate_per_s: float
    ) -> Reserved | NotReserved | Busy | Spent:
        row = await self._lock_pace(db, lease.scope)
        now_us = await self._now_us(db)
        await self._check_lease(db, lease)
        a = t.attempts.c
        this_image = sa.and_(self._image(t.attempts, lease.scope), a.image_key == image_key)
        underway = sa.and_(this_image, a.state == State.RESERVED)
        if await db.scalar(sa.select(sa.exists().where(underway))):
            await self._free_dead(db, now_us, underway)
            if await db.scalar(sa.select(sa.exists().where(underway))):
                return Busy()
        standing = (await self._standings(db, lease, [image_key]))[image_key]
        if standing.verdict is not None or standing.is_exhausted(lease.on_unknown):
            return NotReserved(standing)
        b = t.budgets.c
        charge = sa.update(t.budgets).where(b.name == lease.budget, b.used < b.cap).values(used=b.used + 1)
        if (await db.execute(charge)).rowcount == 0:
            pending = sa.exists().where(a.budget == lease.budget, a.state == State.RESERVED)
            return Spent(final=not await db.scalar(sa.select(pending)))
        instant_us, pace = pacing.reserve(row, now_us, rate_per_s)
        await self._store_pace(db, lease.scope, pace)
        result = await db.execute(
            sa.insert(t.attempts).values(
                service=lease.scope.service,
                account=lease.scope.account,
                model=lease.scope.profile.model,
                image_key=image_key,
                host=host,
                run_id=lease.run_id,
                budget=lease.budget,
                state=State.RESERVED,
                price_micro_usd=lease.scope.profile.price_micro_usd,
                reserved_at=self._at(),
            )
        )
        assert result.inserted_primary_key is not None  # noqa: S101  (an insert has one)
        return self._reserved(result.inserted_primary_key[0], instant_us, pace)

    async def postpone(self, lease: Lease, reserved: Reserved, rate_per_s: float) -> Reserved:
        """A new instant for a reservation whose instant was missed, or that waited for the rate.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        async with self._writing() as db:
            row = await self._lock_pace(db, lease.scope)
            now_us = await self._now_us(db)
            await self._check_lease(db, lease)
            instant_us, pace = pacing.postpone(
                row, reserved.instant_us, reserved.after_us, now_us, rate_per_s
            )
            await self._store_pace(db, lease.scope, pace)
        return self._reserved(reserved.attempt_id, instant_us, pace)

    async def settle(self, lease: Lease, image_key: str, attempt_id: int, answer: Answer) -> None:
        """Keep an answer: the attempt's state, the money and, where it is one to remember, the verdict.

        Allowed even to a run that lost its lease: an answer that was received is never thrown away.
        """
        state = settled_state(answer)
        a = t.attempts.c
        before = [old for old, new in MOVES if new is state]
        async with self._writing() as db:
            try:
                async with db.begin_nested():
                    moved = await db.execute(
                        sa.update(t.attempts)
                        .where(a.id == attempt_id, a.state.in_(before))
                        .values(
                            state=state,
                            settled_at=self._at(),
                            request_id=answer.request_id,
                            http_status=answer.http_status,
                            code=answer.code,
                        )
                    )
            except IntegrityError:  # billed for another run meanwhile: this charge stays counted as unknown
                return
            if moved.rowcount and state is State.NOT_BILLED:
                b = t.budgets.c
                await db.execute(sa.update(t.budgets).where(b.name == lease.budget).values(used=b.used - 1))
            if answer.remembered:
                await db.execute(self._remember(lease, image_key, attempt_id, answer))

    def _remember(self, lease: Lease, image_key: str, attempt_id: int, answer: Answer) -> sa.Insert:
        verdict = asdict(verdict_of(image_key, answer))
        remember: sa.Insert = (
            self._insert(t.verdicts)
            .values(
                image_key=image_key,
                model=lease.scope.profile.model,
                service=lease.scope.service,
                attempt_id=attempt_id,
                run_id=lease.run_id,
                billing=answer.billing,
                judged_at=self._at(),
                outcome=verdict["outcome"],
                **{name: verdict[name] for name in _REMEMBERED},
            )
            .on_conflict_do_nothing()
        )
        return remember

    async def slow_down(self, lease: Lease, sent_us: int, retry_after_s: float) -> None:
        """Pause everyone on the account after a 429 for a call that left at ``sent_us``."""
        async with self._writing() as db:
            row = await self._lock_pace(db, lease.scope)
            now_us = await self._now_us(db)
            pace = pacing.throttled(row, sent_us, now_us, round(retry_after_s * pacing.SECOND_US))
            await self._store_pace(db, lease.scope, pace)

    # -- inside a transaction ------------------------------------------------------------------------------

    async def _free_dead(self, db: AsyncConnection, now_us: int, which: sa.ColumnElement[bool]) -> None:
        """Reservations of dead runs become unknown; their charge stays."""
        run_id = t.attempts.c.run_id
        holders = await db.execute(
            sa.select(t.runs).where(t.runs.c.run_id.in_(sa.select(run_id).where(which).distinct()))
        )
        dead = [
            run["run_id"] for run in holders.mappings() if run["status"] != "running" or _is_dead(run, now_us)
        ]
        if dead:
            await self._lose(db, sa.and_(which, run_id.in_(dead)))

    async def _lose(self, db: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
        lost = {"state": State.UNKNOWN, "settled_at": self._at()}
        await db.execute(sa.update(t.attempts).where(which).values(lost))

    async def _check_lease(self, db: AsyncConnection, lease: Lease) -> None:
        owner = await db.scalar(
            sa.select(t.runs.c.owner).where(t.runs.c.run_id == lease.run_id).with_for_update(read=True)
        )
        if owner != lease.holder.owner:
            raise _lease_lost(lease)

    async def _lock_pace(self, db: AsyncConnection, scope: Scope, *, create: bool = False) -> pacing.Pace:
        key = {"account": scope.account, "model": scope.profile.model, "service": scope.service}
        if create:
            fresh = asdict(pacing.Pace())
            await db.execute(self._insert(t.pace).values(**key, **fresh).on_conflict_do_nothing())
        row = (await db.execute(sa.select(t.pace).filter_by(**key).with_for_update())).mappings().one()
        return pacing.Pace(**{name: row[name] for name in pacing.Pace.__dataclass_fields__})

    async def _store_pace(self, db: AsyncConnection, scope: Scope, pace: pacing.Pace) -> None:
        key = {"account": scope.account, "model": scope.profile.model, "service": scope.service}
        await db.execute(sa.update(t.pace).filter_by(**key).values(**asdict(pace)))

    async def _now_us(self, db: AsyncConnection) -> int:
        """Now on the ledger's clock: SQLite is on this machine, so this machine's; else the database's."""
        before = self._clock.monotonic()
        if self._is_sqlite:
            return round(before * pacing.SECOND_US)
        now_us = await db.scalar(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"))
        after = self._clock.monotonic()
        # The fastest exchange of late tells best how the two clocks stand; older ones fade.
        self._round_trip_s *= 1.02
        if after - before <= self._round_trip_s:
            self._round_trip_s = after - before
            self._offset_s = (before + after) / 2 - now_us / pacing.SECOND_US
        return int(now_us)

    def _reserved(self, attempt_id: int, instant_us: int, pace: pacing.Pace) -> Reserved:
        at_s = instant_us / pacing.SECOND_US + self._offset_s
        return Reserved(attempt_id, at_s, instant_us, pace.next_us)

    def _image(self, table: sa.Table, scope: Scope) -> sa.ColumnElement[bool]:
        return sa.and_(table.c.model == scope.profile.model, table.c.service == scope.service)

    def _at(self) -> int:
        return round(self._clock.utcnow().timestamp() * 1e6)

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite if self._is_sqlite else postgresql).insert(table)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        async with self._reading(s2v_writes=True) as db, db.begin():
            yield db

    @asynccontextmanager
    async def _reading(self, *, s2v_writes: bool = False) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as db:
                await db.execution_options(s2v_writes=s2v_writes)
                yield db
        except (OperationalError, InterfaceError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise LedgerUnavailable(
                f"the ledger {self._url.render_as_string(hide_password=True)} can't be used"
                f" ({type(cause).__name__}: {cause}); mend that and run the same command again"
            ) from None


def _engine(url: sa.URL) -> AsyncEngine:
    if not url.drivername.startswith("sqlite"):
        return create_async_engine(url, pool_size=5, pool_pre_ping=True)
    engine = create_async_engine(url)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # The driver begins a transaction only at its first write, so the read before it would be outside
        # the lock and instants would be given out twice; we begin ourselves, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("busy_timeout = 10000", "journal_mode = WAL", "synchronous = FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("s2v_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _is_dead(run: sa.RowMapping, now_us: int) -> bool:
    holder = Holder(run["owner"], run["host"], run["pid"], run["process_start"])
    age_us = now_us - run["beat_us"]
    # A beat from the future is from before a restart of the machine.
    return holder.is_gone or not 0 <= age_us <= DEAD_AFTER_S * pacing.SECOND_US


def _lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"run {lease.run_id} was taken over by another process while this one was silent;"
        " nothing more is asked here, and the other one goes on"
    )


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
