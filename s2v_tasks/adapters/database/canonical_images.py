"""Canonical images: the one image that represents all images with the same bytes."""

from collections.abc import Mapping

import sqlalchemy as sa

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.group_commit import shielded
from s2v_tasks.domain.ledger import Scope


class CanonicalImages:
    """The table of canonical images, in an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @shielded
    async def claim(self, scope: Scope, contents: Mapping[str, str]) -> dict[str, str]:
        """The canonical image of each content; ``contents`` maps content keys to the images that claim them.

        The first image that claims a content represents it, for every run and for good: its key is sent with
        a URL of its own.
        """
        if not contents:
            return {}
        c, these = t.canonical_images.c, {"model": scope.detector.model, "service": scope.service}
        claims = [
            {"content_key": content, "image_key": image, **these}
            for content, image in sorted(contents.items())  # two runs must not lock each other out
        ]
        wanted = sa.select(t.canonical_images).filter_by(**these).where(c.content_key.in_(contents))
        async with self._database.transaction() as db:
            await db.execute(self._database.insert(t.canonical_images).on_conflict_do_nothing(), claims)
            rows = (await db.execute(wanted)).mappings()
            return {row["content_key"]: row["image_key"] for row in rows}
