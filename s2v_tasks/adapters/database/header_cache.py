"""The header cache: what the screen read of images, in the ledger's database, for later runs.

What the face check saw in an image's file is cached with the header. It holds as long as the header does: it
expires with it, is revalidated with it, and is forgotten where a header without the same ETag replaces it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa

from s2v_tasks.adapters.database import tables as t
from s2v_tasks.adapters.database.connection import Database
from s2v_tasks.adapters.database.group_commit import shielded
from s2v_tasks.domain.faces import COLUMNS, Faces, FileFaces
from s2v_tasks.domain.image_header import ImageHeader
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.screening import check_header, is_cacheable, lacks_content
from s2v_tasks.models import DetectorSpec, Screened

FACES_SINCE: Final = 4
"""The first version of the ledger's schema that has faces; an estimate reads older ones as they are."""
_HOUR_US = 3_600_000_000
_FACTS = "2"
"""The version of what is cached with a header; 2: ``X-Robots-Tag`` was obeyed. Others are not found, so that
their images are fetched again."""
_KEPT = ("image_format", "width_px", "height_px", "image_traits", "content_key", "validator")


class CachedHeaders(NamedTuple):
    """Cached results: ``fresh`` ones within their TTL, and ``stale`` ones that can be revalidated."""

    fresh: list[Screened]
    stale: list[Screened]


class HeaderCache:
    """A TTL cache of image headers, shared between runs that may fetch from the same hosts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, image_keys: Sequence[str], screening: ScreenOptions, detector: DetectorSpec
    ) -> CachedHeaders:
        """What is cached of images (up to a few thousand); the reasons are today's rules'."""
        cached = CachedHeaders([], [])
        if not screening.header_cache_ttl_h:
            return cached
        for row in await self._rows(image_keys, screening, _KEPT):
            screened = _screened(row, detector)
            if screening.compares_bytes and lacks_content(screened):
                continue
            if self._is_fresh(row, screening):
                cached.fresh.append(screened)
            elif screened.validator:
                cached.stale.append(screened)
        return cached

    async def faces(
        self, image_keys: Sequence[str], screening: ScreenOptions, rules: str, *, expired: bool = False
    ) -> dict[str, Faces]:
        """What is cached of images' faces (up to a few thousand), if it was seen by the same ``rules``.

        ``expired``: whether also what may have changed since.
        """
        if not screening.header_cache_ttl_h:
            return {}
        rows = await self._rows(image_keys, screening, ("face_rules", *COLUMNS))
        return {
            row["image_key"]: Faces(*(row[name] for name in COLUMNS))
            for row in rows
            if row["face_rules"] == rules and (expired or self._is_fresh(row, screening))
        }

    async def _rows(
        self, image_keys: Sequence[str], screening: ScreenOptions, columns: Sequence[str]
    ) -> Sequence[sa.RowMapping]:
        """Rows of some images; no other columns are read: an older ledger may lack them."""
        c = t.header_cache.c
        wanted = sa.select(c.image_key, c.fetched_at, *(c[name] for name in columns)).where(
            c.image_key.in_(image_keys), c.allowed == _allowed(screening)
        )
        async with self._database.reading() as db:
            return (await db.execute(wanted)).mappings().all()

    def _is_fresh(self, row: sa.RowMapping, screening: ScreenOptions) -> bool:
        age_us = self._database.utc_us() - row["fetched_at"]
        return bool(0 <= age_us <= screening.header_cache_ttl_h * _HOUR_US)

    @shielded
    async def put(self, results: Iterable[Screened], screening: ScreenOptions, fetched_at: datetime) -> None:
        """Cache what was read of images, in place of older results; failures to read are not cached."""
        rows = [
            {
                "image_key": screened.image_key,
                "allowed": _allowed(screening),
                "fetched_at": round(fetched_at.timestamp() * 1e6),
                **{name: getattr(screened, name) for name in _KEPT},
                "content_key": screened.content_key or screened.file_key,
            }
            # in order: two runs must not lock each other out
            for screened in sorted(results, key=lambda one: one.image_key)
            if is_cacheable(screened) and screening.header_cache_ttl_h
        ]
        if not rows:
            return
        insert = self._database.insert(t.header_cache)
        newer = {name: insert.excluded[name] for name in rows[0] if name not in ("image_key", "allowed")}
        c = t.header_cache.c
        newer["face_rules"] = sa.case((insert.excluded.validator == c.validator, c.face_rules))
        async with self._database.transaction() as db:
            await db.execute(
                insert.on_conflict_do_update(index_elements=["image_key", "allowed"], set_=newer), rows
            )

    @shielded
    async def put_faces(self, found: Mapping[str, FileFaces], screening: ScreenOptions, rules: str) -> None:
        """Cache what the face check saw by some ``rules``, by image key, where the header is that file's."""
        rows = [
            {"key": key, "tag": file.validator, "face_rules": rules, **asdict(file.faces)}
            for key, file in sorted(found.items())  # in order, as in `put`
        ]
        if not rows or not screening.header_cache_ttl_h:
            return
        c = t.header_cache.c
        is_same_file = c.validator.is_not_distinct_from(sa.bindparam("tag", type_=sa.String))
        update = sa.update(t.header_cache).where(
            c.image_key == sa.bindparam("key"), c.allowed == _allowed(screening), is_same_file
        )
        async with self._database.transaction() as db:
            await db.execute(update, rows)


def _allowed(screening: ScreenOptions) -> str:
    return f"{screening.allowed} {_FACTS}"


def _screened(row: sa.RowMapping, detector: DetectorSpec) -> Screened:
    header = ImageHeader(row["image_format"], row["width_px"], row["height_px"])
    return Screened(row["image_key"], check_header(header, detector), **{name: row[name] for name in _KEPT})
