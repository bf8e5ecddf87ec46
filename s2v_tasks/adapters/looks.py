"""What the screen saw of pictures, in the ledger's database: for whoever meets them or their bytes again."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from s2v_tasks.adapters import tables as t
from s2v_tasks.adapters.connection import Database
from s2v_tasks.adapters.together import whole
from s2v_tasks.headers import Header
from s2v_tasks.ledger import Scope
from s2v_tasks.models import Profile, Screened
from s2v_tasks.screen import is_of_the_picture, judge, lacks_content
from s2v_tasks.settings import Screening

_HOUR_US = 3_600_000_000
_KEPT = ("image_format", "width_px", "height_px", "image_traits", "content_key", "validator")


class Looks(NamedTuple):
    """What earlier looks told: ``fresh`` enough to go by, or ``stale``: ask whether it still holds."""

    fresh: list[Screened]
    stale: list[Screened]


class LookDatabase(Database):
    """The statements about looks. Those that were allowed to go elsewhere are not shared."""

    async def looks(self, image_keys: Sequence[str], screening: Screening, profile: Profile) -> Looks:
        """What is known of pictures (of up to a few thousand), by today's rules."""
        looks = Looks([], [])
        if not screening.fresh_for_h:
            return looks
        now, c = self._at(), t.looks.c
        wanted = sa.select(t.looks).where(c.image_key.in_(image_keys), c.allowed == screening.allowed)
        async with self._reading() as db:
            for row in (await db.execute(wanted)).mappings():
                seen = _screened(row, profile)
                if screening.same_content and lacks_content(seen):
                    continue
                if 0 <= now - row["seen_at"] <= screening.fresh_for_h * _HOUR_US:
                    looks.fresh.append(seen)
                elif seen.validator:
                    looks.stale.append(seen)
        return looks

    @whole
    async def keep_looks(self, looks: Iterable[Screened], screening: Screening, seen_at: datetime) -> None:
        """Keep what was read of pictures, in place of what was read before; failures to read are not kept."""
        rows = [
            {
                "image_key": seen.image_key,
                "allowed": screening.allowed,
                "seen_at": round(seen_at.timestamp() * 1e6),
                **{name: getattr(seen, name) for name in _KEPT},
            }
            for seen in sorted(looks, key=lambda one: one.image_key)  # two runs must not lock each other out
            if is_of_the_picture(seen) and screening.fresh_for_h
        ]
        if not rows:
            return
        insert = self._insert(t.looks)
        newer = {name: insert.excluded[name] for name in rows[0] if name not in ("image_key", "allowed")}
        async with self._writing() as db:
            await db.execute(
                insert.on_conflict_do_update(index_elements=["image_key", "allowed"], set_=newer), rows
            )

    @whole
    async def standing_for(self, scope: Scope, contents: Mapping[str, str]) -> dict[str, str]:
        """The picture by whose key each of some bytes is asked; ``contents`` maps their keys to pictures.

        The first that is named stands for its bytes, for every run and for good: who asks by its key asks
        with an address of its own.
        """
        if not contents:
            return {}
        c, these = t.contents.c, {"model": scope.profile.model, "service": scope.service}
        claims = [
            {"content_key": content, "image_key": image, **these}
            for content, image in sorted(contents.items())  # as above
        ]
        wanted = sa.select(t.contents).filter_by(**these).where(c.content_key.in_(contents))
        async with self._writing() as db:
            await db.execute(self._insert(t.contents).on_conflict_do_nothing(), claims)
            found = (await db.execute(wanted)).mappings()
            return {row["content_key"]: row["image_key"] for row in found}


def _screened(row: sa.RowMapping, profile: Profile) -> Screened:
    header = Header(row["image_format"], row["width_px"], row["height_px"])
    return Screened(
        row["image_key"],
        judge(header, profile),
        **{name: row[name] for name in _KEPT},
    )
