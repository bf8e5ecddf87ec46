"""The result of an image fetch. Pure."""

from dataclasses import dataclass
from typing import Protocol

from s2v_tasks.domain.image_header import ImageHeader, NotAnImage


class ByteSink(Protocol):
    """A receiver of an image's bytes, such as a hash."""

    def update(self, chunk: bytes, /) -> object:
        """Take the next bytes."""


@dataclass(frozen=True, slots=True)
class FetchedHeader:
    """The result of a header fetch.

    ``header`` None: the header is unknown. ``reason``: why the image is rejected, whatever its header.
    ``is_page``: the host sent a web page. ``file_bytes``: the file's length; ``is_cut``: it ends before its
    pixels do. ``etag``: a strong one. ``redirected_to``: the final URL, if another. ``is_unchanged``: the
    image still matches the validator. ``is_read``: the sink got all bytes, which begin as the header did.
    """

    header: ImageHeader | NotAnImage | None = None
    reason: str | None = None
    is_page: bool = False
    file_bytes: int | None = None
    is_cut: bool = False
    etag: str | None = None
    redirected_to: str | None = None
    is_unchanged: bool = False
    is_read: bool = False

    @property
    def validator(self) -> str | None:
        """What revalidates the image at its own URL."""
        return None if self.redirected_to else self.etag
