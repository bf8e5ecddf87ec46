"""Leases: which process holds which run, and what becomes of the reservations of processes that died."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.group_commit import shielded
from s2v_tasks.adapters.database.lease import Lease, is_dead
from s2v_tasks.adapters.database.rate_limit_store import RateLimitStore
from s2v_tasks.adapters.database.schema import check_version
from s2v_tasks.domain.ledger import State
from s2v_tasks.errors import LeaseLost, UsageError


class LeaseStore:
    """The runs and their leases, in an open database."""

    def __init__(self, database: Database, rate_limits: RateLimitStore) -> None:
        self._database = database
        self._rate_limits = rate_limits

    @shielded
    async def take(self, lease: Lease, cap_images: int) -> None:
        """Take the lease of a run, new or left behind, and settle what dead runs had reserved as unknown.

        ``cap_images``: what the lease's budget buys from now on.

        Raises:
            UsageError: A living process holds this run, or the ledger was upgraded since it was opened.
        """
        database = self._database
        async with database.transaction() as db:
            await db.run_sync(check_version, database.shown, database.schema)
            await self._rate_limits.create(db, lease.scope)
            await self._rate_limits.lock(db, lease.scope)
            now_us = await database.now_us(db)
            await self._write(db, lease, now_us)
            # What an earlier process of this run had reserved: no task waits for those responses.
            reserved = t.attempts.c.state == State.RESERVED
            await self._lose(db, sa.and_(reserved, t.attempts.c.run_id == lease.run_id))
            await self.free_dead(db, now_us, reserved, lease)
            # After the attempts, as in a settling: the other order would lock the two out.
            await db.execute(
                database.insert(t.budgets)
                .values(name=lease.budget, cap=cap_images, used=0)
                .on_conflict_do_update(index_elements=["name"], set_={"cap": cap_images})
            )

    @shielded
    async def renew(self, lease: Lease) -> None:
        """Write the lease's heartbeat.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        async with self._database.transaction() as db:
            now_us = await self._database.now_us(db)
            renewed = await db.execute(sa.update(t.runs).where(_held(lease)).values(heartbeat_us=now_us))
            if renewed.rowcount == 0:
                raise _lease_lost(lease)

    @shielded
    async def release(self, lease: Lease, status: str) -> None:
        """End the lease with the run's final status; what is still reserved becomes unknown."""
        async with self._database.transaction() as db:
            ended = await db.execute(sa.update(t.runs).where(_held(lease)).values(status=status))
            if ended.rowcount:
                reserved = t.attempts.c.state == State.RESERVED
                await self._lose(db, sa.and_(reserved, t.attempts.c.run_id == lease.run_id))

    # -- inside a transaction ------------------------------------------------------------------------------

    async def check(self, db: AsyncConnection, lease: Lease) -> None:
        """Hold the lease until the end of the transaction.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        running = sa.and_(t.runs.c.run_id == lease.run_id, t.runs.c.status == "running")
        token = await db.scalar(sa.select(t.runs.c.owner).where(running).with_for_update(read=True))
        if token != lease.owner.token:
            raise _lease_lost(lease)

    async def free_dead(
        self, db: AsyncConnection, now_us: int, which: sa.ColumnElement[bool], lease: Lease
    ) -> None:
        """Settle the reservations of dead runs as unknown; their charge stays.

        The run that calls this is alive, however old its heartbeat.
        """
        run_id = t.attempts.c.run_id
        which = sa.and_(which, run_id != lease.run_id)
        runs = await db.execute(
            sa.select(t.runs).where(t.runs.c.run_id.in_(sa.select(run_id).where(which).distinct()))
        )
        dead = [
            run["run_id"] for run in runs.mappings() if run["status"] != "running" or is_dead(run, now_us)
        ]
        if dead:
            await self._lose(db, sa.and_(which, run_id.in_(dead)))

    async def _write(self, db: AsyncConnection, lease: Lease, now_us: int) -> None:
        """Make the lease's owner that of the run's row, new or left behind."""
        this_run = t.runs.c.run_id == lease.run_id
        row = (await db.execute(sa.select(t.runs).where(this_run))).mappings().one_or_none()
        if row is not None and row["status"] == "running" and not is_dead(row, now_us):
            raise UsageError(
                f"run {lease.run_id} is being worked on by process {row['pid']} on {row['host'].split()[0]};"
                " wait for it, or start another with --new-run"
            )
        held = {
            "owner": lease.owner.token,
            "host": lease.owner.host,
            "pid": lease.owner.pid,
            "process_start": lease.owner.process_start,
            "heartbeat_us": now_us,
            "status": "running",
        }
        if row is None:
            new = {"run_id": lease.run_id, "budget": lease.budget, "started_at": self._database.utc_us()}
            await db.execute(sa.insert(t.runs).values(**new, **held))
        else:
            await db.execute(sa.update(t.runs).where(this_run).values(**held))

    async def _lose(self, db: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
        lost = {"state": State.UNKNOWN, "settled_at": self._database.utc_us()}
        a = t.attempts.c
        in_order = sa.select(a.id).where(which).order_by(a.id).with_for_update()  # as a settling locks them
        await db.execute(sa.update(t.attempts).where(a.id.in_(in_order)).values(lost))


def _held(lease: Lease) -> sa.ColumnElement[bool]:
    return sa.and_(t.runs.c.run_id == lease.run_id, t.runs.c.owner == lease.owner.token)


def _lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"run {lease.run_id} was taken over by another process while this one was silent, or closed;"
        " nothing more is sent. Wait for that process, or if there is none run the same command again"
    )
