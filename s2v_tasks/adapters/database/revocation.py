"""Revocation of stored verdicts that were wrong: what was free may be checked again.

An image that was billed keeps its verdict: a second charge is impossible by promise. Attempts and charges
stay as they are; the verdict moves to the table `revoked_verdicts`, with the time and the reason given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.group_commit import shielded
from s2v_tasks.domain.ledger import State
from s2v_tasks.models import Billing

_SHOWN = ("image_key", "model", "service", "run_id", "outcome", "reason", "code", "message")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which verdicts: those that match every criterion given, at least one."""

    codes: Sequence[str] = ()
    reasons: Sequence[str] = ()
    run_ids: Sequence[str] = ()
    image_keys: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it would select all."""
        return not (self.codes or self.reasons or self.run_ids or self.image_keys)

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """The same for the database. Codes compare without case."""
        v = t.verdicts.c
        criteria = (
            (sa.func.lower(v.code), [code.lower() for code in self.codes]),
            (v.reason, self.reasons),
            (v.run_id, self.run_ids),
            (v.image_key, self.image_keys),
        )
        return sa.and_(*(column.in_(values) for column, values in criteria if values))


class Revocations:
    """Revokes stored verdicts that were wrong, in an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def selected(self, selection: Selection) -> pl.DataFrame:
        """What a selection matches: columns of the verdicts, and ``is_billed`` for what can't be revoked."""
        async with self._database.reading() as db:
            return await self._selected(db, selection)

    @shielded
    async def revoke(self, selection: Selection, why: str) -> int:
        """Revoke the selected verdicts that were not billed, in one transaction; how many those were."""
        verdicts = t.verdicts
        wanted = sa.and_(selection.condition, ~_is_billed())
        columns = [column.name for column in verdicts.columns]
        async with self._database.transaction() as db:
            copied = sa.select(sa.literal(self._database.utc_us()), sa.literal(why), *verdicts.columns).where(
                wanted
            )
            into = sa.insert(t.revoked_verdicts).from_select(["revoked_at", "why", *columns], copied)
            await db.execute(into)
            return (await db.execute(sa.delete(verdicts).where(wanted))).rowcount

    async def _selected(self, db: AsyncConnection, selection: Selection) -> pl.DataFrame:
        columns = [t.verdicts.c[name] for name in _SHOWN]
        rows = await db.execute(
            sa.select(*columns, _is_billed().label("is_billed"))
            .where(selection.condition)
            .order_by(t.verdicts.c.checked_at)
        )
        schema = {**dict.fromkeys(_SHOWN, pl.String), "is_billed": pl.Boolean}
        return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def _is_billed() -> sa.ColumnElement[bool]:
    """Whether the verdict's image was ever billed: by its own attempt, or by one whose response came late."""
    a, v = t.attempts.c, t.verdicts.c
    same = sa.and_(a.image_key == v.image_key, a.model == v.model, a.service == v.service)
    charged = sa.select(a.id).where(same, a.state == State.BILLED).exists()
    return sa.or_(v.billing == Billing.BILLED, charged)
