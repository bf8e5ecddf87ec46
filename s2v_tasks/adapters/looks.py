"""What the screen read of pictures, in the ledger's database: for whoever meets them again soon."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.connection import Database
from s2v_tasks.adapters.together import whole
from s2v_tasks.headers import Header
from s2v_tasks.models import Profile, Screened
from s2v_tasks.screen import is_of_the_picture, judge

_HOUR_US = 3_600_000_000


class LookDatabase(Database):
    """The statements about looks. ``allowed`` says where a look might go: others don't share it."""

    async def looks(
        self, image_keys: Sequence[str], allowed: str, fresh_for_h: float, profile: Profile
    ) -> list[Screened]:
        """The pictures (of up to a few thousand) that were seen within so many hours; by today's rules."""
        now, c = self._at(), t.looks.c
        fresh = c.seen_at.between(now - round(fresh_for_h * _HOUR_US), now)
        wanted = sa.select(t.looks).where(c.image_key.in_(image_keys), c.allowed == allowed, fresh)
        async with self._reading() as db:
            return [_screened(row, profile) for row in (await db.execute(wanted)).mappings()]

    @whole
    async def keep_looks(self, looks: Iterable[Screened], allowed: str, seen_at: datetime) -> None:
        """Keep what was read of pictures, in place of what was read before; failures to read are not kept."""
        rows = [
            {
                "image_key": seen.image_key,
                "allowed": allowed,
                "seen_at": round(seen_at.timestamp() * 1e6),
                "image_format": seen.image_format,
                "width_px": seen.width_px,
                "height_px": seen.height_px,
                "image_traits": seen.image_traits,
            }
            for seen in sorted(looks, key=lambda one: one.image_key)  # two runs must not lock each other out
            if is_of_the_picture(seen)
        ]
        if not rows:
            return
        insert = self._insert(t.looks)
        newer = {name: insert.excluded[name] for name in rows[0] if name not in ("image_key", "allowed")}
        async with self._writing() as db:
            await db.execute(
                insert.on_conflict_do_update(index_elements=["image_key", "allowed"], set_=newer), rows
            )


def _screened(row: sa.RowMapping, profile: Profile) -> Screened:
    header = Header(row["image_format"], row["width_px"], row["height_px"])
    return Screened(
        row["image_key"],
        judge(header, profile),
        header.width_px,
        header.height_px,
        header.image_format,
        row["image_traits"],
    )
