"""Who stands for which bytes, in the ledger's database: pictures with the same are asked as one."""

from collections.abc import Mapping

import sqlalchemy as sa

from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.lease import Lease
from s2v_tasks.adapters.leases import LeaseDatabase, is_over
from s2v_tasks.adapters.together import whole
from s2v_tasks.ledger import CHARGED


class ContentDatabase(LeaseDatabase):
    """The statements about bytes."""

    @whole
    async def standing_for(self, lease: Lease, contents: Mapping[str, str]) -> dict[str, str]:
        """The picture by whose key each of some bytes is asked; ``contents`` maps their keys to pictures.

        The first that is named stands for its bytes, for every run; unless its run ended without an answer.

        Raises:
            LeaseLost: Another process has taken the run over.
        """
        c, scope = t.contents.c, lease.scope
        these = {"model": scope.profile.model, "service": scope.service}
        claims = [
            {"content_key": content, "image_key": image, "run_id": lease.run_id, **these}
            for content, image in sorted(contents.items())  # two runs must not lock each other out
        ]
        if not claims:
            return {}
        wanted = sa.and_(
            c.model == these["model"], c.service == these["service"], c.content_key.in_(contents)
        )
        rows = sa.select(t.contents, _is_asked(), *(t.runs.c[name] for name in _HOLDER)).where(wanted)
        async with self._writing() as db:
            await self._lock_pace(db, scope)
            await self._check_lease(db, lease)
            now_us = await self._now_us(db)
            await db.execute(self._insert(t.contents).on_conflict_do_nothing(), claims)
            found = await db.execute(rows.join(t.runs, t.runs.c.run_id == c.run_id, isouter=True))
            standing = {}
            for row in found.mappings():
                content, image = row["content_key"], row["image_key"]
                if row["run_id"] != lease.run_id and not row["is_asked"] and is_over(row, now_us):
                    image = contents[content]
                    await db.execute(
                        sa.update(t.contents)
                        .where(wanted, c.content_key == content)
                        .values(image_key=image, run_id=lease.run_id)
                    )
                standing[content] = image
        return standing


_HOLDER = ("owner", "host", "pid", "process_start", "beat_us", "status")


def _is_asked() -> sa.Label[bool]:
    """Whether the picture has an answer, or was charged for one."""
    a, v, c = t.attempts.c, t.verdicts.c, t.contents.c
    verdict = sa.exists().where(v.image_key == c.image_key, v.model == c.model, v.service == c.service)
    charge = sa.exists().where(
        a.image_key == c.image_key, a.model == c.model, a.service == c.service, a.state.in_(CHARGED)
    )
    return sa.or_(verdict, charge).label("is_asked")
