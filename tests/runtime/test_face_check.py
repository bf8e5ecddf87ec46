"""The face check against a real host: what is behind the URLs, and what a later run need not fetch again."""

import asyncio
import io
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from PIL import Image
from prefect.logging import disable_run_logger
from pydantic import SecretStr
from support import PASSED

from s2v_tasks import tasks
from s2v_tasks.adapters.clock import SystemClock
from s2v_tasks.adapters.database.ledger import Ledger
from s2v_tasks.adapters.database.migrations import SCHEMA
from s2v_tasks.domain.detect import DetectResponse, Request
from s2v_tasks.domain.estimate import markdown
from s2v_tasks.domain.face_estimate import SampledFaces
from s2v_tasks.domain.faces import COLUMNS, Faces, FileFaces
from s2v_tasks.domain.image_url import image_key
from s2v_tasks.domain.screen_options import ScreenOptions
from s2v_tasks.emulator.sample_images import portrait
from s2v_tasks.models import Screened
from s2v_tasks.runtime.dispatch import process_shards
from s2v_tasks.runtime.estimation import estimate_inputs
from s2v_tasks.runtime.face_check import MAX_BYTES, RULES, FaceChecker
from s2v_tasks.runtime.lifecycle import open_run
from s2v_tasks.runtime.plan import estimate_plan, plan
from s2v_tasks.runtime.verdict_file import write_verdict_files
from s2v_tasks.settings import (
    Advanced,
    Credentials,
    CurateParameters,
    EstimateParameters,
    Screening,
    Thresholds,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))  # for its server

from image_server import ReceivedRequest, serving, write

SIDE_PX = 7000
"""The longest that the screen keeps."""


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


