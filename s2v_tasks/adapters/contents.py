"""Who stands for which bytes, in the ledger's database: pictures with the same are asked as one."""

from collections.abc import Mapping

import sqlalchemy as sa

from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.lease import Lease
from s2v_tasks.adapters.leases import LeaseDatabase
from s2v_tasks.adapters.together import whole


class ContentDatabase(LeaseDatabase):
    """The statements about bytes."""

    @whole
    async def standing_for(self, lease: Lease, contents: Mapping[str, str]) -> dict[str, str]:
        """The picture by whose key each of some bytes is asked; ``contents`` maps their keys to pictures.

        The first that is named stands for its bytes, for every run and for good: who asks by its key asks
        with an address of its own.
        """
        c, profile = t.contents.c, lease.scope.profile
        these = {"model": profile.model, "service": lease.scope.service}
        claims = [
            {"content_key": content, "image_key": image, **these}
            for content, image in sorted(contents.items())  # two runs must not lock each other out
        ]
        if not claims:
            return {}
        wanted = sa.select(c.content_key, c.image_key).where(
            c.model == these["model"], c.service == these["service"], c.content_key.in_(contents)
        )
        async with self._writing() as db:
            await db.execute(self._insert(t.contents).on_conflict_do_nothing(), claims)
            found = (await db.execute(wanted)).mappings()
            return {row["content_key"]: row["image_key"] for row in found}
