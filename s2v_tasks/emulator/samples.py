"""The sample images: what is served below ``/samples/``, and candidates with every kind of error."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import urlsplit

from s2v_tasks.emulator.sample_images import exif_payload, image, padded_jpeg, portrait

__all__ = [
    "NO_SUCH_HOST_URL",
    "SAMPLES",
    "CandidateRow",
    "Manner",
    "Sample",
    "candidates",
    "portrait",
    "write_candidates",
]

NO_SUCH_HOST_URL: Final = "http://no-such-host.invalid/portrait.jpg"
"""A host that does not exist (RFC 6761). No candidate uses it: its DNS lookup would leave loopback."""


class CandidateRow(TypedDict):
    """A row of the sample input: the URL, a caption without a name, and the segment it belongs to."""

    image_url: str
    person: str
    source: str


class Manner(StrEnum):
    """How a sample is served."""

    PLAIN = "plain"
    NO_RANGE = "no-range"  # ignores the Range header
    PROTECTED = "protected"  # 403 to all clients but the emulator's own fetcher
    FLAKY = "flaky"  # 500 to the first request after a start or reset
    REDIRECT = "redirect"  # 302 to `target`
    STATUS = "status"  # an error status


@dataclass(frozen=True, slots=True)
class Sample:
    """One file below ``/samples/``: drawn if it has a ``subject``, else ``literal`` bytes; sides in pixels.

    ``padding`` puts 64 KB of EXIF (``exif``) or 300 KB of APP segments (``app``) before a JPEG's size.
    """

    name: str
    source: str
    subject: str = ""
    seed: int = 0
    width_px: int = 480
    height_px: int = 640
    image_format: str = "jpeg"
    content_type: str = "image/jpeg"
    literal: bytes = b""
    padding: str = ""
    manner: Manner = Manner.PLAIN
    status: int = 200
    target: str = ""

    def content(self) -> bytes:
        """The file's bytes, drawn at the first request."""
        if self.padding == "exif":
            return padded_jpeg(self.seed, [exif_payload()], 0xE1)
        if self.padding == "app":
            return padded_jpeg(self.seed, [b"s2v sample filler".ljust(60_000, b".")] * 5, 0xE4)
        if self.subject:
            return image(self.subject, self.seed, self.width_px, self.height_px, self.image_format)
        return self.literal


_EXTENSION = {"jpeg": "jpg", "tiff": "tif"}
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="800"><circle r="90"/></svg>'
_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


def _drawn(
    stem: str, source: str, seed: int, size: tuple[int, int], image_format: str, **more: str
) -> Sample:
    return Sample(
        name=f"{stem}-{seed:03d}.{_EXTENSION.get(image_format, image_format)}",
        source=source,
        subject=more.get("subject", "portrait"),
        seed=seed,
        width_px=size[0],
        height_px=size[1],
        image_format=image_format,
        content_type=f"image/{image_format}",
        padding=more.get("padding", ""),
        manner=Manner(more.get("manner", "plain")),
    )


def _good() -> Iterator[Sample]:
    """33 images that pass, if they can be fetched."""
    rng = random.Random(5)  # noqa: S311 - the same samples every time
    sources = cycle(("studio", "phone", "web", "studio", "phone"))
    for seed in range(24):
        image_format = ("jpeg", "png", "webp", "jpeg", "bmp", "jpeg")[seed % 6]
        longest = {"jpeg": 1600, "png": 1200, "webp": 1200, "bmp": 640}[image_format]
        size = rng.randint(400, longest), rng.randint(400, longest)
        yield _drawn("portrait", next(sources), seed, size, image_format)
    yield _drawn("least", "phone", 100, (400, 400), "jpeg")
    yield _drawn("widest", "studio", 101, (7000, 400), "png")
    yield _drawn("tallest", "studio", 102, (400, 7000), "png")
    yield _drawn("exif", "phone", 103, (480, 640), "jpeg", padding="exif")
    yield _drawn("segments", "studio", 104, (480, 640), "jpeg", padding="app")
    yield _drawn("no-range", "web", 105, (800, 1000), "jpeg", manner="no-range")
    yield _drawn("protected", "web", 106, (480, 640), "jpeg", manner="protected")
    yield _drawn("flaky", "web", 107, (480, 640), "jpeg", manner="flaky")
    yield _drawn("signed", "web", 108, (480, 640), "jpeg")


def _failing() -> Iterator[Sample]:
    """11 images of the right format and size that fail the check."""
    subjects = {"scenery": 4, "crowd": 3, "back": 2, "cartoon": 1, "nobody": 1}
    sources = cycle(("web", "phone", "web", "phone", "studio", "web"))
    for subject, count in subjects.items():
        for seed in range(count):
            yield _drawn(subject, next(sources), seed, (640, 480), "jpeg", subject=subject)


