"""Runs and their leases in the ledger's database: who works on what, and what the dead left behind."""

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks import pace as pacing
from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.lease import DEAD_AFTER_S, Holder, Lease
from s2v_tasks.adapters.looks import LookDatabase
from s2v_tasks.adapters.together import whole
from s2v_tasks.errors import LeaseLost, UsageError
from s2v_tasks.ledger import Scope, State
from s2v_tasks.settings import OnUnknown


class LeaseDatabase(LookDatabase):
    """The statements about runs; the row of the pace is the lock that a writer takes first."""

    @whole
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
                    f"run {run_id} is being worked on by process {row['pid']} on {row['host'].split()[0]};"
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
            # Whatever this run had under way belongs to its former life: nobody waits for those answers.
            reserved = t.attempts.c.state == State.RESERVED
            await self._lose(db, sa.and_(reserved, t.attempts.c.run_id == run_id))
            await self._free_dead(db, now_us, reserved, lease)
            # After the attempts, as in a settling: the other order would lock the two out.
            await db.execute(
                self._insert(t.budgets)
                .values(name=budget, cap=cap_images, used=0)
                .on_conflict_do_update(index_elements=["name"], set_={"cap": cap_images})
            )
        return lease

    @whole
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

    @whole
    async def close_run(self, lease: Lease, status: str) -> None:
        """Give the lease back with the run's final status."""
        held = sa.and_(t.runs.c.run_id == lease.run_id, t.runs.c.owner == lease.holder.owner)
        async with self._writing() as db:
            if (await db.execute(sa.update(t.runs).where(held).values(status=status))).rowcount:
                reserved = t.attempts.c.state == State.RESERVED
                await self._lose(db, sa.and_(reserved, t.attempts.c.run_id == lease.run_id))

    # -- inside a transaction ------------------------------------------------------------------------------

    async def _free_dead(
        self, db: AsyncConnection, now_us: int, which: sa.ColumnElement[bool], lease: Lease
    ) -> None:
        """Reservations of dead runs become unknown; their charge stays. Who asks is alive, however silent."""
        run_id = t.attempts.c.run_id
        which = sa.and_(which, run_id != lease.run_id)
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
        a = t.attempts.c
        in_order = sa.select(a.id).where(which).order_by(a.id).with_for_update()  # as a settling locks them
        await db.execute(sa.update(t.attempts).where(a.id.in_(in_order)).values(lost))

    async def _check_lease(self, db: AsyncConnection, lease: Lease) -> None:
        running = sa.and_(t.runs.c.run_id == lease.run_id, t.runs.c.status == "running")
        owner = await db.scalar(sa.select(t.runs.c.owner).where(running).with_for_update(read=True))
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


def _is_dead(run: sa.RowMapping, now_us: int) -> bool:
    holder = Holder(run["owner"], run["host"], run["pid"], run["process_start"])
    # A beat a moment ahead was written after we looked at the clock; far ahead, it is from before a restart.
    age_us = abs(now_us - run["beat_us"])
    return holder.is_gone or age_us > DEAD_AFTER_S * pacing.SECOND_US


def _lease_lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"run {lease.run_id} was taken over by another process while this one was silent, or closed;"
        " nothing more is asked here. Wait for that process, or if there is none run the same command again"
    )
