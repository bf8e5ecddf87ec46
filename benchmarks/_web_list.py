"""A list of candidates mixed as on the web, made of labelled images. The same seed gives the same list."""

import csv
import io
import random
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps

MIX: Final = {
    "portrait": 15,
    "no_face": 40,
    "no_face_graphic": 10,
    "several": 15,
    "one_small_or_turned": 15,
    "ambiguous": 5,
}
"""Labels, with how many of 100 images have each."""
REPEATED: Final = 0.25
"""Of the rows: each repeats an earlier one with this probability."""
DEAD = WRONG_SIZE = 0.1
"""Of the images: no longer there, or with a side that the service does not accept."""
SOURCES, WITHOUT_GOOD = 30, 10
THUMBNAIL_PX, LARGEST_PX, SMALLEST_PX = 300, 760, 400
BORDER, TINT = 0.08, 0.15
"""A variant's border, as a share of the side, and how far its colours move: at most these."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of the list: ``state`` is "live", "dead" or "wrong_size"."""

    number: int
    original: Path
    state: str
    passes: bool
    source: str

    @property
    def is_good(self) -> bool:
        """Whether a check of it passes."""
        return self.passes and self.state == "live"

    @property
    def name(self) -> str:
        """The file name of its URL: the emulator goes by a word of it."""
        word = "" if self.is_good else "-scenery" if self.state == "live" else "-nobody"
        return f"{self.number}{word}.jpg"


def labelled(folder: Path) -> dict[str, list[Path]]:
    """The images of a folder by their label; ``labels.csv`` has the columns file and label."""
    originals: dict[str, list[Path]] = {}
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            originals.setdefault(row["label"], []).append(folder / row["file"])
    return originals


def web_list(
    originals: Mapping[str, list[Path]],
    mix: Mapping[str, int],
    rows: int,
    passing: Collection[str],
    seed: int,
) -> list[Listed]:
    """The rows; what is drawn does not depend on ``passing``, so that two lists share their files."""
    rng = random.Random(seed)  # noqa: S311  (repeatable, nothing secret)
    listed: list[Listed] = []
    images = 0
    for _ in range(rows):
        if listed and rng.random() < REPEATED:
            listed.append(rng.choice(listed))
            continue
        (label,) = rng.choices(list(mix), list(mix.values()))
        original, state = rng.choice(originals[label]), rng.random()
        anywhere, elsewhere = rng.randrange(SOURCES), rng.randrange(SOURCES - WITHOUT_GOOD)
        listed.append(
            Listed(
                images,
                original,
                "dead" if state < DEAD else "wrong_size" if state < DEAD + WRONG_SIZE else "live",
                label in passing,
                f"source-{elsewhere if label in passing else anywhere:02}",
            )
        )
        images += 1
    return listed


def write_files(listed: Collection[Listed], folder: Path) -> None:
    """Write the file of each image that is not dead, ``NUMBER.jpg``; two processes."""
    folder.mkdir(exist_ok=True)
    images = {each.number: each for each in listed if each.state != "dead"}
    with ProcessPoolExecutor(2) as pool:
        for _ in pool.map(_write, images.values(), (folder for _ in images), chunksize=50):
            pass


def _write(image: Listed, folder: Path) -> None:
    (folder / f"{image.number}.jpg").write_bytes(variant(image))


def variant(image: Listed) -> bytes:
    """An original with a border and a tint of its own, as JPEG; a small one, if it is of the wrong size."""
    rng = random.Random(f"variant {image.number}")  # noqa: S311  (as above)
    with Image.open(image.original) as opened:
        shown = ImageOps.exif_transpose(opened).convert("RGB")
    shown.thumbnail((LARGEST_PX, LARGEST_PX))
    colour = tuple(rng.randrange(256) for _ in range(3))
    shown = ImageOps.expand(shown, round(rng.uniform(0.01, BORDER) * min(shown.size)), colour)
    factors = [rng.uniform(1 - TINT, 1 + TINT) for _ in range(3)]
    shown = shown.point([min(255, round(value * factor)) for factor in factors for value in range(256)])
    if image.state == "wrong_size":
        shown.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    elif min(shown.size) < SMALLEST_PX:
        shown = ImageOps.pad(shown, (max(shown.width, SMALLEST_PX), max(shown.height, SMALLEST_PX)))
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=85)
    return file.getvalue()
