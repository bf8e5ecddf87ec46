"""Trigger: waits until the pointer of an output folder names a publication."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from s2v_airflow.command import End, arguments, environment, parse
from s2v_airflow.publications import wanted


class PublishedTrigger(BaseTrigger):
    """Asks ``s2v publications OUT --json`` again and again; object stores work as local folders do."""

    def __init__(self, *, out: str, s2v: str, published_after: str | None, poke_interval_s: float) -> None:
        super().__init__()
        self.out = out
        self.s2v = s2v
        self.published_after = published_after
        self.poke_interval_s = poke_interval_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments."""
        names = ("out", "s2v", "published_after", "poke_interval_s")
        return "s2v_airflow.triggers.s2v.PublishedTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: the publication, or why there can be none."""
        while True:
            try:
                process = await asyncio.create_subprocess_exec(
                    self.s2v,
                    "publications",
                    *arguments({}, [self.out]),
                    env=environment(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            except OSError as error:
                yield TriggerEvent({"error": f"{self.s2v} can't be started ({error.strerror}); fix s2v="})
                return
            out, _ = await process.communicate()
            ended = parse(process.returncode or 0, out)
            if ended.means() is End.FAIL:
                yield TriggerEvent({"error": ended.message})
                return
            if ended.status == 0 and (found := wanted(ended.result or {}, self.published_after)):
                yield TriggerEvent({"publication": found})
                return
            await asyncio.sleep(self.poke_interval_s)
