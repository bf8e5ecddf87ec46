"""Screener that runs in this event loop: fetches the header of each image and checks it."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import polars as pl

from s2v_tasks.adapters.http.fetch_options import FetchOptions, user_agent
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.domain import candidate_table, verdict_table
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.domain.ssrf import WEB_PORTS
from s2v_tasks.models import WAN22_S2V_DETECT, Screened, UniqueImage
from s2v_tasks.settings import Environment


class LocalScreener:
    """Screens images as ``screening`` says; use it as an async context manager."""

    def __init__(self, screening: ScreenOptions) -> None:
        ports = WEB_PORTS.union(screening.allow_ports)
        options = FetchOptions(
            screening.allow_private_hosts,
            ports,
            screening.compares_bytes,
            user_agent=user_agent(Environment().user_agent_contact),
        )
        self._fetcher = ImageFetcher(options, WAN22_S2V_DETECT)

    async def screen(self, images: pl.DataFrame) -> pl.DataFrame:
        """Screen images: see `s2v_tasks.runtime.screener.Screener`."""
        return verdict_table.screened_frame(await self.fetch(candidate_table.records(images)))

    async def fetch(self, images: Sequence[UniqueImage]) -> list[Screened]:
        """Screen images given as records: a result each, in order."""
        return await self._fetcher.screen(images)

    async def __aenter__(self) -> Self:
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._fetcher.__aexit__(kind, error, trace)
