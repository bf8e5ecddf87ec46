"""What the ledger knows about images, runs and attempts: statements that need no lease and change nothing."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.domain import ledger_report
from s2v_tasks.domain.ledger import CHARGED, ImageStatus, Scope, State
from s2v_tasks.models import Billing, Outcome, Verdict

KEYS_AT_ONCE: Final = 1_000
"""Keys looked up in one statement."""
RANGE_KEYS_PER_IMAGE: Final = 4
"""A range of the ledger is read whole up to so many of its keys for each image; a key costs about a fifth of
a look-up."""
VERDICT_COLUMNS: Final = (
    "reason", "check_pass", "humanoid", "code", "message", "request_id", "http_status",
)  # fmt: skip
"""The columns of a stored verdict that are fields of `s2v_tasks.models.Verdict` as they are, in order."""
_EXPORTED_AT_ONCE: Final = 10_000


class LedgerReader:
    """The ledger's queries, in an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def image_statuses(
        self, scope: Scope, image_keys: Sequence[str], run_id: str = ""
    ) -> dict[str, ImageStatus]:
        """What the ledger knows about each of some images (up to a few thousand), in one query's snapshot.

        ``run_id``: the run whose own calls and charges are counted too.
        """
        async with self._database.reading() as db:
            return await select_image_statuses(db, scope, image_keys, run_id)

    async def known_keys(self, scope: Scope, image_keys: Sequence[str]) -> set[str]:
        """Those of some keys that the ledger holds a verdict or an attempt of."""
        known: set[str] = set()
        async with self._database.reading() as db:
            for first in range(0, len(image_keys), KEYS_AT_ONCE):
                some = image_keys[first : first + KEYS_AT_ONCE]
                for table in (t.verdicts, t.attempts):
                    these = sa.and_(in_scope(table, scope), table.c.image_key.in_(some))
                    known.update(await db.scalars(sa.select(table.c.image_key).where(these)))
        return known

    async def possibly_known(
        self, scope: Scope, image_keys: pl.Series, between: tuple[str, str]
    ) -> pl.Series:
        """Those of a partition's keys that the ledger may know: the others need no look-up one by one.

        ``between``: the first key of the partition and the first after it. The ledger's keys in that
        range are read and joined here, unless they are many more than the partition's own.
        """
        at_most = len(image_keys) * RANGE_KEYS_PER_IMAGE
        found = [pl.Series("image_key", [], dtype=pl.String)]
        async with self._database.reading() as db:
            for table in (t.verdicts, t.attempts):
                key = table.c.image_key
                these = sa.and_(in_scope(table, scope), key >= between[0], key < between[1])
                rows = await db.execute(sa.select(key).where(these).limit(at_most + 1))
                found.append(pl.Series("image_key", rows.scalars().all(), dtype=pl.String))
                if len(found[-1]) > at_most:
                    return image_keys
        held = pl.concat(found).to_frame()
        return image_keys.to_frame("image_key").join(held, on="image_key", how="semi").to_series()

    async def revoked_keys(self, image_keys: Sequence[str]) -> set[str]:
        """Those of some images (up to a few hundred) of which a verdict was revoked, in any scope."""
        key = t.revoked_verdicts.c.image_key
        async with self._database.reading() as db:
            return set(await db.scalars(sa.select(key).where(key.in_(image_keys))))

    async def charges(self, run_id: str) -> dict[State, int]:
        """What a run was charged, in micro-USD, by state of the attempts."""
        a = t.attempts.c
        async with self._database.reading() as db:
            rows = await db.execute(
                sa.select(a.state, sa.func.sum(a.price_micro_usd)).where(a.run_id == run_id).group_by(a.state)
            )
            return {**dict.fromkeys(State, 0), **{State(state): int(sum_) for state, sum_ in rows}}

    async def attempts(self) -> AsyncIterator[pl.DataFrame]:
        """Every attempt, oldest first, in frames of `s2v_tasks.domain.ledger_report.SCHEMA`."""
        columns = [t.attempts.c[name] for name in ledger_report.SCHEMA]
        async with self._database.reading(within_s=None) as db:
            rows = await db.stream(sa.select(*columns).order_by(t.attempts.c.id))
            async for chunk in rows.partitions(_EXPORTED_AT_ONCE):
                yield pl.DataFrame([tuple(row) for row in chunk], schema=ledger_report.SCHEMA, orient="row")


def in_scope(table: sa.Table, scope: Scope) -> sa.ColumnElement[bool]:
    """The rows about images of a service and a model; verdicts count for all of its accounts."""
    return sa.and_(table.c.model == scope.detector.model, table.c.service == scope.service)


async def select_image_statuses(
    db: AsyncConnection, scope: Scope, image_keys: Sequence[str], run_id: str
) -> dict[str, ImageStatus]:
    """`LedgerReader.image_statuses`, inside a transaction."""
    a, v = t.attempts.c, t.verdicts.c
    of_the_run = a.run_id == run_id
    charge = sa.case((a.state.in_(CHARGED), a.price_micro_usd), else_=0)
    sums = await db.execute(
        sa.select(
            a.image_key,
            sa.func.sum(sa.case((of_the_run, 1), else_=0)),
            sa.func.sum(sa.case((of_the_run, charge), else_=0)),
            sa.func.sum(charge),
            sa.func.sum(sa.case((a.state == State.UNKNOWN, 1), else_=0)),
        )
        .where(in_scope(t.attempts, scope), a.image_key.in_(image_keys))
        .group_by(a.image_key)
    )
    counts = {key: tuple(map(int, sums_of_key)) for key, *sums_of_key in sums}
    columns = (v.image_key, v.outcome, *(v[name] for name in VERDICT_COLUMNS), v.billing, v.checked_at)
    stored = await db.execute(
        sa.select(v.run_id, *columns).where(in_scope(t.verdicts, scope), v.image_key.in_(image_keys))
    )
    verdicts = {fields[0]: (_verdict(*fields), run_id) for run_id, *fields in stored}
    nothing = (None, None)
    return {key: ImageStatus(key, *verdicts.get(key, nothing), *counts.get(key, ())) for key in image_keys}


def _verdict(key: str, outcome: str, *fields: Any) -> Verdict:
    """A verdict of its stored columns, in the order of the record's fields."""
    *as_they_are, billing, checked_at = fields
    checked = datetime.fromtimestamp(checked_at / 1e6, UTC)
    return Verdict(*(key, Outcome(outcome), *as_they_are, Billing(billing), checked))
