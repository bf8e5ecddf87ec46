"""Draws the sample images: simple shapes, different for each seed."""

import io
import random
from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageDraw

_SKIN = ("#f1c9a5", "#e0ac82", "#c68a5e", "#8d5a3b", "#5f3a26")
_HAIR = ("#1c1510", "#4a2f1b", "#8c5a2b", "#c9a45c", "#8a8a8a", "#7a2a1a")
_MAX_SEGMENT = 65_533  # what one JPEG segment can hold, in bytes

_Pen = ImageDraw.ImageDraw


def portrait(seed: int, width: int = 480, height: int = 640, image_format: str = "jpeg") -> bytes:
    """Draw one person facing the camera: a file of that size (pixels) in jpeg, png, bmp, webp, gif or tiff.

    The same arguments give the same bytes, another seed another image.
    """
    return image("portrait", seed, width, height, image_format)


@lru_cache(maxsize=512)
def image(subject: str, seed: int, width: int, height: int, image_format: str) -> bytes:
    """Draw ``subject``, one of `SUBJECTS`, as a file."""
    rng = random.Random(f"{subject}-{seed}")  # noqa: S311 - repeatable images, nothing secret
    image = Image.new("RGB", (width, height), _colour(rng, 60, 200))
    SUBJECTS[subject](ImageDraw.Draw(image), rng, width, height)
    return _encode(image, image_format)


def padded_jpeg(seed: int, payloads: list[bytes], marker: int) -> bytes:
    """Draw a portrait with ``payloads`` before its size, each an APP segment of ``marker`` (0xE0 to 0xEF)."""
    plain = portrait(seed)
    segments = b"".join(
        bytes([0xFF, marker]) + (len(p) + 2).to_bytes(2, "big") + p
        for p in payloads
        if len(p) <= _MAX_SEGMENT
    )
    return plain[:2] + segments + plain[2:]


def exif_payload() -> bytes:
    """An EXIF block as large as one segment can be: a valid TIFF without entries, then padding."""
    return (b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0").ljust(_MAX_SEGMENT, b"\0")


def _encode(image: Image.Image, image_format: str) -> bytes:
    options: dict[str, dict[str, int]] = {
        "jpeg": {"quality": 60},
        "png": {"compress_level": 1},
        "webp": {"quality": 40, "method": 0},
    }
    if image_format in {"bmp", "gif"}:
        image = image.quantize(16, method=Image.Quantize.FASTOCTREE)  # a byte per pixel, a third of the size
    file = io.BytesIO()
    image.save(file, image_format, **options.get(image_format, {}))
    return file.getvalue()


def _colour(rng: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _oval(pen: _Pen, x: float, y: float, rx: float, ry: float, fill: str | tuple[int, int, int]) -> None:
    pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)


def _person(pen: _Pen, rng: random.Random, x: float, y: float, unit: float, *, face: bool = True) -> None:
    """One person with the head at (x, y); ``unit`` is the height of a half head."""
    skin, hair, shirt = rng.choice(_SKIN), rng.choice(_HAIR), _colour(rng, 20, 230)
    iris, long_hair = _colour(rng, 10, 110), rng.random() < 0.5
    _oval(pen, x, y + 3.1 * unit, 2.0 * unit, 1.7 * unit, shirt)
    _oval(pen, x, y - 0.15 * unit, 0.95 * unit, (1.5 if long_hair else 1.05) * unit, hair)
    if not face:
        _oval(pen, x, y, 0.9 * unit, 1.1 * unit, hair)
        return
    pen.rectangle((x - 0.3 * unit, y + 0.7 * unit, x + 0.3 * unit, y + 1.6 * unit), fill=skin)
    _oval(pen, x, y + 0.1 * unit, 0.78 * unit, unit, skin)
    for side in (-1, 1):
        eye = x + side * 0.3 * unit
        _oval(pen, eye, y, 0.15 * unit, 0.09 * unit, "white")
        _oval(pen, eye, y, 0.07 * unit, 0.08 * unit, iris)
        pen.line(
            (eye - 0.17 * unit, y - 0.2 * unit, eye + 0.17 * unit, y - 0.2 * unit),
            hair,
            max(1, int(unit / 18)),
        )
    _oval(pen, x, y + 0.33 * unit, 0.09 * unit, 0.07 * unit, "#b3705a")
    smile = rng.uniform(0.2, 0.35) * unit
    pen.chord((x - smile, y + 0.4 * unit, x + smile, y + 0.7 * unit), 0, 180, fill="#a03c3c")
    if rng.random() < 0.3:
        for side in (-1, 1):
            box = (x + side * 0.3 * unit - 0.22 * unit, y - 0.16 * unit)
            pen.rectangle((*box, box[0] + 0.44 * unit, box[1] + 0.32 * unit), outline="#202020")


def _portrait(pen: _Pen, rng: random.Random, width: int, height: int) -> None:
    for _ in range(rng.randint(0, 4)):
        left = rng.uniform(0, width)
        pen.rectangle((left, 0, left + width * 0.08, height), fill=_colour(rng, 80, 220))
    unit = min(width, height) * rng.uniform(0.19, 0.23)
    _person(pen, rng, width * rng.uniform(0.46, 0.54), height * 0.42, unit)


def _back(pen: _Pen, rng: random.Random, width: int, height: int) -> None:
    _person(pen, rng, width / 2, height * 0.42, min(width, height) * 0.21, face=False)


def _crowd(pen: _Pen, rng: random.Random, width: int, height: int) -> None:
    for position in range(1, 6):
        unit = min(width, height) * 0.09
        _person(pen, rng, width * position / 6, height * rng.uniform(0.3, 0.6), unit)


def _scenery(pen: _Pen, rng: random.Random, width: int, height: int) -> None:
    _oval(pen, width * rng.random(), height * 0.2, height * 0.08, height * 0.08, "#ffe680")
    for _ in range(5):
        middle, top = width * rng.random(), height * rng.uniform(0.3, 0.6)
        pen.polygon(
            ((middle - width, height), (middle, top), (middle + width, height)), _colour(rng, 40, 160)
        )


def _cartoon(pen: _Pen, rng: random.Random, width: int, height: int) -> None:
    unit = min(width, height) * 0.3
    _oval(pen, width / 2, height / 2, unit, unit, _colour(rng, 150, 255))
    for side in (-1, 1):
        _oval(pen, width / 2 + side * unit * 0.4, height / 2, unit * 0.3, unit * 0.4, "white")
        _oval(pen, width / 2 + side * unit * 0.4, height / 2, unit * 0.12, unit * 0.2, "black")


def _nobody(pen: _Pen, rng: random.Random, width: int, height: int) -> None:
    pen.rectangle((width * 0.3, height * 0.3, width * 0.7, height * 0.9), fill=_colour(rng, 20, 120))


SUBJECTS: dict[str, Callable[[_Pen, random.Random, int, int], None]] = {
    "portrait": _portrait,
    "back": _back,
    "crowd": _crowd,
    "scenery": _scenery,
    "cartoon": _cartoon,
    "nobody": _nobody,
}
"""What can be drawn; all but ``portrait`` fail the check by their name."""