def _hopeless() -> Iterator[Sample]:
    """44 files that screening refuses."""
    sources = cycle(("web", "phone", "web", "studio", "phone"))
    for seed in range(12):
        yield _drawn("small", next(sources), seed, (320 + 6 * seed, 480), ("jpeg", "png", "webp")[seed % 3])
    for seed in range(3):
        yield _drawn("huge", next(sources), seed, (7001, 420), "jpeg")
    for seed in range(5):
        yield _drawn("animation", next(sources), seed, (480, 480), "gif")
    for seed in range(3):
        yield _drawn("scan", next(sources), seed, (420, 420), "tiff")
    literals = (
        ("drawing", "svg", "image/svg+xml", _SVG, 3),
        ("login", "jpg", "image/jpeg", _HTML, 5),
        ("notes", "jpg", "text/plain", b"a note, not an image\n", 2),
        ("empty", "jpg", "image/jpeg", b"", 2),
    )
    for stem, extension, content_type, literal, count in literals:
        for seed in range(count):
            name = f"{stem}-{seed:03d}.{extension}"
            yield Sample(name, next(sources), content_type=content_type, literal=literal)
    for stem, status, count in (("missing", 404, 6), ("gone", 410, 2)):
        for seed in range(count):
            name = f"{stem}-{seed:03d}.jpg"
            yield Sample(name, next(sources), literal=_HTML, manner=Manner.STATUS, status=status)
    yield Sample("loop-000.jpg", "web", manner=Manner.REDIRECT, target="loop-000.jpg")


def _moved() -> Iterator[Sample]:
    """One image behind a redirect; the 34th that passes."""
    yield Sample("moved-000.jpg", "web", manner=Manner.REDIRECT, target="gen/portrait-900.jpg")


SAMPLES: Final = {s.name: s for make in (_good, _moved, _failing, _hopeless) for s in make()}
"""Every sample by its file name."""


def candidates(base_url: str) -> list[CandidateRow]:
    """Rows that point at the samples of the emulator at ``base_url`` (its API or its origin), 100 in all.

    46 of them need a paid call, of which 35 pass. The others are too small or large, of another format, dead
    links, or one of the 46 again under another spelling. Same rows in the same order every time.
    """
    parts = urlsplit(base_url)
    below = f"{parts.scheme}://{parts.netloc}/samples"
    urls = [(f"{below}/{sample.name}", sample.source) for sample in SAMPLES.values()]
    again = {name: f"{below}/{name}" for name in SAMPLES if name.startswith(("portrait", "signed"))}
    signed = again["signed-108.jpg"]
    urls.remove((signed, "web"))
    urls += [(_signed(signed, day), "web") for day in (1, 2, 3)]
    urls += [(again[f"portrait-{seed:03d}.{ending}"], "phone") for seed, ending in ((0, "jpg"), (1, "png"))]
    urls += [
        (again["portrait-002.webp"] + "#face", "web"),
        (again["portrait-003.jpg"].replace("http", "HTTP", 1), "studio"),
        (again["portrait-005.jpg"].replace("http", "Http", 1) + "#top", "phone"),
    ]
    # One host in two spellings; the name resolves without leaving the machine.
    port = parts.port or 80
    urls += [
        (f"http://{host}:{port}/samples/gen/portrait-901.jpg", "web") for host in ("localhost", "LocalHost")
    ]
    # Nothing listens on port 1.
    urls += [(f"http://127.0.0.1:1/portrait-{n}.jpg", "web") for n in (1, 2)]
    random.Random(7).shuffle(urls)  # noqa: S311 - the same order every time
    return [
        CandidateRow(image_url=url, person=f"portrait-{number:03d}", source=source)
        for number, (url, source) in enumerate(urls)
    ]


def _signed(url: str, day: int) -> str:
    """The URL with an invented signature of the AWS V4 family, which is never verified."""
    stamp = f"202610{day:02d}"
    return (
        f"{url}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=EXAMPLE%2F{stamp}%2Fus-east-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date={stamp}T120000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host"
        f"&X-Amz-Signature={sha256(stamp.encode()).hexdigest()}"
    )


def write_candidates(path: Path, base_url: str) -> None:
    """Write `candidates` as a parquet file, whole or not at all."""
    import polars as pl

    unfinished = path.with_name(path.name + ".part")
    pl.DataFrame(
        candidates(base_url), schema=dict.fromkeys(CandidateRow.__annotations__, pl.String)
    ).write_parquet(unfinished)
    unfinished.replace(path)
