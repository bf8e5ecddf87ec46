"""The thumbnails of a finished run: fetched once more by the screen's rules, whatever is behind the URLs."""

import asyncio
import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from s2v_tasks.adapters.storage.run_folder import RunFolder
from s2v_tasks.domain.contact_sheets import THUMBNAILS
from s2v_tasks.domain.verdict_table import SCHEMA
from s2v_tasks.runtime.thumbnails import MAX_BYTES, write_thumbnails
from s2v_tasks.settings import CurateParameters

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))  # for its server

from image_server import ReceivedRequest, Server, file, serving, write


def encoded(side_px: int, kind: str = "JPEG", **options: Any) -> bytes:
    image = io.BytesIO()
    Image.new("RGB", (side_px, side_px), "red").save(image, kind, **options)
    return image.getvalue()


GOOD = encoded(500)
BOMB = encoded(7100, "PNG")
_PNG = encoded(2, "PNG")
_HEADER = b"IHDR" + struct.pack(">II", 30_000, 30_000) + _PNG[24:29]
HUGE = _PNG[:12] + _HEADER + struct.pack(">I", zlib.crc32(_HEADER)) + _PNG[33:]
"""Its header says 30,000 x 30,000 pixels."""
FILES = {
    "/good": (GOOD, None),
    "/bomb": (BOMB, "too_large"),
    "/huge": (HUGE, "too_large"),
    "/cut": (GOOD[: len(GOOD) // 2], "unreadable"),
    "/script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "unreadable"),
    "/heavy": (encoded(500) + bytes(MAX_BYTES), "too_large"),
    "/endless": (None, "too_large"),
    "/gone": (None, "not_fetched"),
    "/opted-out": (None, "not_shown"),
}
"""What is served, and the note about it; null: a thumbnail."""


async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    path = request.target.partition("?")[0]
    match path:
        case "/endless":
            await write(writer, 200, encoded(500), content_length=None)
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
        case "/silent":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not writer.is_closing():
                await asyncio.sleep(0.02)
                writer.write(b"X-Wait: 1\r\n")
        case "/opted-out":
            await write(writer, 200, GOOD, x_robots_tag="noai")
        case _ if (data := FILES[path][0]) is not None:
            await file(data)(request, writer)
        case _:
            await write(writer, 404)


def run_of(folder: Path, server: Server, rows: dict[str, tuple[str, str | None]]) -> RunFolder:
    """A run's folder with its verdicts: an outcome and a reason for each path on the server."""
    own = RunFolder(folder, "run-1")
    own.verdicts.parent.mkdir(parents=True)
    frame = pl.DataFrame(
        {
            "image_url": [server.url(f"{path}?Signature=secret", host="127.0.0.1") for path in rows],
            "row": range(len(rows)),
            "image_key": [path.encode().hex().ljust(32, "0") for path in rows],
            "outcome": [outcome for outcome, _ in rows.values()],
            "reason": pl.Series([reason for _, reason in rows.values()], dtype=pl.String),
        }
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in frame.columns]
    frame.with_columns(missing).write_parquet(own.verdicts)
    return own


async def written(
    own: RunFolder,
    revoked: set[str] = frozenset(),
    within_s: float = 60.0,  # type: ignore[assignment]
) -> pl.DataFrame:
    async def find(keys: Any) -> set[str]:
        return {key for key in keys if key in revoked}

    screening = {"allow_private_hosts": True}
    parameters = CurateParameters.model_validate(
        {"candidates": "x.csv", "out": "out", "budget_usd": 1, "screening": screening}
    )
    await write_thumbnails(own, parameters, find, within_s)
    return pl.read_parquet(own.thumbnails)


async def test_whatever_is_behind_a_url_is_a_tile(tmp_path: Path) -> None:
    """Bombs, cut files, a script, endless and gone ones have a note; the good one is small and plain."""
    async with serving(respond) as server:
        own = run_of(tmp_path, server, dict.fromkeys(FILES, ("passed", None)))
        tiles = await written(own)
        targets = [request.target for request in server.requests]
    assert dict(tiles.schema) == THUMBNAILS
    notes = dict(zip(FILES, tiles["note"], strict=True))
    assert notes == {path: note for path, (_, note) in FILES.items()}
    assert set(tiles["sheet"]) == {"passed"}
    image = Image.open(io.BytesIO(tiles["thumbnail"][0]))
    assert image.size == (160, 160) == (tiles["width_px"][0], tiles["height_px"][0])
    assert tiles["thumbnail"].null_count() == len(FILES) - 1
    assert b"secret" not in tiles.write_ipc(None).getvalue()
    assert "/good?Signature=secret" in targets


async def test_what_must_not_be_shown_is_not_fetched(tmp_path: Path) -> None:
    """Moderated and revoked images, opt-outs and refused URLs: not even a request is sent."""
    rows = {
        "/good": ("passed", None),
        "/moderated": ("error", "moderated"),
        "/opted": ("screened_out", "opted_out"),
        "/port": ("screened_out", "odd_port"),
        "/dead": ("screened_out", "not_found"),
        "/revoked": ("failed", "no_human"),
    }
    async with serving(respond) as server:
        own = run_of(tmp_path, server, rows)  # type: ignore[arg-type]
        tiles = await written(own, revoked={b"/revoked".hex().ljust(32, "0")})
        targets = {request.target.partition("?")[0] for request in server.requests}
    assert targets == {"/good"}
    notes = dict(tiles.select("sheet", "note").iter_rows())
    assert notes == {
        "passed": None,
        "error/moderated": "not_shown",
        "screened_out/opted_out": "not_shown",
        "screened_out/odd_port": "not_shown",
        "screened_out/not_found": "not_fetched",
        "failed/no_human": "not_shown",
    }


async def test_slow_hosts_take_no_longer_than_all_may(tmp_path: Path) -> None:
    """What is not there in time says so, and the others are kept."""
    async with serving(respond) as server:
        own = run_of(tmp_path, server, {"/good": ("passed", None), "/silent": ("failed", "face_pose")})
        tiles = await written(own, within_s=2.0)
    assert dict(tiles.select("sheet", "note").iter_rows())["failed/face_pose"] in {
        "time_limit",
        "not_fetched",
    }
    assert tiles.height == 2


async def test_a_run_without_images_has_an_empty_file(tmp_path: Path) -> None:
    """Only duplicates: no image is fetched, and no process is started."""
    async with serving(respond) as server:
        own = run_of(tmp_path, server, {"/good": ("duplicate", None)})
        assert (await written(own)).is_empty()
        assert server.requests == []