PORTRAIT = portrait(1)
DRAWN = Image.open(io.BytesIO(PORTRAIT))
_PNG = encoded(DRAWN, "PNG")
SEEN = {
    "/portrait": PORTRAIT,
    "/cmyk": encoded(DRAWN.convert("CMYK")),
    "/16 bits": encoded(DRAWN.convert("I").point(lambda value: value * 257).convert("I;16"), "PNG"),
    "/half grey": PORTRAIT[:1000] + bytes(len(PORTRAIT) - 1002) + PORTRAIT[-2:],
}
"""What is decoded."""
LASTING = {
    "/heavy": PORTRAIT + bytes(MAX_BYTES),
    "/endless": PORTRAIT,
}
"""What is never decoded, and need not be fetched again."""
UNREAD = {
    "/cut": PORTRAIT[:9000],
    "/bad png": _PNG[: len(_PNG) // 2] + bytes(len(_PNG) // 2),
    "/page later": PORTRAIT,
    "/gone later": PORTRAIT,
    "/cut later": PORTRAIT,
    "/opted out later": PORTRAIT,
    "/other file": PORTRAIT,
}
"""What another attempt may show otherwise."""
SCREENED_OUT = {"/page": b"<!doctype html><html><body>no image</body></html>"}


PRIVATE = Screening(faces="order", allow_private_hosts=True)
KEY = "a" * 32


class Host:
    """Serves the files, badly; some only to a request for their first bytes. Notes the whole ones."""

    def __init__(self, files: dict[str, bytes], etag: str | None = '"v1"') -> None:
        self.files, self.etag = files, etag
        self.whole: Counter[str] = Counter()

    async def respond(self, request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        path = request.target.replace("%20", " ")
        if request.headers.get("if-none-match") == self.etag is not None:
            await write(writer, 304)
        elif request.range is None:
            self.whole[path] += 1
            await self._whole(path, writer)
        else:
            start, end = request.range
            data = self.files[path]
            total = "*" if path == "/endless" else len(data)
            part = data[start : end + 1]
            span = f"bytes {start}-{start + len(part) - 1}/{total}"
            await write(writer, 206, part, content_range=span, etag=self.etag)

    async def _whole(self, path: str, writer: asyncio.StreamWriter) -> None:
        data, etag = self.files[path], self.etag
        match path:
            case "/endless":
                await write(writer, 200, data, content_length=None, etag=etag)
                while not writer.is_closing():
                    writer.write(bytes(65_536))
                    await writer.drain()
            case "/page later":
                await write(writer, 200, SCREENED_OUT["/page"], content_type="text/html", etag=etag)
            case "/gone later":
                await write(writer, 404)
            case "/cut later":
                await write(writer, 200, data[:5000], content_length=len(data), etag=etag)
                writer.close()
            case "/opted out later":
                await write(writer, 200, data, x_robots_tag="noai", etag=etag)
            case "/other file":
                await write(writer, 200, portrait(2), etag='"v2"')
            case _:
                content_type = "text/html" if path == "/page" else None
                await write(writer, 200, data, content_type=content_type, etag=etag)


class Service:
    """All pass."""

    async def send(self, request: Request, on_written: object) -> DetectResponse:
        """Respond to a call."""
        return PASSED


class Rate:
    """A rate limit that never changes."""

    rate_per_s, source = 100.0, "this test"


async def curated(folder: Path, urls: list[str], port: int) -> pl.DataFrame:
    """The verdicts of a run with a service of its own, so that it takes no verdict of another."""
    run_id = f"run-{port}"
    pl.DataFrame({"image_url": urls}).write_parquet(folder / "candidates.parquet")
    parameters = CurateParameters(
        candidates=str(folder / "candidates.parquet"),
        out=str(folder / "out"),
        budget_usd=1.0,
        screening=PRIVATE,
    )
    planned = plan(parameters, Credentials(f"http://127.0.0.1:{port}", SecretStr("key")))
    async with open_run(planned, run_id, Rate(), client=Service()) as run:
        with disable_run_logger(), tasks.current_run(run):
            await process_shards(run, tasks.screen.fn, tasks.detect.fn)
        assert run.stopped is None
        counts = write_verdict_files(run)
        assert sum(counts.values()) == len(urls)
        return pl.read_parquet(run.folder.verdicts)


@pytest.mark.ci
@pytest.mark.skipif(sys.platform != "linux", reason="macOS keeps no limit on memory, so the bomb is decoded")
async def test_whatever_is_behind_a_url_each_row_has_its_outcome_and_no_file_is_decoded_twice(
    tmp_path: Path,
) -> None:
    """What can't be decoded is kept, and sent; the next run fetches only what may be otherwise by then."""
    large = Image.new("RGB", (SIDE_PX, SIDE_PX), "red")
    seen_files = SEEN | {"/progressive": encoded(large, progressive=True, quality=30)}
    unread = UNREAD | {"/bomb": encoded(large.convert("RGBA"), "PNG", compress_level=1)}
    files = seen_files | LASTING | unread | SCREENED_OUT
    assert all(len(data) < MAX_BYTES for data in (seen_files | unread).values())
    host = Host(files)
    async with serving(host.respond) as server:
        urls = [server.url(path.replace(" ", "%20"), host="127.0.0.1") for path in files]
        verdicts = await curated(tmp_path, urls, 1)
        first, host.whole = host.whole, Counter()
        again = await curated(tmp_path, urls, 2)
    outcomes = dict(zip(files, verdicts["outcome"], strict=True))
    assert outcomes == {path: "screened_out" if path in SCREENED_OUT else "passed" for path in files}
    seen = dict(zip(files, verdicts["faces_seen"], strict=True))
    assert {path for path, faces in seen.items() if faces is not None} == seen_files.keys()
    assert (seen["/portrait"], seen["/cmyk"], seen["/16 bits"], seen["/progressive"]) == (1, 1, 1, 0)
    assert first.keys() == files.keys() - {"/heavy"}, "its length was known"
    assert host.whole.keys() == unread.keys() | SCREENED_OUT.keys()
    assert again.select("outcome", *COLUMNS).equals(verdicts.select("outcome", *COLUMNS))


@pytest.mark.parametrize("etag", ['"v1"', None])
async def test_a_file_is_decoded_again_when_its_etag_changed_or_its_header_expired(
    tmp_path: Path, etag: str | None
) -> None:
    """Without an ETag only the age of the header counts; an expired one is of no use."""
    host, screening, clock = Host(SEEN, etag), ScreenOptions.of(PRIVATE), SystemClock()
    async with (
        serving(host.respond) as server,
        Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3", clock) as ledger,
        FaceChecker(screening, ledger.headers) as checker,
    ):
        url = server.url("/portrait", host="127.0.0.1")
        images = pl.DataFrame({"image_key": [KEY], "url": [url]})

        async def fetched_with(header: Screened, hours_old: int = 0) -> int:
            await ledger.headers.put([header], screening, clock.utcnow() - timedelta(hours=hours_old))
            before = host.whole["/portrait"]
            assert (await checker.check(images))["faces_seen"].to_list() == [1]
            return host.whole["/portrait"] - before

        header = Screened(KEY, None, *DRAWN.size, "jpeg", validator=etag)
        assert await fetched_with(header) == 1
        assert (await checker.check(images))["faces_seen"].to_list() == [1]
        assert host.whole["/portrait"] == 1
        assert await fetched_with(header) == (0 if etag else 1)
        host.etag = '"v2"'
        assert await fetched_with(replace(header, validator='"v2"')) == 1
        assert await fetched_with(replace(header, validator='"v2"')) == 0
        assert await fetched_with(replace(header, validator='"v2"'), hours_old=25) == 1


@pytest.mark.parametrize(("rate_per_s", "processes"), [(0.0, 1), (5.0, 1), (6.0, 2), (inf, 2)])
async def test_at_the_usual_rate_a_core_is_left_to_send(rate_per_s: float, processes: int) -> None:
    """Faces are found by one process; by two where more calls are sent, or none."""
    checker = FaceChecker(ScreenOptions.of(PRIVATE), None, rate_per_s)
    async with serving(Host(SEEN).respond) as server, checker:
        urls = [server.url(path.replace(" ", "%20"), host="127.0.0.1") for path in SEEN]
        await checker.check(pl.DataFrame({"image_key": urls, "url": urls}))
        found = [child for child in psutil.Process().children() if "face_detector.py" in str(child.cmdline())]
    assert len(found) == processes


async def test_the_estimate_of_a_run_goes_by_faces_that_are_cached(tmp_path: Path) -> None:
    """No file is fetched for it; an image whose faces are not cached says nothing."""
    screening, clock = Screening(faces="drop"), SystemClock()
    options, ledger_url = ScreenOptions.of(screening), f"sqlite:///{tmp_path}/ledger.sqlite3"
    urls = [f"https://a.example/{number}.jpg" for number in range(4)]
    keys = [image_key(url) for url in urls]
    async with Ledger(ledger_url, clock) as ledger:
        headers = [Screened(key, None, 480, 640, "jpeg", validator='"v1"') for key in keys]
        await ledger.headers.put(headers, options, clock.utcnow())
        seen = {key: FileFaces(Faces(number, 0.9, 0.5), '"v1"') for number, key in enumerate(keys[:3])}
        await ledger.headers.put_faces(seen, options, RULES)
    pl.DataFrame({"image_url": urls}).write_parquet(tmp_path / "candidates.parquet")
    parameters = CurateParameters(
        candidates=str(tmp_path / "candidates.parquet"), out=str(tmp_path / "out"), budget_usd=1.0,
        screening=screening, advanced=Advanced(ledger=ledger_url),
        thresholds=Thresholds(min_pass_rate=0.3, max_missed_share=0.1),
    )  # fmt: skip
    planned = plan(parameters, Credentials("http://127.0.0.1:9/api/v1", SecretStr("key")))
    found = (await estimate_inputs(planned, 5.0)).estimate
    assert found.faces == SampledFaces(
        examined=3, none=1, single=1, several=1, segments=1,
        choice="drop", max_missed_share=0.1, min_pass_rate=0.3,
    )  # fmt: skip
    assert "| dropped by --faces drop | up to 0 (1 of 3 sampled) |" in markdown(found)


async def test_an_estimate_reads_a_ledger_that_has_no_faces_yet(tmp_path: Path) -> None:
    """Of an older schema, which an estimate doesn't change; the faces are not known then."""
    third = replace(SCHEMA, migrations=SCHEMA.migrations[:3])
    ledger_url = f"sqlite:///{tmp_path}/ledger.sqlite3"
    async with Ledger(ledger_url, SystemClock(), schema=third):
        pass
    candidates = tmp_path / "candidates.csv"
    candidates.write_text("image_url\nhttps://192.0.2.1/1.jpg\n")  # screened out without a request
    advanced = Advanced(ledger=ledger_url)
    parameters = EstimateParameters(
        candidates=str(candidates), screening=Screening(faces="drop"), advanced=advanced
    )
    found = (await estimate_inputs(estimate_plan(parameters), 5.0)).estimate
    assert found.faces is not None
    assert (found.faces.examined, found.faces.choice) == (0, "drop")
    async with Ledger(ledger_url, SystemClock(), existing=True) as ledger:
        assert ledger.version == 3
