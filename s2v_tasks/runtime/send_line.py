"""The line of images that were handed out and are not sent yet: a short one, so that each is chosen late."""

import asyncio
from collections.abc import Iterable


class SendLine:
    """Images enter when they are handed out; the engine removes each when it is sent, or never will be."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._shorter = asyncio.Event()

    def enter(self, image_keys: Iterable[str]) -> None:
        """Add images; one that is in the line already keeps its place."""
        self._keys.update(image_keys)

    def leave(self, image_keys: Iterable[str]) -> None:
        """Remove images; those that are not in the line are left out."""
        self._keys.difference_update(image_keys)
        self._shorter.set()

    async def until_shorter_than(self, images: int) -> None:
        """Wait until fewer images are in the line."""
        while len(self._keys) >= images:
            self._shorter.clear()
            await self._shorter.wait()
