"""The thumbnails of a finished run: a sample of its images, fetched once more, decoded and kept."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import polars as pl

from s2v_tasks.adapters.http.fetch_options import FetchOptions, user_agent
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.adapters.http.whole_image import fetch_whole
from s2v_tasks.adapters.images.pool import Decoded, DecoderPool
from s2v_tasks.adapters.storage import file_io
from s2v_tasks.adapters.storage.run_data import read_verdicts
from s2v_tasks.adapters.storage.run_folder import RunFolder
from s2v_tasks.domain import contact_sheets, faces
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.ssrf import WEB_PORTS
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.settings import CurateParameters, Environment

MAX_BYTES: Final = 2_000_000
"""Of one image's file."""
WITHIN_S: Final = 20.0
"""For all images of a run; those that are not there by then have none."""

Revoked = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Those of some image keys whose verdict was revoked."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """What becomes of one image: the thumbnail and its sides in pixels, or a note why there is none."""

    thumbnail: bytes | None = None
    width_px: int | None = None
    height_px: int | None = None
    note: str | None = None


async def write_thumbnails(
    folder: RunFolder, parameters: CurateParameters, revoked: Revoked, within_s: float = WITHIN_S
) -> None:
    """Write a run's ``thumbnails.parquet``, a frame of `s2v_tasks.domain.contact_sheets.THUMBNAILS`.

    The images are a sample with the run's id as its seed. What can't be fetched or decoded is a row with a
    note; a moderated, revoked or opted-out image is not even fetched.

    Args:
        folder: Of a run with its ``verdicts.parquet``.
        parameters: The run's: where its images may be fetched from.
        revoked: Finds those whose verdict was revoked.
        within_s: Seconds for all images.

    Raises:
        S2VError: The folder can't be read or written, or no image can be decoded at all.
    """
    tiles = await asyncio.to_thread(_sampled, folder, parameters)
    hidden = await revoked(tiles["image_key"].drop_nulls().to_list())
    is_hidden = pl.col("image_key").is_in(list(hidden))
    note = pl.when(is_hidden).then(pl.lit(contact_sheets.NOT_SHOWN)).otherwise(pl.col("note"))
    tiles = tiles.with_columns(note.alias("note"))
    found = iter(
        await _fetched(tiles.filter(pl.col("note").is_null())["url"].to_list(), parameters, within_s)
    )
    made = [_Tile(note=note) if note else next(found) for note in tiles["note"]]
    columns = {name: [getattr(tile, name) for tile in made] for name in _Tile.__slots__}
    frame = pl.DataFrame({**tiles.select("row", "sheet").to_dict(), **columns}).select(
        pl.col(name).cast(dtype) for name, dtype in contact_sheets.THUMBNAILS.items()
    )
    await asyncio.to_thread(file_io.sink, frame.lazy(), folder.thumbnails)


def _sampled(folder: RunFolder, parameters: CurateParameters) -> pl.DataFrame:
    rules = faces.RULES.get(parameters.screening.faces, ())
    with file_io.wrap_storage_errors(folder.path):
        verdicts = contact_sheets.with_rules(read_verdicts(folder.verdicts), rules)
        sizes = contact_sheets.sheet_sizes(verdicts).collect(engine="streaming")
        seed = int.from_bytes(blake2b(folder.run_id.encode(), digest_size=8).digest())
        rows = contact_sheets.drawn(verdicts, sizes, seed).collect(engine="streaming")
        found = contact_sheets.tiles(verdicts, rows, parameters.source.url_column)
        return contact_sheets.chosen(found.collect(engine="streaming"))


async def _fetched(urls: list[str], parameters: CurateParameters, within_s: float) -> list[_Tile]:
    """A tile for each URL, in order; those not there in time say so."""
    if not urls:
        return []
    async with (
        ImageFetcher(_options(parameters), WAN22_S2V_DETECT) as fetcher,
        DecoderPool() as decoders,
    ):
        tasks = [asyncio.create_task(_tile(fetcher, decoders, url)) for url in urls]
        try:
            await asyncio.wait(tasks, timeout=within_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    late = _Tile(note="time_limit")
    return [late if task.cancelled() else task.result() for task in tasks]


async def _tile(fetcher: ImageFetcher, decoders: DecoderPool, url: str) -> _Tile:
    content = (await fetch_whole(fetcher, url, MAX_BYTES)).content
    if isinstance(content, str):
        return _Tile(note=content)
    decoded = await decoders.run("thumbnail", content)
    if not isinstance(decoded, Decoded):
        return _Tile(note=decoded)
    sides: list[Any] = [decoded.facts.get(name) for name in ("width_px", "height_px")]
    return _Tile(decoded.data, *sides)


def _options(parameters: CurateParameters) -> FetchOptions:
    """As the screen fetches, but few at a time: it is the second request for these images."""
    screening = ScreenOptions.of(parameters.screening, parameters.advanced)
    return FetchOptions(
        screening.allow_private_hosts,
        WEB_PORTS.union(screening.allow_ports),
        same_content=True,  # whole bodies
        timeout_s=8.0,
        max_requests=6,
        max_in_flight=16,
        per_host=4,
        user_agent=user_agent(Environment().user_agent_contact),
    )
